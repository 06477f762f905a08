//! The process of a half: `tandem-host carry-half`. Its standard streams are chunks; it ends with its carry, or soon after
//! whoever started it.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tandem_carry::{Destination, Source, destination, source};
use tandem_carry_kernel::{
    Closed, DestinationHalf, Guarded, HoldTap, Mode, Order, SourceHalf, StreamIo, TapCopy, Wait,
};
use tokio::runtime::Handle;

use super::asker::Asker;
use super::chunk::{Chunk, Chunks, MAX_BYTES};
use super::orphan::Orphan;
use super::outbox::Outbox;
use super::privileges;
use super::settings::HalfArguments;
use super::words::{FromHalf, HalfReport, ProcessId, ToHalf, to_chunk, word_of};
use crate::evacuate::Side;
use crate::hypervisor::Host;

/// Words that wait to be read.
const QUEUE: usize = 64;
/// An answer that takes longer is none.
const ANSWER: Duration = Duration::from_secs(5);
/// A half that is over, or whose starter is gone, is gone so soon.
const LAST: Duration = Duration::from_secs(5);
/// One whose starter is gone, and which has the guest resumed before.
const LAST_OF_ORPHAN: Duration = Duration::from_secs(60);

/// Either half.
enum Half {
    /// And why the guest's queue can't be swept.
    Source(Box<SourceHalf>, Option<String>),
    /// And how many frames were taken out of the guest's queue, or why that can't be had.
    Destination(Box<DestinationHalf>, Result<u64, String>),
}

/// Runs it to its end; returns the exit code.
///
/// # Errors
/// If its kernel does not do what it needs. Whoever started it was told.
pub async fn run(arguments: &HalfArguments, host: Arc<dyn Host>) -> anyhow::Result<u8> {
    let arguments = arguments.clone();
    let handle = Handle::current();
    privileges::keep_few()?;
    let guard = move || {
        if arguments.check {
            return check(&arguments, &Orphan::new(&arguments, host, handle));
        }
        guard(&arguments, Orphan::new(&arguments, host, handle))
    };
    let guarding = tokio::task::spawn_blocking(guard);
    privileges::drop_all()?;
    guarding.await?
}

/// Says whether a half could do its work, by a tap that nobody else has unless one is named; nothing is left of that.
fn check(arguments: &HalfArguments, orphan: &Orphan) -> anyhow::Result<u8> {
    let opened = match arguments.tap {
        Some(_) => UnixStream::pair()
            .map_err(Into::into)
            .and_then(|(ours, _other)| Half::new(arguments, ours, orphan, || false).map(drop)),
        None => HoldTap::new()
            .and_then(|tap| Guarded::new(tap.name(), Mode::Drain).map(drop))
            .map_err(Into::into),
    };
    let (word, code) = match opened {
        Ok(()) => (FromHalf::Ready, 0),
        Err(error) => (FromHalf::Failed(format!("{error:#}")), 1),
    };
    io::stdout().lock().write_all(&to_chunk(&word).to_bytes())?;
    Ok(code)
}

fn guard(arguments: &HalfArguments, orphan: Orphan) -> anyhow::Result<u8> {
    let (ours, stream) = UnixStream::pair()?;
    let (waker, wake) = UnixStream::pair()?;
    let (heard, words) = sync_channel(QUEUE);
    let out = Arc::new(Outbox::default());
    let written = Arc::clone(&out);
    let writer = spawn_bare(move || written.write_all(io::stdout().lock()));
    let reading = stream.try_clone()?;
    let answered = waker.try_clone()?;
    spawn_bare(move || listen(stream, heard, waker));
    let made = Half::new(arguments, ours, &orphan, || {
        out.tell(&FromHalf::AskGuest);
        words.recv_timeout(ANSWER) == Ok(ToHalf::GuestIncoming)
    });
    let mut half = match made {
        Ok(half) => half,
        Err(error) => {
            out.tell(&FromHalf::Failed(format!("{error:#}")));
            out.close();
            let _ = writer.join();
            return Err(error);
        }
    };
    privileges::drop_rest(orphan.uri())?;
    let handed = Arc::clone(&out);
    let stream = spawn_bare(move || hand_on(reading, &handed));
    wake.set_nonblocking(true)?;
    if let Ok(process) = ProcessId::here(std::process::id()) {
        out.tell(&FromHalf::Process(process));
    }
    out.tell(&FromHalf::Ready);
    let mut turns = Loop {
        asker: Asker::new(orphan, answered),
        begun: Instant::now(),
        words,
        wake,
        out: &out,
    };
    let ended = turns.run(&mut half);
    // The tap is open from here on, and the other half sees the end of the stream.
    let report = half.report();
    drop(half);
    drop(turns);
    ended?;
    out.tell(&FromHalf::Ended(report));
    let _ = stream.join();
    out.close();
    let _ = writer.join();
    Ok(0)
}

/// A thread that only moves bytes, and may do nothing else.
fn spawn_bare(work: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || match privileges::drop_all() {
        Ok(()) => work(),
        Err(error) => tracing::warn!("a carry's half keeps its rights: {error}"),
    })
}

struct Loop<'a> {
    /// Of this half's own hypervisor.
    asker: Asker,
    begun: Instant,
    words: Receiver<ToHalf>,
    /// Tells of words and answers.
    wake: UnixStream,
    out: &'a Outbox,
}

impl Loop<'_> {
    fn run(&mut self, half: &mut Half) -> anyhow::Result<()> {
        let mut agreed = false;
        let mut end: Option<Instant> = None;
        let mut alone = false;
        loop {
            let mut words = Vec::new();
            alone = alone || self.hear(&mut words);
            words.extend(self.asker.answers());
            if alone {
                self.asker.look();
            }
            let now_ms = u64::try_from(self.begun.elapsed().as_millis())?;
            for order in half.turn(now_ms, words)? {
                let word = match order {
                    Order::StopGuest => FromHalf::StopGuest,
                    Order::ResumeGuest => FromHalf::ResumeGuest,
                    Order::AskGuest => {
                        // Whoever started this half does not know either, so far.
                        self.asker.ask_guest();
                        FromHalf::AskGuest
                    }
                };
                if alone {
                    self.asker.order(order);
                } else {
                    self.out.tell(&word);
                }
            }
            if !agreed && half.has_agreed() {
                agreed = true;
                self.out.tell(&FromHalf::Agreed);
            }
            let limit = match (half.is_ended(), alone) {
                (_, true) => Some(LAST_OF_ORPHAN),
                (true, false) => Some(LAST),
                (false, false) => None,
            };
            if let Some(limit) = limit {
                let at = *end.get_or_insert_with(|| Instant::now() + limit);
                let is_over = half.is_over() && !(alone && self.asker.is_busy());
                // The stream ends with the starter, and may be all that was seen of that so far. What was said last, a look
                // shows.
                if is_over && !alone && self.hear(&mut Vec::new()) {
                    alone = true;
                    end = None;
                    continue;
                }
                if is_over || Instant::now() >= at {
                    return Ok(());
                }
            }
            let last_ms = end.map(|_| now_ms + 100);
            let looks_in = self.asker.looks_in().filter(|_| alone);
            // A part of a ms is one.
            let look_ms = looks_in.map(|time| now_ms + 1 + u64::from(time.subsec_millis()));
            let until_ms = last_ms.into_iter().chain(look_ms).min();
            wait(&half.wait(now_ms), &self.wake, until_ms, now_ms)?;
            while matches!(self.wake.read(&mut [0; QUEUE]), Ok(1..)) {}
        }
    }

    /// Takes what was said; true if whoever started this half is gone.
    fn hear(&self, words: &mut Vec<ToHalf>) -> bool {
        loop {
            match self.words.try_recv() {
                Ok(word) => words.push(word),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }
}

impl Half {
    /// The destination's asks, before its tap is closed, whether the guest is still coming in.
    fn new(
        arguments: &HalfArguments,
        stream: UnixStream,
        orphan: &Orphan,
        is_incoming: impl FnMut() -> bool,
    ) -> anyhow::Result<Self> {
        let link = StreamIo::new(stream.try_clone()?.into(), stream.into())?;
        let limits = arguments.limits();
        let name = arguments.tap.as_deref().unwrap_or_default();
        let refused = || format!("tap {name} can't be guarded");
        let copy = TapCopy::of(name).map_err(|error| error.to_string());
        if let (Ok(copy), Some(process)) = (&copy, orphan.process())
            && !copy.holders().contains(&process)
        {
            bail!(
                "tap {name} is not domain {}'s: another process has it",
                arguments.domain
            );
        }
        Ok(match arguments.side {
            Side::Source => {
                let own: Vec<_> = arguments.own.iter().map(|mac| mac.0).collect();
                let mut machine = Source::new(limits, &own);
                if arguments.without_destination {
                    machine = machine.without_destination();
                }
                let tap = Guarded::new(name, Mode::Drain).with_context(refused)?;
                let half = SourceHalf::new(machine, tap, link);
                let (copy, no_copy) = match copy {
                    Ok(copy) => (Some(copy), None),
                    Err(reason) => (None, Some(reason)),
                };
                Self::Source(Box::new(half.with_copy(copy)), no_copy)
            }
            Side::Destination => {
                let machine = Destination::new(limits);
                // What came to a group before the tap was closed came to the source too, where the guest still is: it would get that
                // twice.
                let (mut copy, no_copy) = match copy {
                    Ok(copy) => (Some(copy), None),
                    Err(reason) => (None, Some(reason)),
                };
                let limit = arguments.limit;
                let closed = Guarded::close_before_arrival(name, copy.as_mut(), limit, is_incoming);
                let Closed { tap, emptied } = closed.with_context(refused)?;
                let emptied = no_copy.map_or(Ok(emptied), Err);
                Self::Destination(Box::new(DestinationHalf::new(machine, tap, link)), emptied)
            }
        })
    }

    fn turn(&mut self, now_ms: u64, words: Vec<ToHalf>) -> io::Result<Vec<Order>> {
        match self {
            Self::Source(half, _) => half.turn(now_ms, words.into_iter().filter_map(to_source)),
            Self::Destination(half, _) => {
                half.turn(now_ms, words.into_iter().filter_map(to_destination))
            }
        }
    }

    fn wait(&self, now_ms: u64) -> Wait<'_> {
        match self {
            Self::Source(half, _) => half.wait(now_ms),
            Self::Destination(half, _) => half.wait(now_ms),
        }
    }

    fn has_agreed(&self) -> bool {
        matches!(self, Self::Source(half, _) if half.machine.can_hold())
    }

    fn is_ended(&self) -> bool {
        match self {
            Self::Source(half, _) => half.machine.outcome().is_some(),
            Self::Destination(half, _) => half.machine.outcome().is_some(),
        }
    }

    /// It has ended, and the other half knows.
    fn is_over(&self) -> bool {
        match self {
            Self::Source(half, _) => half.is_over(),
            Self::Destination(half, _) => half.is_over(),
        }
    }

    fn report(&self) -> HalfReport {
        match self {
            Self::Source(half, no_copy) => {
                let counts = half.machine.counts();
                let cause = half.machine.outcome().and_then(|outcome| outcome.cause);
                HalfReport {
                    cause: cause.map(|cause| cause.to_string()),
                    held: counts.held,
                    carried: counts.carried,
                    confirmed: counts.confirmed,
                    given_back: counts.given_back - half.not_given_back(),
                    forwarded: counts.forwarded - half.not_forwarded(),
                    lost: counts.over_limit + counts.abandoned + half.lost(),
                    left_in_queue: half.drain_end().left,
                    swept: counts.swept,
                    unseen: half.drain_end().unseen,
                    no_copy: no_copy.clone(),
                    emptied: 0,
                    left_carried: 0,
                    late: 0,
                    drain_ms: half.drain_end().after_ms,
                    longest_wait_ms: counts.longest_wait_ms,
                    most_bytes: counts.most_bytes as u64,
                }
            }
            Self::Destination(half, emptied) => {
                let counts = half.machine.counts();
                let cause = half.machine.outcome().and_then(|outcome| outcome.cause);
                HalfReport {
                    cause: cause.map(|cause| cause.to_string()),
                    held: counts.native,
                    carried: counts.carried,
                    confirmed: counts.carried,
                    left_carried: counts.left_carried,
                    lost: counts.over_limit + counts.abandoned + counts.late_groups + half.lost(),
                    late: counts.late,
                    longest_wait_ms: counts.longest_wait_ms,
                    most_bytes: counts.most_bytes as u64,
                    emptied: emptied.as_ref().copied().unwrap_or(0),
                    no_copy: emptied.as_ref().err().cloned(),
                    ..HalfReport::default()
                }
            }
        }
    }
}

const fn to_source(word: ToHalf) -> Option<source::Input> {
    Some(match word {
        ToHalf::HoldWanted => source::Input::HoldWanted,
        ToHalf::StopRefused => source::Input::StopRefused,
        ToHalf::GuestStopped => source::Input::GuestStopped,
        ToHalf::MigrationCompleted => source::Input::MigrationCompleted,
        ToHalf::MigrationFailed => source::Input::MigrationFailed,
        ToHalf::GuestRuns => source::Input::GuestRuns,
        ToHalf::OtherHalfDied => source::Input::DestinationDied,
        ToHalf::GuestPaused | ToHalf::GuestIncoming => return None,
    })
}

const fn to_destination(word: ToHalf) -> Option<destination::Input> {
    match word {
        ToHalf::GuestPaused => Some(destination::Input::GuestPaused),
        ToHalf::GuestRuns => Some(destination::Input::GuestRuns),
        ToHalf::MigrationFailed => Some(destination::Input::MigrationFailed),
        ToHalf::OtherHalfDied => Some(destination::Input::SourceDied),
        _ => None,
    }
}

fn wait(wait: &Wait<'_>, wake: &UnixStream, until_ms: Option<u64>, now_ms: u64) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = wait
        .reads
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    fds.push(PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN));
    fds.extend(
        wait.writes
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)),
    );
    let until_ms = wait.until_ms.into_iter().chain(until_ms).min();
    let limit = until_ms.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)));
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// This half's bytes for the other one.
fn hand_on(mut stream: UnixStream, out: &Outbox) {
    let mut buffer = vec![0; MAX_BYTES];
    loop {
        let bytes = match stream.read(&mut buffer) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        if !out.hand_on(buffer[..bytes].to_vec()) || bytes == 0 {
            return;
        }
    }
}

/// What comes over standard input, until its end.
fn listen(mut stream: UnixStream, heard: SyncSender<ToHalf>, mut waker: UnixStream) {
    let mut chunks = Chunks::default();
    let mut buffer = vec![0; MAX_BYTES];
    let mut input = io::stdin().lock();
    'reading: loop {
        let bytes = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let mut rest = &buffer[..bytes];
        loop {
            match chunks.next(&mut rest) {
                Ok(Some(Chunk::Stream(bytes))) if bytes.is_empty() => {
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                }
                Ok(Some(Chunk::Stream(bytes))) => {
                    // A half that is over does not read any more, and still hears words.
                    let _ = stream.write_all(&bytes);
                }
                Ok(Some(Chunk::Word(word))) => {
                    if let Ok(Some(word)) = word_of(&word) {
                        if heard.send(word).is_err() {
                            break 'reading;
                        }
                        let _ = waker.write_all(&[0]);
                    }
                }
                Ok(None) => break,
                Err(_) => break 'reading,
            }
        }
    }
    // Whoever sees the stream's end finds the words' end too.
    drop(heard);
    let _ = stream.shutdown(std::net::Shutdown::Write);
}
