//! What a carry costs under load: both halves on this machine's kernel, in a network of their own, with as many frames as they
//! take while the guest stands still.
//!
//! Usage: `carry_load FRAMES whole|segmented`, as root. Prints one line of `name=number`. Whole frames have 1,514 bytes; a segmented
//! one has 64 KB for TCP's segmentation to cut, as a guest on the same host or an aggregating NIC sends it.
//!
//! ```text
//!  peer - port - sw - tap     tap    each half on a thread of its own
//! ```

use std::error::Error;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TcAttachType};
use aya::sys::{Stats, enable_stats};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use rustix::time::{ClockId, clock_gettime};
use tandem_carry::{Destination, Frame, Limits, Mac, Source, destination, source};
use tandem_carry_kernel::{
    DestinationHalf, Guarded, HoldTap, Injected, Injector, Mode, Order, SourceHalf, StreamIo, Wait,
};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const GUEST: Mac = [0x52, 0x54, 0, 0, 0, 1];
const PEER: Mac = [0x52, 0x54, 0, 0, 0, 2];
/// Frames that may be under way to the source: fewer than the hold's queue has.
const AHEAD: u64 = 4_000;
/// A run that takes longer has hung.
const LIMIT: Duration = Duration::from_secs(300);

/// How far it is, for all threads.
#[derive(Default)]
struct Progress {
    /// Frames that the source has read.
    held: AtomicU64,
    /// Frames that the destination has.
    carried: AtomicU64,
    /// The source holds, and the guest stands still.
    stopped: AtomicU64,
    /// All were sent and carried: the guest runs.
    runs: AtomicU64,
    got: AtomicU64,
}

/// What a half took.
struct Cost {
    cpu_ns: u64,
    most_bytes: usize,
    lost: u64,
    longest_wait_ms: u64,
}

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [frames, form] = arguments.as_slice() else {
        return Err("usage: carry_load FRAMES whole|segmented".into());
    };
    let frames: u64 = frames.parse()?;
    let frame = match form.as_str() {
        "whole" => whole(),
        "segmented" => segmented(),
        _ => return Err("a frame is whole or segmented".into()),
    };
    #[expect(unsafe_code, reason = "a thread's namespace is no matter of memory")]
    // SAFETY: no file descriptor is shared otherwise by that, and this is the only thread.
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNET)?;
    }
    let taps = [HoldTap::new()?, HoldTap::new()?];
    for arguments in [
        "link add sw type bridge".to_owned(),
        "link add peer type veth peer name port".to_owned(),
        "link set port master sw".to_owned(),
        format!("link set {} master sw", taps[0].name()),
        "link set sw up".to_owned(),
        "link set peer up".to_owned(),
        "link set port up".to_owned(),
    ] {
        ip(&arguments)?;
    }
    let _taken = enable_stats(Stats::RunTime)?;
    let figures = run(taps, &frame, frames)?;
    println!("{figures}");
    Ok(())
}

fn run(taps: [HoldTap; 2], frame: &Frame, frames: u64) -> Fallible<String> {
    let limits = Limits {
        // All that a run has is to fit, whatever it comes to.
        frames: usize::try_from(frames)? + 1_000,
        bytes: usize::MAX / 4,
        hold_ms: 300_000,
        forward_ms: 300_000,
        resume_ms: 300_000,
        settle_ms: 200,
        quiet_ms: 200,
        ..Limits::default()
    };
    let progress = Arc::new(Progress::default());
    let (ours, theirs) = UnixStream::pair()?;
    let link = |end: UnixStream| StreamIo::new(end.try_clone()?.into(), end.into());
    let [tap, mut there] = taps;
    let source = SourceHalf::new(
        Source::new(limits, &[GUEST]),
        Guarded::new(tap.name(), Mode::Drain)?,
        link(ours)?,
    );
    let destination = DestinationHalf::new(
        Destination::new(limits),
        Guarded::new(there.name(), Mode::Closed)?,
        link(theirs)?,
    );
    let before_bytes = resident_bytes()?;
    let begun = Instant::now();
    let shared = Arc::clone(&progress);
    let sources = thread::spawn(move || run_source(source, begun, frames, &shared));
    let shared = Arc::clone(&progress);
    let destinations = thread::spawn(move || run_destination(destination, begun, frames, &shared));
    let shared = Arc::clone(&progress);
    let reader = thread::spawn(move || -> Fallible<HoldTap> {
        while shared.got.load(Ordering::Relaxed) < frames && begun.elapsed() < LIMIT {
            wait(&[there.as_fd()], None, 20)?;
            while let Some(frame) = there.read()? {
                let ours = frame.source() == PEER;
                shared.got.fetch_add(ours.into(), Ordering::Relaxed);
            }
        }
        // The half may still have something for it.
        Ok(there)
    });
    until(begun, || progress.stopped.load(Ordering::Relaxed) == 1)?;
    let peer = Injector::new("peer")?;
    let (sending, cpu_before) = (Instant::now(), cpu_ns());
    for sent in 0..frames {
        until(begun, || {
            sent - progress.held.load(Ordering::Relaxed).min(sent) < AHEAD
        })?;
        while peer.inject(frame)? == Injected::Full {
            thread::yield_now();
        }
    }
    let peer_ns = cpu_ns() - cpu_before;
    until(begun, || progress.carried.load(Ordering::Relaxed) >= frames)?;
    let took = sending.elapsed();
    let program = SchedClassifier::query_tcx(tap.name(), TcAttachType::Egress)?;
    let program = program.1.first().ok_or("no program is attached")?;
    let (program_ns, runs) = (program.run_time().as_nanos(), program.run_count());
    let most = resident_bytes()?;
    progress.runs.store(1, Ordering::Relaxed);
    let source = sources.join().map_err(|_| "the source panicked")??;
    let destination = destinations
        .join()
        .map_err(|_| "the destination panicked")??;
    let _tap = reader.join().map_err(|_| "the reader panicked")??;
    Ok(format!(
        "frames={frames} bytes={} took-us={} peer-ns={peer_ns} source-ns={} destination-ns={} program-ns={program_ns} program-runs={runs} \
         source-bytes={} destination-bytes={} resident-bytes={} lost={} got={} latest-ms={}",
        frame.ethernet().len(),
        took.as_micros(),
        source.cpu_ns,
        destination.cpu_ns,
        source.most_bytes,
        destination.most_bytes,
        most.saturating_sub(before_bytes),
        source.lost + destination.lost,
        progress.got.load(Ordering::Relaxed),
        source.longest_wait_ms + destination.longest_wait_ms
    ))
}

fn run_source(
    mut half: SourceHalf,
    begun: Instant,
    frames: u64,
    progress: &Progress,
) -> Fallible<Cost> {
    let (mut inputs, mut completed) = (Vec::new(), false);
    while half.machine.outcome().is_none() && begun.elapsed() < LIMIT {
        let now_ms = ms(begun);
        if half.machine.can_hold() {
            inputs.push(source::Input::HoldWanted);
        }
        if !completed && progress.carried.load(Ordering::Relaxed) >= frames {
            completed = true;
            inputs.push(source::Input::MigrationCompleted);
        }
        for order in half.turn(now_ms, inputs.drain(..))? {
            if order == Order::StopGuest {
                inputs.push(source::Input::GuestStopped);
                progress.stopped.store(1, Ordering::Relaxed);
            }
        }
        progress
            .held
            .store(half.machine.counts().held, Ordering::Relaxed);
        wait_for(&half.wait(now_ms), now_ms)?;
    }
    let counts = half
        .machine
        .outcome()
        .ok_or("the source does not end")?
        .counts;
    Ok(Cost {
        cpu_ns: cpu_ns(),
        most_bytes: counts.most_bytes,
        lost: counts.over_limit + counts.abandoned + half.lost(),
        longest_wait_ms: counts.longest_wait_ms,
    })
}

fn run_destination(
    mut half: DestinationHalf,
    begun: Instant,
    frames: u64,
    progress: &Progress,
) -> Fallible<Cost> {
    let mut told = false;
    while half.machine.outcome().is_none() && begun.elapsed() < LIMIT {
        let now_ms = ms(begun);
        let runs = progress.runs.load(Ordering::Relaxed) == 1;
        let input = (runs && !told).then_some(destination::Input::GuestRuns);
        told |= runs;
        half.turn(now_ms, input)?;
        let carried = half.machine.counts().carried;
        progress.carried.store(carried, Ordering::Relaxed);
        let mut wait = half.wait(now_ms);
        if carried >= frames && !told {
            wait.until_ms = Some(now_ms + 1);
        }
        wait_for(&wait, now_ms)?;
    }
    let counts = half
        .machine
        .outcome()
        .ok_or("the destination does not end")?
        .counts;
    Ok(Cost {
        cpu_ns: cpu_ns(),
        most_bytes: counts.most_bytes,
        lost: counts.over_limit + counts.abandoned + counts.late_groups + half.lost(),
        longest_wait_ms: counts.longest_wait_ms,
    })
}

fn wait_for(wanted: &Wait<'_>, now_ms: u64) -> Fallible<()> {
    let limit_ms = wanted
        .until_ms
        .map_or(20, |at_ms| at_ms.saturating_sub(now_ms).min(20));
    wait(&wanted.reads, wanted.writes, limit_ms)
}

fn wait(
    reads: &[std::os::fd::BorrowedFd<'_>],
    writes: Option<std::os::fd::BorrowedFd<'_>>,
    limit_ms: u64,
) -> Fallible<()> {
    let reads = reads
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
    let writes = writes.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT));
    let mut fds: Vec<_> = reads.chain(writes).collect();
    let limit = Timespec::try_from(Duration::from_millis(limit_ms))?;
    match poll(&mut fds, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn until(begun: Instant, is_so: impl Fn() -> bool) -> Fallible<()> {
    while !is_so() {
        if begun.elapsed() >= LIMIT {
            return Err("it takes too long".into());
        }
        thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

fn ms(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Of this thread, with what the kernel does in its name.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let [seconds, ns] = [time.tv_sec, time.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    seconds * 1_000_000_000 + ns
}

fn resident_bytes() -> Fallible<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("no VmRSS")?.trim().parse::<u64>()? * 1024)
}

fn ip(arguments: &str) -> Fallible<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status()?;
    if !status.success() {
        return Err(format!("ip {arguments} failed").into());
    }
    Ok(())
}

/// As long as Ethernet's longest.
fn whole() -> Frame {
    let mut bytes = vec![0; tandem_carry::HEADER_BYTES];
    bytes.extend(GUEST);
    bytes.extend(PEER);
    // Local Experimental Ethertype 2 of IEEE 802.
    bytes.extend([0x88, 0xb6]);
    bytes.resize(tandem_carry::HEADER_BYTES + 1514, 7);
    Frame::new(&bytes).expect("a frame's length")
}

/// TCP's bytes in one, their checksum and segments still to be made.
fn segmented() -> Frame {
    const PAYLOAD: u16 = 65_000;
    // VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4 (include/uapi/linux/virtio_net.h).
    let mut bytes = vec![1, 1];
    // Header's length, segment's length, where the checksum starts and goes.
    for word in [14 + 20 + 20_u16, 1448, 14 + 20, 16] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(GUEST);
    bytes.extend(PEER);
    bytes.extend([8, 0]);
    let mut header = vec![0x45, 0];
    header.extend((20 + 20 + PAYLOAD).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    // A bridge that filters IP drops what has a wrong one.
    let words = header
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let checksum = !((sum & 0xffff) + (sum >> 16));
    header[10..12].copy_from_slice(&checksum.to_be_bytes()[2..]);
    bytes.extend(header);
    bytes.extend([
        0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    bytes.resize(bytes.len() + usize::from(PAYLOAD), 7);
    Frame::new(&bytes).expect("a frame's length")
}
