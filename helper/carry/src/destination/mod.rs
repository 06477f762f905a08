//! The half on the host that the guest goes to: lets nothing through until the guest runs, then gives it the carried
//! frames, what came natively, and opens.
//!
//! ```text
//! Closed -> Hold -> Opening -> Open -> Ended
//! ```

mod inputs;
mod messages;

use alloc::collections::VecDeque;

use crate::frame::Frame;
use crate::limits::Limits;
use crate::message::{CarryCause, Message, VERSIONS};
use crate::queue::Queue;
use crate::twins::Twins;

/// What a destination may learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A deadline may have passed.
    Tick,
    /// The other half said this.
    Message(Message),
    /// The stream ended, or gave bytes that are no message.
    StreamEnded,
    /// The source's process is dead, and the guest stands still there or is gone: nobody gives back what was carried. What the network
    /// still brings there may come from there.
    SourceDied,
    /// The migration is complete, and the guest stands paused here. It ran when the carry began.
    GuestPaused,
    /// The hypervisor of the source says that the migration failed or was cancelled: the guest is not to run here, however it came.
    MigrationFailed,
    /// The guest runs here: the hypervisor has said so, and says so when it is asked.
    GuestRuns,
    /// The guest has sent a frame through its tap here: from now on the network may bring its frames here.
    Announced,
    /// A frame was held that the network brought here.
    Native {
        /// It.
        frame: Frame,
        /// It came before the guest's first frame left: unless the network was told in another way where the guest
        /// is, it is a copy of one that the source gets too.
        early: bool,
    },
    /// After [`Action::ReadDry`]: all that was held until then has been given to the machine.
    Dry,
    /// After [`Action::Open`]: all that was held has been given to the guest, and frames pass the tap as ever.
    Opened,
}

/// What a destination may want done. At its start, the tap is closed: frames for the guest are dropped, as the source
/// still delivers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Hold frames from now on instead of dropping them.
    Hold,
    /// Have the hypervisor resume the guest: the carry's own stop has paused it.
    ResumeGuest,
    /// Read what is held until nothing is left, then say [`Input::Dry`].
    ReadDry,
    /// Let frames pass once as many have been given to the tap as were held, so that none overtakes.
    Open,
    /// Give this frame to the tap, behind its hold. Fetched only when the tap's queue has room.
    Inject(Frame),
    /// Take the hold off the tap.
    Detach,
}

/// Frames, and what the carry cost. What was `carried` or `native` is counted once more, as what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// That came from the source.
    pub carried: u64,
    /// That the network brought here while they were held.
    pub native: u64,
    /// That were given to the guest.
    pub injected: u64,
    /// That the network brought, and the source too: given once.
    pub twins: u64,
    /// To a group, that came from the source only after the network's had been given: whether they were among these is not known,
    /// and they were not given.
    pub late_groups: u64,
    /// That the source gives, or gave, to the guest itself: as it stayed there, or since the stream ended.
    pub left_to_the_source: u64,
    /// Of these, that had come from there.
    pub left_carried: u64,
    /// That were lost since no more may be kept.
    pub over_limit: u64,
    /// That were lost since the tap did not take them in time.
    pub abandoned: u64,
    /// Of the carried ones, that came after the first native one was given to the guest.
    pub late: u64,
    /// The longest that a carried frame waited here, in ms.
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
    Closed,
    /// `since_ms` the guest stopped at the source, or was seen here.
    Hold {
        since_ms: u64,
    },
    /// All that was held goes to the guest, then the tap opens.
    Opening,
    Open,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Greeting,
    Agreed,
    Over,
}

/// How far it is with asking the source which frames come before the native ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    NotAsked,
    Asked { since_ms: u64 },
    Reading,
    Done,
}

/// The machine of a destination.
#[derive(Debug)]
pub struct Destination {
    limits: Limits,
    now_ms: u64,
    phase: Phase,
    stream: Stream,
    sync: Sync,
    /// For the guest, in order: what was left in the source's queue comes first.
    first: Queue,
    giving: Queue,
    /// What the network brought, until it is known what of it is a twin. Numbered 1 if it may be one.
    natives: Queue,
    /// What of the carried frames the network may have brought too; or what it brought and was given, if the source did not answer
    /// and may bring it yet.
    twins: Twins,
    last_number: u64,
    actions: VecDeque<Action>,
    says: VecDeque<Message>,
    unacknowledged: Option<u64>,
    may_resume: bool,
    /// The migration came to nothing, and the guest stays at the source.
    failed: bool,
    runs_since_ms: Option<u64>,
    /// Since when it is known that the guest has come here.
    arrived_ms: Option<u64>,
    /// It has sent something from here, which none does that stands still.
    announced: bool,
    native_came: bool,
    last_carried_ms: u64,
    began_ms: Option<u64>,
    source_done: bool,
    /// The source has said that the guest stands still there, so that it gives nothing back unless that runs there again.
    source_stopped: bool,
    /// The source did not say which frames come before the native ones.
    unanswered: bool,
    /// The source has left all that is carried to this half.
    handed_over: bool,
    /// It was seen paused here: by the carry's own stop.
    seen_paused: bool,
    /// Some carried frames are not among the twins, as there are too many.
    forgot_some: bool,
    counts: Counts,
    cause: Option<CarryCause>,
}

impl Destination {
    /// A destination whose tap is closed.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            now_ms: 0,
            phase: Phase::Closed,
            stream: Stream::Greeting,
            sync: Sync::NotAsked,
            first: Queue::default(),
            giving: Queue::default(),
            natives: Queue::default(),
            twins: Twins::default(),
            last_number: 0,
            actions: VecDeque::new(),
            says: [Message::Hello { versions: VERSIONS }].into(),
            unacknowledged: None,
            may_resume: false,
            failed: false,
            runs_since_ms: None,
            arrived_ms: None,
            announced: false,
            native_came: false,
            last_carried_ms: 0,
            began_ms: None,
            source_done: false,
            source_stopped: false,
            unanswered: false,
            handed_over: false,
            seen_paused: false,
            forgot_some: false,
            counts: Counts::default(),
            cause: None,
        }
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
        if !self.gives() {
            return None;
        }
        let waiting = self.first.pop().or_else(|| self.giving.pop())?;
        self.counts.injected += 1;
        if waiting.number != 0 {
            self.unacknowledged = Some(waiting.number);
            let waited_ms = self.now_ms.saturating_sub(waiting.since_ms);
            self.counts.longest_wait_ms = self.counts.longest_wait_ms.max(waited_ms);
        }
        self.proceed();
        Some(Action::Inject(waiting.frame))
    }

    /// What has to be sent next. Fetched only when the stream takes it, until there is nothing; also once it has ended.
    pub fn next_message(&mut self) -> Option<Message> {
        let said = self.says.pop_front();
        if self.stream == Stream::Over {
            return said;
        }
        said.or_else(|| {
            self.unacknowledged
                .take()
                .map(|number| Message::Ack { number })
        })
    }

    /// When [`Input::Tick`] is due at the latest, in ms.
    pub fn next_deadline(&self) -> Option<u64> {
        let limits = &self.limits;
        if self.phase == Phase::Ended {
            return None;
        }
        let after = |since_ms: Option<u64>, ms: u64| Some(since_ms?.saturating_add(ms));
        let last = self.last_ms();
        let phase = match (self.phase, self.sync) {
            (Phase::Hold { since_ms }, _) if self.runs_since_ms.is_none() => {
                Some(self.runs_until_ms(since_ms))
            }
            (Phase::Hold { .. }, Sync::NotAsked | Sync::Asked { .. }) if !self.handed_over => {
                self.runs_since_ms.map(|ms| self.patient_until_ms(ms))
            }
            (Phase::Hold { .. }, Sync::NotAsked) => {
                let runs_ms = self.runs_since_ms;
                after(
                    runs_ms.map(|ms| ms.max(self.last_carried_ms)),
                    limits.settle_ms,
                )
            }
            (Phase::Hold { .. }, Sync::Asked { since_ms }) => Some(self.patient_until_ms(since_ms)),
            _ => None,
        };
        last.into_iter().chain(phase).min()
    }

    /// How many frames are still in the machine, carried ones among them: when it is 0, every native one was given to the
    /// guest or dropped.
    pub fn pending(&self) -> usize {
        self.natives.len() + self.first.len() + self.giving.len()
    }

    /// How it ended, once it has. A guest that the carry's own stop left paused is still resumed after that.
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

    /// Until when the source's next word is waited for, in ms, if that is due since then: what it has sent before may be long on a
    /// slow stream, but it can't keep the tap closed with that.
    fn patient_until_ms(&self, since_ms: u64) -> u64 {
        let limits = [self.limits.settle_ms, self.limits.resume_ms];
        Limits::waited_until_ms(since_ms, self.last_carried_ms, limits)
    }

    /// Until when the guest is waited for, in ms: it has yet to run, or its migration takes as long as it takes. Meanwhile nobody
    /// could take a frame.
    fn runs_until_ms(&self, held_since_ms: u64) -> u64 {
        match self.arrived_ms {
            // Whoever would tell that it runs may be gone as well.
            Some(arrived_ms) if self.announced && self.stream == Stream::Over => arrived_ms
                .max(held_since_ms)
                .saturating_add(self.limits.straggle_ms),
            Some(arrived_ms) => arrived_ms
                .max(held_since_ms)
                .saturating_add(self.limits.resume_ms),
            None => held_since_ms.saturating_add(self.limits.forward_ms),
        }
    }

    /// When it ends whatever comes, in ms: after the source would.
    fn last_ms(&self) -> Option<u64> {
        let limits = &self.limits;
        let began_ms = self.began_ms?;
        Some(
            began_ms
                .saturating_add(limits.hold_ms)
                .saturating_add(limits.answer_ms())
                .saturating_add(limits.forward_ms)
                .saturating_add(limits.resume_ms),
        )
    }

    fn act(&mut self, action: Action) {
        // Whoever does not fetch is not told the same twice.
        if !self.actions.contains(&action) {
            self.actions.push_back(action);
        }
    }

    fn say(&mut self, message: Message) {
        if self.stream != Stream::Over {
            self.says.push_back(message);
        }
    }

    /// The source gives nothing of what is carried.
    fn has_all(&self) -> bool {
        self.handed_over || self.source_done || self.stream == Stream::Over
    }

    /// The guest can take frames, or nobody waits for it any more.
    fn gives(&self) -> bool {
        match self.phase {
            Phase::Closed | Phase::Ended => false,
            Phase::Hold { .. } => self.runs_since_ms.is_some() && self.has_all(),
            Phase::Opening | Phase::Open => true,
        }
    }
}
