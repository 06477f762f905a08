//! Turns of a half: everything that can be done without waiting. Whoever has the half waits in between for
//! [`Wait`], and is the one who asks the hypervisor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use tandem_carry::{Destination, Source, destination, source};

use crate::guarded::Guarded;
use crate::link::Link;

/// Frames that are read out of the hold in one turn at most: as many as its queue has.
const TURN_FRAMES: usize = 10_000;
/// How soon a turn is due while something is under way that gives no sign, in ms.
const BUSY_MS: u64 = 1;

/// What a half asks of whoever knows the hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Stop the guest here.
    StopGuest,
    /// Resume the guest here.
    ResumeGuest,
}

/// What the next turn has to wait for, whichever comes first.
#[derive(Debug)]
pub struct Wait<'a> {
    /// One of these can be read.
    pub reads: Vec<BorrowedFd<'a>>,
    /// This can be written.
    pub writes: Option<BorrowedFd<'a>>,
    /// This moment has come, in ms.
    pub until_ms: Option<u64>,
}

/// The source with its tap and its end of the stream.
#[derive(Debug)]
pub struct SourceHalf {
    /// Decides.
    pub machine: Source,
    tap: Guarded,
    link: Link,
}

/// The destination with its tap and its end of the stream.
#[derive(Debug)]
pub struct DestinationHalf {
    /// Decides.
    pub machine: Destination,
    tap: Guarded,
    link: Link,
    announced: bool,
}

impl SourceHalf {
    /// `tap` passes frames.
    pub const fn new(machine: Source, tap: Guarded, link: Link) -> Self {
        Self { machine, tap, link }
    }

    /// Does what can be done at the moment `now_ms`, with what has been learnt of the hypervisor since.
    ///
    /// # Errors
    /// If the kernel fails. To drop the half leaves the tap open.
    pub fn turn(
        &mut self,
        now_ms: u64,
        learnt: impl IntoIterator<Item = source::Input>,
    ) -> io::Result<Vec<Order>> {
        let Self { machine, tap, link } = self;
        let mut orders = Vec::new();
        for input in learnt {
            machine.handle(now_ms, input);
        }
        if !link.receive(|message| machine.handle(now_ms, source::Input::Message(message))) {
            machine.handle(now_ms, source::Input::StreamEnded);
        }
        read_source(machine, tap, now_ms)?;
        machine.handle(now_ms, source::Input::Tick);
        loop {
            while tap.has_room()?
                && let Some(action) = machine.next_action()
            {
                match action {
                    source::Action::Hold => tap.hold()?,
                    source::Action::Pass => tap.drain(now_ms)?,
                    source::Action::Inject(frame) => tap.inject(frame)?,
                    source::Action::Detach => tap.detach(),
                    source::Action::StopGuest => orders.push(Order::StopGuest),
                    source::Action::ResumeGuest => orders.push(Order::ResumeGuest),
                    source::Action::ReadDry => {
                        read_source(machine, tap, now_ms)?;
                        machine.handle(now_ms, source::Input::Dry);
                    }
                }
            }
            if !tap.settle(machine.pending(), now_ms)? {
                break;
            }
            machine.handle(now_ms, source::Input::Passing);
        }
        if !link.send(|| machine.next_message()) {
            machine.handle(now_ms, source::Input::StreamEnded);
        }
        if machine.is_off_stream() {
            link.close();
        }
        Ok(orders)
    }

    /// What the next turn waits for.
    pub fn wait(&self, now_ms: u64) -> Wait<'_> {
        wait(&self.tap, &self.link, self.machine.next_deadline(), now_ms)
    }

    /// Frames that the hold itself has lost: its queue was full.
    pub const fn lost(&self) -> u64 {
        self.tap.lost()
    }
}

impl DestinationHalf {
    /// `tap` is closed.
    pub const fn new(machine: Destination, tap: Guarded, link: Link) -> Self {
        Self {
            machine,
            tap,
            link,
            announced: false,
        }
    }

    /// Does what can be done at the moment `now_ms`, with what has been learnt of the hypervisor since.
    ///
    /// # Errors
    /// If the kernel fails. To drop the half leaves the tap open.
    pub fn turn(
        &mut self,
        now_ms: u64,
        learnt: impl IntoIterator<Item = destination::Input>,
    ) -> io::Result<Vec<Order>> {
        let Self {
            machine,
            tap,
            link,
            announced,
        } = self;
        let mut orders = Vec::new();
        for input in learnt {
            machine.handle(now_ms, input);
        }
        if !*announced && tap.announced()?.is_some() {
            *announced = true;
            machine.handle(now_ms, destination::Input::Announced);
        }
        if !link.receive(|message| machine.handle(now_ms, destination::Input::Message(message))) {
            machine.handle(now_ms, destination::Input::StreamEnded);
        }
        read_destination(machine, tap, now_ms)?;
        machine.handle(now_ms, destination::Input::Tick);
        loop {
            while tap.has_room()?
                && let Some(action) = machine.next_action()
            {
                match action {
                    destination::Action::Hold => tap.hold()?,
                    destination::Action::Open => tap.drain(now_ms)?,
                    destination::Action::Inject(frame) => tap.inject(frame)?,
                    destination::Action::Detach => tap.detach(),
                    destination::Action::ResumeGuest => orders.push(Order::ResumeGuest),
                    destination::Action::ReadDry => {
                        read_destination(machine, tap, now_ms)?;
                        machine.handle(now_ms, destination::Input::Dry);
                    }
                }
            }
            if !tap.settle(machine.pending(), now_ms)? {
                break;
            }
            machine.handle(now_ms, destination::Input::Opened);
        }
        if !link.send(|| machine.next_message()) {
            machine.handle(now_ms, destination::Input::StreamEnded);
        }
        if machine.is_off_stream() {
            link.close();
        }
        Ok(orders)
    }

    /// What the next turn waits for.
    pub fn wait(&self, now_ms: u64) -> Wait<'_> {
        wait(&self.tap, &self.link, self.machine.next_deadline(), now_ms)
    }

    /// Frames that the hold itself has lost: its queue was full.
    pub const fn lost(&self) -> u64 {
        self.tap.lost()
    }
}

fn read_source(machine: &mut Source, tap: &mut Guarded, now_ms: u64) -> io::Result<()> {
    for _ in 0..TURN_FRAMES {
        let Some((frame, _)) = tap.read(now_ms)? else {
            break;
        };
        machine.handle(now_ms, source::Input::Frame(frame));
    }
    Ok(())
}

fn read_destination(machine: &mut Destination, tap: &mut Guarded, now_ms: u64) -> io::Result<()> {
    for _ in 0..TURN_FRAMES {
        let Some((frame, early)) = tap.read(now_ms)? else {
            break;
        };
        machine.handle(now_ms, destination::Input::Native { frame, early });
    }
    Ok(())
}

fn wait<'a>(tap: &'a Guarded, link: &'a Link, deadline_ms: Option<u64>, now_ms: u64) -> Wait<'a> {
    let (reads, writes) = link.waits();
    let busy_ms = tap.is_busy().then(|| now_ms + BUSY_MS);
    Wait {
        reads: reads.into_iter().chain([tap.as_fd()]).collect(),
        writes,
        until_ms: deadline_ms.into_iter().chain(busy_ms).min(),
    }
}
