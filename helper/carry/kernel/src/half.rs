//! Turns of a half: everything that can be done without waiting. Whoever has the half waits in between for
//! [`Wait`], and is the one who asks the hypervisor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use tandem_carry::{Destination, Frame, Source, destination, source};

use crate::copy::{Forwarded, TapCopy};
use crate::guarded::Guarded;
use crate::stream_io::StreamIo;

/// Frames that are read out of the hold in one turn at most: as many as its queue has.
const TURN_FRAMES: usize = 10_000;
/// How soon a look at the tap's queue is due before it matters, in ms.
const LOOK_MS: u64 = 20;
/// How soon a turn is due while something is under way that gives no sign, in ms.
const BUSY_MS: u64 = 1;
/// Frames that are given to the network in one turn at most: an uplink's queue takes no more at once. About 1.2 Gbit/s of 1,500
/// bytes each.
const TURN_FORWARDS: usize = 100;
/// A frame that was let through just before the hold is in the tap's queue by then, in ms.
const SWEEP_MS: u64 = 20;
/// Frames of each queue that a guest's process may have taken in vain when the guest stands still: one for which the guest had no
/// buffer, and one after that (`net_vm_change_state_handler` of net/net.c and `tap_send` of net/tap.c, QEMU 11.1).
const TAKEN: u64 = 2;

/// What a half asks of whoever knows the hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Stop the guest here.
    StopGuest,
    /// Ask whether the guest stands still here: it was to be stopped, and nobody has told.
    AskGuest,
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
    copy: Option<TapCopy>,
    link: StreamIo,
    drain: Drain,
    hold_began_ms: u64,
    /// Until when the tap's queue is swept.
    sweeps_until_ms: Option<u64>,
    ended: DrainEnd,
    forwarding: Forwarding,
}

/// What goes to the network from the source.
#[derive(Debug, Default)]
struct Forwarding {
    /// The tap did not take it yet.
    waits: Option<Frame>,
    /// More is to go than went in one turn.
    has_more: bool,
    lost: u64,
}

/// How the wait for the tap's queue to be empty ended, before the guest's stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainEnd {
    /// From the hold until the stop was ordered, in ms; `None` if it never was.
    pub after_ms: Option<u64>,
    /// Frames that were still in the queue when the guest stood still and could not be swept, or had found it full since it was
    /// last seen empty: they are lost.
    pub left: u64,
    /// The queue was not seen empty before the guest stood still: so many frames may be lost besides, at most, which nobody
    /// sees.
    pub unseen: u64,
}

/// Whether the tap's queue is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    /// Now and then, before the hold.
    Ahead,
    /// All the time, as the hold has begun and the guest shall stop once it is empty.
    Awaited,
    /// No more: it was empty while frames were held.
    Empty,
    /// No more: nobody knows.
    Over,
}

/// The destination with its tap and its end of the stream.
#[derive(Debug)]
pub struct DestinationHalf {
    /// Decides.
    pub machine: Destination,
    tap: Guarded,
    link: StreamIo,
    announced: bool,
}

impl SourceHalf {
    /// `tap` passes frames.
    pub const fn new(machine: Source, tap: Guarded, link: StreamIo) -> Self {
        Self {
            machine,
            tap,
            copy: None,
            link,
            drain: Drain::Ahead,
            hold_began_ms: 0,
            sweeps_until_ms: None,
            ended: DrainEnd {
                after_ms: None,
                left: 0,
                unseen: 0,
            },
            forwarding: Forwarding {
                waits: None,
                has_more: false,
                lost: 0,
            },
        }
    }

    /// What the guest leaves in the tap's queue can be swept by this, and what has no destination forwarded.
    #[must_use]
    pub fn with_copy(mut self, copy: Option<TapCopy>) -> Self {
        self.machine = self.machine.with_forwarding(copy.is_some());
        self.copy = copy;
        self
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
        let Self {
            machine,
            tap,
            copy,
            link,
            drain,
            hold_began_ms,
            sweeps_until_ms,
            ended,
            forwarding,
        } = self;
        let mut orders = Vec::new();
        let has_lapsed = tap.beat()?;
        for input in learnt {
            machine.handle(now_ms, input);
        }
        if !link.receive(|message| machine.handle(now_ms, source::Input::Message(message))) {
            machine.handle(now_ms, source::Input::StreamEnded);
        }
        read_source(machine, tap, now_ms)?;
        if has_lapsed && sweeps_until_ms.is_none() && machine.is_stopped() {
            ended.left += read_passed(machine, tap, copy.as_mut(), now_ms)?;
        }
        let looks = matches!(drain, Drain::Ahead | Drain::Awaited);
        if looks && tap.in_queue() == 0 && *drain == Drain::Awaited {
            *drain = Drain::Empty;
            machine.handle(now_ms, source::Input::Drained);
        }
        machine.handle(now_ms, source::Input::Tick);
        let mut forwards = 0;
        forwarding.has_more = false;
        if let Some(frame) = forwarding.waits.take() {
            forwarding.give(frame, tap, copy.as_mut());
        }
        loop {
            loop {
                // What needs no room goes on all the same: a guest that stands still takes nothing from its queue.
                let takes = tap.has_room()? && !forwarding.is_busy(forwards);
                let action = if takes {
                    machine.next_action()
                } else {
                    machine.next_order()
                };
                let Some(action) = action else { break };
                match action {
                    source::Action::Hold => {
                        tap.hold()?;
                        *drain = Drain::Awaited;
                        *hold_began_ms = now_ms;
                    }
                    source::Action::Pass => {
                        // The guest takes it itself.
                        ended.unseen = 0;
                        *sweeps_until_ms = None;
                        tap.drain(now_ms)?;
                    }
                    source::Action::Inject(frame) => tap.inject(frame)?,
                    source::Action::Forward(frame) => {
                        forwards += 1;
                        forwarding.give(frame, tap, copy.as_mut());
                    }
                    source::Action::Detach => {
                        *sweeps_until_ms = None;
                        *copy = None;
                        tap.detach();
                    }
                    source::Action::StopGuest => {
                        ended.after_ms = Some(now_ms.saturating_sub(*hold_began_ms));
                        orders.push(Order::StopGuest);
                    }
                    source::Action::AskGuest => orders.push(Order::AskGuest),
                    source::Action::Sweep => {
                        if *drain != Drain::Empty {
                            ended.unseen = TAKEN * copy.as_ref().map_or(1, TapCopy::queues);
                        }
                        *drain = Drain::Over;
                        ended.left = tap.overflown();
                        *sweeps_until_ms = Some(now_ms + SWEEP_MS);
                    }
                    source::Action::ResumeGuest => {
                        if sweeps_until_ms.take().is_some() {
                            sweep(machine, copy.as_mut(), now_ms)?;
                            machine.handle(now_ms, source::Input::Swept);
                        }
                        orders.push(Order::ResumeGuest);
                    }
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
        if let Some(until_ms) = *sweeps_until_ms {
            sweep(machine, copy.as_mut(), now_ms)?;
            let left = tap.in_queue();
            if left == 0 || copy.is_none() || now_ms >= until_ms {
                *sweeps_until_ms = None;
                ended.left += left;
                machine.handle(now_ms, source::Input::Swept);
            }
        }
        if !link.send(|| machine.next_message()) {
            machine.handle(now_ms, source::Input::StreamEnded);
        }
        if machine.is_off_stream() {
            link.close();
        }
        Ok(orders)
    }

    /// How the wait for the tap's queue ended.
    pub const fn drain_end(&self) -> DrainEnd {
        self.ended
    }

    /// It has ended, and the other half knows, or is not to be told any more.
    pub fn is_over(&self) -> bool {
        self.machine.outcome().is_some() && self.link.is_closed()
    }

    /// What the next turn waits for.
    pub fn wait(&self, now_ms: u64) -> Wait<'_> {
        let look_ms = match self.drain {
            Drain::Ahead => Some(now_ms + LOOK_MS),
            Drain::Awaited => Some(now_ms + BUSY_MS),
            Drain::Empty | Drain::Over => self.sweeps_until_ms.map(|_| now_ms + BUSY_MS),
        };
        let deadline_ms = self
            .machine
            .next_deadline()
            .into_iter()
            .chain(look_ms)
            .min();
        let forwards_ms = self.forwarding.has_more.then_some(now_ms + BUSY_MS);
        let deadline_ms = deadline_ms.into_iter().chain(forwards_ms).min();
        wait(&self.tap, &self.link, deadline_ms, now_ms)
    }

    /// Frames that the hold itself has lost, as its queue was full, and those that the tap did not take to the guest or the network.
    pub const fn lost(&self) -> u64 {
        self.tap.lost() + self.forwarding.in_vain()
    }

    /// Of these, those that the tap did not take to the guest.
    pub const fn not_given_back(&self) -> u64 {
        self.tap.refused()
    }

    /// Of these, those that the tap did not take to the network.
    pub const fn not_forwarded(&self) -> u64 {
        self.forwarding.in_vain()
    }
}

impl Forwarding {
    fn give(&mut self, frame: Frame, tap: &Guarded, copy: Option<&mut TapCopy>) {
        let forwarded = copy.map_or(Forwarded::Refused, |copy| {
            copy.forward(&frame, tap.own_mac())
        });
        match forwarded {
            Forwarded::Done => {}
            Forwarded::Busy => self.waits = Some(frame),
            Forwarded::Refused => self.lost += 1,
        }
    }

    /// Frames that the tap did not take. One that still waits is lost as well, unless a later turn gives it.
    const fn in_vain(&self) -> u64 {
        self.lost + self.waits.is_some() as u64
    }

    /// No more goes in this turn, after so many.
    const fn is_busy(&mut self, forwards: usize) -> bool {
        self.has_more = self.waits.is_some() || forwards == TURN_FORWARDS;
        self.has_more
    }
}

impl DestinationHalf {
    /// `tap` is closed.
    pub const fn new(machine: Destination, tap: Guarded, link: StreamIo) -> Self {
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
        tap.beat()?;
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

    /// It has ended, and the other half knows, or is not to be told any more.
    pub fn is_over(&self) -> bool {
        self.machine.outcome().is_some() && self.link.is_closed()
    }

    /// What the next turn waits for.
    pub fn wait(&self, now_ms: u64) -> Wait<'_> {
        wait(&self.tap, &self.link, self.machine.next_deadline(), now_ms)
    }

    /// Frames that the hold itself has lost, as its queue was full, and those that the tap did not take.
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

/// All that the guest has left in the tap's queue.
fn sweep(machine: &mut Source, copy: Option<&mut TapCopy>, now_ms: u64) -> io::Result<()> {
    match copy {
        Some(copy) => read_queue(machine, copy, source::Input::Left, now_ms),
        None => Ok(()),
    }
}

/// Frames that passed the hold while this process stood still, behind a guest that does so too: they come after those that were
/// held until then. Gives how many can't be read, and are lost.
fn read_passed(
    machine: &mut Source,
    tap: &mut Guarded,
    copy: Option<&mut TapCopy>,
    now_ms: u64,
) -> io::Result<u64> {
    match copy {
        Some(copy) => read_queue(machine, copy, source::Input::Frame, now_ms).map(|()| 0),
        None => Ok(tap.in_queue()),
    }
}

/// What waits in the tap's queue, as an input each.
fn read_queue(
    machine: &mut Source,
    copy: &mut TapCopy,
    input: fn(Frame) -> source::Input,
    now_ms: u64,
) -> io::Result<()> {
    for _ in 0..TURN_FRAMES {
        let Some(frame) = copy.read()? else {
            break;
        };
        machine.handle(now_ms, input(frame));
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

fn wait<'a>(
    tap: &'a Guarded,
    link: &'a StreamIo,
    deadline_ms: Option<u64>,
    now_ms: u64,
) -> Wait<'a> {
    let (reads, writes) = link.waits();
    let busy_ms = tap.is_busy().then(|| now_ms + BUSY_MS);
    let beat_ms = tap.beats_in_ms().map(|ms| now_ms + ms);
    let due_ms = deadline_ms.into_iter().chain(busy_ms).chain(beat_ms);
    Wait {
        reads: reads.into_iter().chain([tap.as_fd()]).collect(),
        writes,
        until_ms: due_ms.min(),
    }
}
