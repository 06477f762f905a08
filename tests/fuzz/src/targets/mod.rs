//! One file for each target; each has its corpus in `tests/fuzz/corpus/NAME`.

mod carry;
mod kernel;
mod mixed;
mod policy;
mod qmp;
mod record;
mod reply;
mod rtnl;
mod serve;
mod session;
mod virsh;
mod xml;

use std::sync::LazyLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A target: its name, and what it does with bytes.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 12] = [
    ("carry", carry::run),
    ("kernel", kernel::run),
    ("mixed", mixed::run),
    ("policy", policy::run),
    ("qmp", qmp::run),
    ("record", record::run),
    ("reply", reply::run),
    ("rtnl", rtnl::run),
    ("serve", serve::run),
    ("session", session::run),
    ("virsh", virsh::run),
    ("xml", xml::run),
];
const VARIABLE: &str = "TANDEM_FUZZ_TARGET";
/// Nothing that is taken from anybody is longer than a few megabytes, and each byte costs far less than a
/// microsecond. So this is never reached but by work that grows faster than its input; whatever else the
/// machine does counts for nothing.
const LIMIT: Duration = Duration::from_secs(3);

/// The target that the environment names.
///
/// # Panics
/// If there is none of that name.
pub(crate) fn chosen() -> Target {
    static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        let found = TARGETS.into_iter().find(|(target, _)| *target == name);
        let names = TARGETS.map(|(name, _)| name).join(", ");
        found.unwrap_or_else(|| panic!("{VARIABLE} is `{name}`, and none of {names}"))
    });
    *CHOSEN
}

/// Runs the chosen target once.
///
/// # Panics
/// If a promise does not hold.
pub(crate) fn run(bytes: &[u8]) {
    let (name, target) = chosen();
    let before = worked();
    target(bytes);
    let took = worked() - before;
    assert!(
        took < LIMIT,
        "{name}: {} bytes took {took:?} of the processor's time",
        bytes.len()
    );
}

/// The processor's time that this thread has had.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}

/// Bytes as text, as everything that takes text only would see them.
fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
