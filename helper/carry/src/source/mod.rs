//! The half on the host that the guest leaves: holds, has the guest stopped, sends, forwards; or gives everything back.
//!
//! ```text
//! Pass -> Hold -> Stopping -> Stopped -> Closing -> Ended     it migrates
//!          |         |           |
//!          +---------+-----------+-----> Drain ---> Ended     it stays
//! ```
//!
//! Without a destination the guest's frames wait in `Stopped` until the guest is heard from elsewhere, and go to the network.

mod forward;
mod inputs;
mod messages;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::frame::{Frame, Mac};
use crate::limits::{Limits, MAX_OWN_MACS};
use crate::message::{CarryCause, Message, VERSIONS};
use crate::queue::Queue;

/// What a source may learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A deadline may have passed.
    Tick,
    /// The other half said this.
    Message(Message),
    /// The stream ended, or gave bytes that are no message.
    StreamEnded,
    /// The other half's process is dead, and had not ended the stream before: it gives the guest nothing any more, and gave
    /// it nothing before [`Message::HandOver`].
    DestinationDied,
    /// Little is left to be copied: hold, and have the guest stopped.
    HoldWanted,
    /// The tap's queue is empty since the hold: what came before it has reached the guest.
    Drained,
    /// The hypervisor refused the stop.
    StopRefused,
    /// The guest stands still here, whoever stopped it.
    GuestStopped,
    /// The hypervisor says that the migration is complete: the guest won't run here again.
    MigrationCompleted,
    /// The hypervisor says that the migration failed or was cancelled.
    MigrationFailed,
    /// After [`Input::GuestStopped`]: the guest runs here again.
    GuestRuns,
    /// A frame was held.
    Frame(Frame),
    /// After [`Action::Sweep`]: a frame was left in the tap's queue. It came before all that were held.
    Left(Frame),
    /// After [`Action::Sweep`]: nothing is left there, or nobody can tell.
    Swept,
    /// After [`Action::ReadDry`]: all that was held until then has been given to the machine.
    Dry,
    /// After [`Action::Pass`]: all that was held has been given back, and frames pass the tap as ever.
    Passing,
}

/// What a source may want done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Hold frames in front of the tap's queue; say [`Input::Drained`] once that is empty.
    Hold,
    /// Have the hypervisor stop the guest.
    StopGuest,
    /// Have the hypervisor resume the guest here: it was stopped for a migration that failed.
    ResumeGuest,
    /// The stop that was ordered is not known of: ask the hypervisor whether the guest stands still, and say
    /// [`Input::GuestStopped`] or [`Input::StopRefused`] if it answers.
    AskGuest,
    /// The guest stands still, and frames are held: say what it left in the tap's queue, in order, as [`Input::Left`], then
    /// [`Input::Swept`]. No more is to be read there once another action follows.
    Sweep,
    /// Read what is held until nothing is left, then say [`Input::Dry`].
    ReadDry,
    /// Let frames pass again once as many have been given back as were held, so that none overtakes.
    Pass,
    /// Give this frame to the tap, behind its hold. Fetched only when the tap's queue has room.
    Inject(Frame),
    /// Give this frame to the network, which knows by now that the guest is elsewhere: from the tap, as if the guest sent it, with
    /// a source MAC that nobody else has. Some at a time.
    Forward(Frame),
    /// Take the hold off the tap.
    Detach,
}

/// Frames, and what the carry cost. What was `held` is counted once more, as what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// That were held, or swept.
    pub held: u64,
    /// Of these, that the guest had left in the tap's queue.
    pub swept: u64,
    /// That were sent to the destination for good.
    pub carried: u64,
    /// That were given back to the guest here.
    pub given_back: u64,
    /// That were given to the network, as there was no destination to carry them to.
    pub forwarded: u64,
    /// That the guest itself had sent.
    pub own: u64,
    /// To a group, that the destination gets from the network by then.
    pub left_to_the_network: u64,
    /// That were lost since no more may be kept.
    pub over_limit: u64,
    /// That were lost since they could neither be sent nor given back.
    pub abandoned: u64,
    /// That the destination says it has given to the guest.
    pub confirmed: u64,
    /// The longest that a frame waited here to be sent, in ms.
    pub longest_wait_ms: u64,
    /// The most bytes of frames that were kept at once.
    pub most_bytes: usize,
}

/// How a carry ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Why it ended early; `None` if it was done.
    pub cause: Option<CarryCause>,
    /// What became of the frames.
    pub counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Pass,
    Hold { since_ms: u64 },
    Stopping { since_ms: u64 },
    Stopped { since_ms: u64 },
    Closing { since_ms: u64 },
    Drain { since_ms: u64, passing: bool },
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Greeting,
    Agreed,
    Over,
}

/// How far the answer to the destination's [`Message::SyncRequest`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    NotAsked,
    Straggling { until_ms: u64 },
    Reading,
    Answered,
}

/// How far it is with what the guest has left in the tap's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sweep {
    /// The guest does not stand still yet.
    NotYet,
    Sweeping,
    Done,
}

/// The machine of a source.
#[derive(Debug)]
pub struct Source {
    limits: Limits,
    own: Vec<Mac>,
    now_ms: u64,
    phase: Phase,
    stream: Stream,
    sync: Sync,
    sweep: Sweep,
    /// Held frames, until it is certain that the guest won't run here again.
    kept: Queue,
    /// How many of them, at the front, were swept, and have been sent of those.
    swept: usize,
    swept_sent: usize,
    /// How many of the others have been sent.
    held_sent: usize,
    /// The last number that was given, and the last that was sent.
    last_number: u64,
    last_sent: u64,
    /// On their way back to the guest.
    giving: Queue,
    actions: VecDeque<Action>,
    /// Each goes after the frame with this number.
    says: VecDeque<(u64, Message)>,
    stop_ordered: bool,
    /// [`Action::AskGuest`] was wanted.
    stop_asked: bool,
    /// Frames were given back, and that stop may still come or have come: the guest would not take them.
    stop_unknown: bool,
    /// How many of those that were given back may be swept then.
    may_be_swept: u64,
    committed: bool,
    peer_done: bool,
    peer_died: bool,
    /// The other half has left to this one all that was sent.
    peer_gave_nothing: bool,
    /// [`Message::HandOver`] waits to be sent, or was.
    hands_over: bool,
    handed_over: bool,
    is_alone: bool,
    /// Frames can be given to the network from the tap.
    can_forward: bool,
    /// What is kept goes to the network.
    forwards: bool,
    resumed_ms: Option<u64>,
    committed_ms: u64,
    stream_over_ms: u64,
    /// The guest was heard from elsewhere.
    heard_ms: Option<u64>,
    last_frame_ms: u64,
    last_sent_ms: u64,
    counts: Counts,
    cause: Option<CarryCause>,
}

impl Source {
    /// A source for a guest that runs, so that whoever finds it paused at the destination may resume it. It has these
    /// MACs, of which the first [`MAX_OWN_MACS`] count: what comes from one of them is the guest's own and no frame for it.
    pub fn new(limits: Limits, own: &[Mac]) -> Self {
        Self {
            limits,
            own: own.iter().take(MAX_OWN_MACS).copied().collect(),
            now_ms: 0,
            phase: Phase::Pass,
            stream: Stream::Greeting,
            sync: Sync::NotAsked,
            sweep: Sweep::NotYet,
            kept: Queue::default(),
            swept: 0,
            swept_sent: 0,
            held_sent: 0,
            last_number: 0,
            last_sent: 0,
            giving: Queue::default(),
            actions: VecDeque::new(),
            says: [(0, Message::Hello { versions: VERSIONS })].into(),
            stop_ordered: false,
            stop_asked: false,
            stop_unknown: false,
            may_be_swept: 0,
            committed: false,
            peer_done: false,
            peer_died: false,
            peer_gave_nothing: false,
            hands_over: false,
            handed_over: false,
            is_alone: false,
            can_forward: false,
            forwards: false,
            resumed_ms: None,
            committed_ms: 0,
            stream_over_ms: 0,
            heard_ms: None,
            last_frame_ms: 0,
            last_sent_ms: 0,
            counts: Counts::default(),
            cause: None,
        }
    }

    /// Its frames can be given to the network too, by [`Action::Forward`].
    #[must_use]
    pub const fn with_forwarding(mut self, can_forward: bool) -> Self {
        self.can_forward = can_forward;
        self
    }

    /// There is no other half, and never was: what is held goes back to the guest, or to the network.
    #[must_use]
    pub fn without_destination(mut self) -> Self {
        self.stream = Stream::Over;
        self.is_alone = true;
        self.says.clear();
        self.cause = Some(CarryCause::OtherHalf);
        self
    }

    /// Learns something at the moment `now_ms`, and decides anew. A clock that goes back stands still instead.
    pub fn handle(&mut self, now_ms: u64, input: Input) {
        self.now_ms = self.now_ms.max(now_ms);
        self.learn(input);
        self.proceed();
    }

    /// What has to be done next. Fetched until there is nothing.
    pub fn next_action(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.forwards {
            return self.next_forwarded();
        }
        self.next_given_back()
    }

    /// The same without frames for the tap: as long as its queue is full.
    pub fn next_order(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn next_given_back(&mut self) -> Option<Action> {
        let waiting = self.giving.pop()?;
        self.counts.given_back += 1;
        self.proceed();
        Some(Action::Inject(waiting.frame))
    }

    /// What has to be sent next. Fetched only when the stream takes it, until there is nothing; also once it has ended.
    pub fn next_message(&mut self) -> Option<Message> {
        let is_left = self.swept_sent < self.swept;
        let index = if is_left {
            self.swept_sent
        } else {
            self.swept + self.held_sent
        };
        let frame = self.kept.get(index);
        let number = self.last_sent + 1;
        let next = frame.map_or(u64::MAX, |_| number);
        if self.says.front().is_some_and(|(after, _)| *after < next) {
            let (_, message) = self.says.pop_front()?;
            self.handed_over |= message == Message::HandOver;
            self.release();
            return Some(message);
        }
        let waiting = frame
            .filter(|_| self.stream == Stream::Agreed && !self.forwards)?
            .clone();
        let waited_ms = self.now_ms.saturating_sub(waiting.since_ms);
        self.counts.longest_wait_ms = self.counts.longest_wait_ms.max(waited_ms);
        if is_left {
            self.swept_sent += 1;
        } else {
            self.held_sent += 1;
        }
        self.last_sent = number;
        self.last_sent_ms = self.now_ms;
        self.release();
        self.proceed();
        let frame = waiting.frame;
        Some(if is_left {
            Message::Left { number, frame }
        } else {
            Message::Frame { number, frame }
        })
    }

    /// How long the guest's stop is waited for, or where that was asked for, the answer, in ms.
    fn stop_limit_ms(&self) -> u64 {
        match self.stop_asked {
            true => self.limits.answer_ms(),
            false => self.limits.hold_ms,
        }
    }

    /// When [`Input::Tick`] is due at the latest, in ms.
    pub fn next_deadline(&self) -> Option<u64> {
        let limits = &self.limits;
        let phase = match self.phase {
            Phase::Pass | Phase::Ended => None,
            Phase::Hold { since_ms } => Some(since_ms.saturating_add(limits.drain_ms)),
            Phase::Stopping { since_ms } => Some(since_ms.saturating_add(self.stop_limit_ms())),
            Phase::Stopped { since_ms } => {
                let last = since_ms.saturating_add(limits.forward_ms);
                let sooner = if self.has_no_destination() {
                    Some(self.forward_due_ms())
                } else {
                    self.quiet_at_ms()
                };
                Some(sooner.map_or(last, |sooner| sooner.min(last)))
            }
            Phase::Closing { since_ms } => Some(self.closes_until_ms(since_ms)),
            Phase::Drain { since_ms, .. } => Some(since_ms.saturating_add(limits.forward_ms)),
        };
        phase.into_iter().chain(self.answer_due_ms()).min()
    }

    /// True if a hold can be had: the halves have agreed or there is but this one, and nothing was tried yet.
    pub fn can_hold(&self) -> bool {
        self.phase == Phase::Pass && (self.stream == Stream::Agreed || self.is_alone)
    }

    /// How many frames of the tap are still in the machine, so neither given back nor lost.
    pub fn pending(&self) -> usize {
        self.kept.len() + self.giving.len()
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<Outcome> {
        (self.phase == Phase::Ended).then_some(Outcome {
            cause: self.cause,
            counts: self.counts,
        })
    }

    /// True once this half has nothing more to do with the stream: whoever has it closes it.
    pub fn is_off_stream(&self) -> bool {
        (self.stream == Stream::Over || self.phase == Phase::Ended) && self.says.is_empty()
    }

    /// What became of the frames so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    fn act(&mut self, action: Action) {
        // Whoever does not fetch is not told the same twice.
        if !self.actions.contains(&action) {
            self.actions.push_back(action);
        }
    }

    fn say(&mut self, message: Message) {
        self.say_after(self.last_number, message);
    }

    fn say_after(&mut self, number: u64, message: Message) {
        if self.stream != Stream::Over {
            self.says.push_back((number, message));
        }
    }

    /// The guest stands still here, and what comes for it is not given back.
    pub const fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped { .. })
    }

    /// True once all that was swept is sent.
    fn has_sent_swept(&self) -> bool {
        self.sweep == Sweep::Done && self.swept_sent == self.swept
    }

    /// What has been sent is not needed any more once the guest won't run here again and the destination gives it.
    fn release(&mut self) {
        let is_theirs = self.committed && self.handed_over && !self.peer_gave_nothing;
        if is_theirs && self.has_sent_swept() {
            self.drop_sent();
        }
    }

    /// What was sent is the destination's.
    fn drop_sent(&mut self) {
        self.kept.drop_after(0, self.swept_sent);
        // What was swept and not sent stays, before what was held.
        self.swept -= self.swept_sent;
        self.kept.drop_after(self.swept, self.held_sent);
        self.counts.carried += (self.swept_sent + self.held_sent) as u64;
        (self.swept_sent, self.held_sent) = (0, 0);
    }

    /// When the destination is told which frames come before its native ones, in ms. Not before it was handed over to, as it may
    /// not give them before that.
    fn answer_due_ms(&self) -> Option<u64> {
        match self.sync {
            Sync::Straggling { until_ms } if self.is_stopped() && self.hands_over => Some(until_ms),
            _ => None,
        }
    }

    /// Until when the destination's last word is waited for, in ms: what is still to be sent may be long on a slow stream.
    fn closes_until_ms(&self, since_ms: u64) -> u64 {
        let limits = [self.limits.resume_ms, self.limits.forward_ms];
        Limits::waited_until_ms(since_ms, self.last_sent_ms, limits)
    }

    /// When the network counts as quiet, in ms, if no frame comes before.
    fn quiet_at_ms(&self) -> Option<u64> {
        let since_ms = self.resumed_ms.filter(|_| self.committed)?;
        Some(
            self.last_frame_ms
                .max(since_ms)
                .saturating_add(self.limits.quiet_ms),
        )
    }
}
