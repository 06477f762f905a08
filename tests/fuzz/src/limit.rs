//! How long an input may keep the processor busy. What takes far longer is told while it does, with its size: a
//! fuzzer that is only ended from outside says neither.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::gettid;
use rustix::time::{ClockId, clock_gettime};

/// Nothing that is taken from anybody is longer than a few megabytes, and each byte costs far less than a
/// microsecond. So this is never reached but by work that grows faster than its input; whatever else the
/// machine does counts for nothing.
const LIMIT: Duration = Duration::from_secs(3);
/// How often what is under way is looked at.
const PERIOD: Duration = Duration::from_millis(500);

/// The processor's time that the fuzzer's thread had had when the input under way began, and 1 more, in ns; 0: none is
/// under way.
static BEGUN_NS: AtomicU64 = AtomicU64::new(0);
/// The size of that input.
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Looks after the thread that calls this, for good.
pub(crate) fn watch(name: &'static str) {
    // "The first number: time spent on the CPU, in ns" (Documentation/scheduler/sched-stats.rst, Linux 6.12).
    let path = format!("/proc/self/task/{}/schedstat", gettid().as_raw_nonzero());
    thread::spawn(move || {
        loop {
            thread::sleep(PERIOD);
            let text = std::fs::read_to_string(&path).expect("the kernel counts what threads take");
            let now_ns = text.split(' ').next().and_then(|first| first.parse().ok());
            let now_ns: u64 = now_ns.expect("a number");
            let Some(begun_ns) = BEGUN_NS.load(Ordering::Acquire).checked_sub(1) else {
                continue;
            };
            check(name, Duration::from_nanos(now_ns.saturating_sub(begun_ns)));
        }
    });
}

/// Does that with an input of so many bytes.
///
/// # Panics
/// If it takes too long.
pub(crate) fn within(name: &str, bytes: usize, run: impl FnOnce()) {
    let begun = worked();
    BYTES.store(bytes as u64, Ordering::Release);
    let begun_ns = u64::try_from(begun.as_nanos()).unwrap_or_default();
    BEGUN_NS.store(begun_ns + 1, Ordering::Release);
    run();
    BEGUN_NS.store(0, Ordering::Release);
    check(name, worked() - begun);
}

fn check(name: &str, took: Duration) {
    let bytes = BYTES.load(Ordering::Acquire);
    assert!(
        took < LIMIT,
        "{name}: {bytes} bytes took {took:?} of the processor's time"
    );
}

/// The processor's time that this thread has had.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}
