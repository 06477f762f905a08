//! A stage for the core: the fake kernel, a machine in front of it, and between
//! them observers and an executor that may lose, repeat, reorder, delay and fail.

mod executor;
mod fast_path;
mod names;
mod observer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tandem_core::action::{Action, ActionId, ActionKind};
use tandem_core::input::{Command, CommandId, Hold, Outcome, Request, Source};
use tandem_core::link::{Addressing, Link};
use tandem_core::policy::Policy;
use tandem_core::types::Mac;
use tandem_core::{Ifindex, Input, Machine, Output, Time};

use super::fake::FakeKernel;
use super::rng::Rng;
use fast_path::FastPaths;

/// An action whose end was never reported is forgotten by the machine after this, in ms.
const ACTION_TIMEOUT_MS: u64 = 30_000;
/// Things that may happen at one moment before it counts as a livelock.
const MAX_PER_MOMENT: u32 = 2_000;
/// Length in ms of a window in which actions are counted, and the most that may fall in one.
const WINDOW_MS: u64 = 10_000;
/// See [`WINDOW_MS`].
const MAX_PER_WINDOW: u32 = 400;
/// Lines of history that are kept for a failure's report.
const MAX_HISTORY: usize = 400;

/// How badly observers and executor behave; each in so many of 1000 cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disorder {
    /// An event is lost; its source says so later.
    pub lose: u64,
    /// An event arrives twice.
    pub repeat: u64,
    /// An event arrives late, after newer ones; its source says later that it lost some.
    pub reorder: u64,
    /// An action is refused for no good reason.
    pub refuse: u64,
    /// An action is acknowledged and has no effect.
    pub ignore: u64,
    /// An action takes effect and its acknowledgement never comes.
    pub forget: u64,
    /// An action takes effect and is reported as timed out.
    pub time_out: u64,
    /// Longest delay of an event or an action in ms.
    pub delay_ms: u64,
}

impl Disorder {
    /// A rough world.
    pub const ROUGH: Self = Self {
        lose: 60,
        repeat: 60,
        reorder: 60,
        refuse: 50,
        ignore: 50,
        forget: 5,
        time_out: 20,
        delay_ms: 30,
    };
}

/// The moment at which every stage opens.
pub const START: Time = Time(1_000_000);
/// Lines of a transcript that nobody took; older ones are dropped.
const MAX_SAID: usize = 10_000;

/// Something that happened, for a failure's report.
#[derive(Debug, Clone)]
pub enum Happened {
    /// The machine learnt this.
    Heard(Input),
    /// The machine wanted this.
    Wanted(Output),
    /// The kernel did this.
    Did(ActionKind, Outcome),
}

/// Something for a transcript.
#[derive(Debug, Clone)]
pub enum Said {
    /// The machine wanted this done or said.
    Output(Output),
    /// The kernel refused what was last done, in its words.
    Failed(String),
}

enum Item {
    /// For the machine of that epoch.
    Input(u32, Input),
    /// For the executor of that epoch.
    Execute(u32, Action),
    /// What the executor reads after an action, and its report.
    Report(u32, Action, Outcome),
}

/// The stage.
pub struct Stage {
    /// The fake kernel. Change it through [`Stage::change`].
    pub kernel: FakeKernel,
    /// The machine, unless the service is not running.
    pub machine: Option<Machine>,
    /// The fast-path programs.
    pub fast_paths: FastPaths,
    /// How badly everything behaves.
    pub disorder: Disorder,
    /// Source of chance.
    pub rng: Rng,
    /// The present moment.
    pub now: Time,
    /// What went against the core's promises, in words.
    pub violations: Vec<String>,
    /// What happened, newest last.
    pub history: VecDeque<(Time, Happened)>,
    /// What was done and said, for a transcript; whoever reads it takes it.
    pub said: Vec<(Time, Said)>,
    policy: Policy,
    /// When it was last changed.
    pub(super) policy_at: Time,
    /// The last action that was under way by then, of this machine.
    before_policy: Option<ActionId>,
    holds: Vec<Hold>,
    epoch: u32,
    queue: BTreeMap<(Time, u64), Item>,
    sequence: u64,
    links: BTreeMap<Ifindex, Link>,
    /// The permanent MACs with which the service that runs now has first heard of NICs.
    pub(super) found_macs: BTreeMap<Ifindex, Option<Mac>>,
    addressings: BTreeMap<Ifindex, Addressing>,
    outstanding: BTreeMap<ActionId, (Time, ActionKind)>,
    /// Sources of which the service has yet to read everything anew.
    unread: BTreeSet<Source>,
    open: BTreeMap<CommandId, Time>,
    last_command: u64,
    actions: u64,
    /// Start of the present window and actions in it.
    window: (Time, u32),
    /// How often each kind of action, event and answer came, by name.
    pub seen: BTreeMap<String, u64>,
}

impl Stage {
    /// A stage with a machine that has just been started.
    pub fn new(kernel: FakeKernel, policy: Policy, disorder: Disorder, seed: u64) -> Self {
        let mut stage = Self {
            kernel,
            machine: None,
            fast_paths: FastPaths::default(),
            disorder,
            rng: Rng::new(seed),
            now: START,
            violations: Vec::new(),
            history: VecDeque::new(),
            said: Vec::new(),
            policy,
            policy_at: START,
            before_policy: None,
            holds: Vec::new(),
            epoch: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            links: BTreeMap::new(),
            found_macs: BTreeMap::new(),
            addressings: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            unread: BTreeSet::new(),
            open: BTreeMap::new(),
            last_command: 0,
            actions: 0,
            window: (START, 0),
            seen: BTreeMap::new(),
        };
        stage.kernel.advance(stage.now);
        stage
    }

    /// Starts the service, as after boot or after a crash.
    pub fn start_service(&mut self) {
        self.stop_service();
        self.links.clear();
        self.found_macs.clear();
        self.addressings.clear();
        for link in self.kernel.dump_links() {
            self.links.insert(link.ifindex, link);
        }
        for one in self.kernel.dump_addressings() {
            self.addressings.insert(one.ifindex, one);
        }
        self.machine = Some(Machine::new(self.now));
        self.unread = BTreeSet::from([Source::Links, Source::Addressing]);
        let holds = std::mem::take(&mut self.holds);
        if !holds.is_empty() {
            self.feed(Input::Recall(holds));
        }
        if self.fast_paths.supported {
            self.feed(Input::FastPathSupported(true));
        }
        self.feed(Input::Policy(self.policy.clone()));
    }

    /// The service dies on the spot; its journal keeps the holds.
    pub fn stop_service(&mut self) {
        if let Some(machine) = self.machine.take() {
            self.holds = machine.holds();
        }
        self.epoch += 1;
        self.fast_paths.clear();
        self.outstanding.clear();
        self.before_policy = None;
        self.open.clear();
    }

    /// The policy with which the service is started next.
    pub fn put_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Gives the machine another policy.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy.clone();
        self.policy_at = self.now;
        self.before_policy = self.outstanding.keys().next_back().copied();
        self.feed(Input::Policy(policy));
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Changes the kernel as somebody else may; observers notice.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut FakeKernel) -> R) -> R {
        let result = change(&mut self.kernel);
        self.notice();
        result
    }

    /// Plugs a NIC out; observers notice each step.
    pub fn unplug(&mut self, nic: Ifindex) {
        for step in FakeKernel::UNPLUG_STEPS {
            self.change(|kernel| step(kernel, nic));
        }
    }

    /// Asks for something.
    pub fn command(&mut self, request: Request) -> CommandId {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        if self.machine.is_some() {
            let longest = self
                .policy
                .bonds
                .iter()
                .map(|b| b.timing.command_timeout_ms);
            let limit_ms = longest.max().unwrap_or(0) + 1;
            self.open.insert(id, self.now.plus_ms(limit_ms));
            self.feed(Input::Command(Command {
                id,
                request,
                by_host: false,
            }));
        }
        id
    }

    /// Hands an input in at once.
    pub fn feed(&mut self, input: Input) {
        self.note(Happened::Heard(input.clone()));
        self.note_macs(&input);
        match &input {
            Input::Lost(source) => {
                self.unread.insert(*source);
            }
            Input::Links(_) => {
                self.unread.remove(&Source::Links);
            }
            Input::Addressings(_) => {
                self.unread.remove(&Source::Addressing);
            }
            _ => {}
        }
        let now = self.now;
        let Some(machine) = &mut self.machine else {
            return;
        };
        machine.handle(now, input);
        if let Some(deadline) = machine.next_deadline()
            && deadline <= now
        {
            let text = format!("deadline {deadline:?} is not after {now:?}");
            self.violations.push(text);
        }
        self.fetch();
    }

    fn note_macs(&mut self, input: &Input) {
        let told = match input {
            Input::Links(links) => links.as_slice(),
            Input::Link(link) => std::slice::from_ref(link),
            _ => return,
        };
        for link in told {
            let mac = link.permanent_mac;
            self.found_macs.entry(link.ifindex).or_insert(mac);
        }
    }

    /// Hands an input in later.
    pub fn feed_at(&mut self, at: Time, input: Input) {
        let epoch = self.epoch;
        self.enqueue(at, Item::Input(epoch, input));
    }

    /// Lets time pass until `end`.
    pub fn run_until(&mut self, end: Time) {
        let mut count = 0;
        while let Some(at) = self.next_moment().filter(|at| *at <= end) {
            count = if at > self.now { 0 } else { count + 1 };
            if count > MAX_PER_MOMENT {
                self.violations.push(format!("livelock at {at:?}"));
                return;
            }
            self.now = self.now.max(at);
            self.happen();
        }
        self.now = self.now.max(end);
        self.let_kernel_work();
    }

    /// Lets so many milliseconds pass.
    pub fn run_ms(&mut self, ms: u64) {
        self.run_until(self.now.plus_ms(ms));
    }

    /// Actions that changed the kernel or tried to, since the start.
    pub fn actions(&self) -> u64 {
        self.actions
    }

    /// The service has nothing to learn and nothing under way: all that happened has arrived.
    pub fn is_at_rest(&self) -> bool {
        let current = |item: &Item| match item {
            Item::Input(epoch, _) | Item::Execute(epoch, _) | Item::Report(epoch, ..) => {
                *epoch == self.epoch
            }
        };
        let read = [Source::Links, Source::Addressing];
        let unread = read.iter().any(|source| self.unread.contains(source));
        self.machine.is_some()
            && !unread
            && self.outstanding.is_empty()
            && !self.queue.values().any(current)
    }

    /// Every source says that it lost events, so that all is read anew.
    pub fn lose_everything(&mut self) {
        self.feed(Input::Lost(Source::Links));
        self.feed(Input::Lost(Source::Addressing));
    }

    fn next_moment(&self) -> Option<Time> {
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        let timer = self.kernel.next_timer();
        let deadline = self.machine.as_ref().and_then(Machine::next_deadline);
        [queued, timer, deadline].into_iter().flatten().min()
    }

    fn let_kernel_work(&mut self) {
        if self.kernel.advance(self.now) {
            self.notice();
        }
    }

    fn happen(&mut self) {
        self.let_kernel_work();
        let due = |key: &(Time, u64)| key.0 <= self.now;
        if let Some(key) = self.queue.keys().next().copied().filter(due) {
            match self.queue.remove(&key) {
                Some(Item::Input(epoch, input)) => self.feed_if_current(epoch, input),
                Some(Item::Execute(epoch, action)) => self.execute(epoch, action),
                Some(Item::Report(epoch, action, outcome)) => self.report(epoch, action, outcome),
                None => {}
            }
            return;
        }
        let deadline = self.machine.as_ref().and_then(Machine::next_deadline);
        if deadline.is_some_and(|at| at <= self.now) {
            self.feed(Input::Tick);
        }
    }

    /// Fetches what the machine wants done and said.
    fn fetch(&mut self) {
        let now = self.now;
        while let Some(output) = self.machine.as_mut().and_then(Machine::next_output) {
            self.note(Happened::Wanted(output.clone()));
            self.say(Said::Output(output.clone()));
            *self.seen.entry(names::name_of(&output)).or_default() += 1;
            match output {
                Output::Reply { command, .. } => {
                    if self.open.remove(&command).is_none() {
                        let text = format!("{command:?} was answered twice or never asked");
                        self.violations.push(text);
                    }
                }
                Output::Notify(_) => {}
                Output::Act(action) => {
                    if !only_looks(&action.kind) {
                        let kind = action.kind.clone();
                        self.outstanding.insert(action.id, (now, kind));
                        self.count_action();
                    }
                    let at = now.plus_ms(self.delay_ms());
                    self.enqueue(at, Item::Execute(self.epoch, action));
                }
            }
        }
        self.check_bounds();
    }

    /// Sane machines need few actions; one that runs wild is stopped.
    fn count_action(&mut self) {
        self.actions += 1;
        if self.now.since_ms(self.window.0) > WINDOW_MS {
            self.window = (self.now, 0);
        }
        self.window.1 += 1;
        if self.window.1 > MAX_PER_WINDOW {
            self.violations.push("the machine runs wild".into());
            self.stop_service();
        }
    }

    fn say(&mut self, said: Said) {
        if self.said.len() >= MAX_SAID {
            self.said.clear();
        }
        self.said.push((self.now, said));
    }

    fn check_bounds(&mut self) {
        let now = self.now;
        self.outstanding
            .retain(|_, (issued, _)| now < issued.plus_ms(ACTION_TIMEOUT_MS));
        let bonds = self.policy.bonds.len();
        // A bond that left the policy left its action behind; the programs let go beside everything else.
        let counts = |(id, (_, kind)): &(&ActionId, &(Time, ActionKind))| {
            Some(**id) > self.before_policy && !fast_path::is_release(kind)
        };
        let new = self.outstanding.iter().filter(counts);
        if new.count() > bonds {
            let kinds: Vec<_> = self.outstanding.values().collect();
            let text = format!("more than one action at once: {kinds:?}");
            self.violations.push(text);
        }
        let late: Vec<_> = self.open.iter().filter(|(_, at)| **at < now).collect();
        if !late.is_empty() {
            let text = format!("commands are not answered in time: {late:?}");
            self.violations.push(text);
            self.open.clear();
        }
    }

    fn delay_ms(&mut self) -> u64 {
        match self.disorder.delay_ms {
            0 => 1,
            longest => 1 + self.rng.below(longest),
        }
    }

    fn enqueue(&mut self, at: Time, item: Item) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), item);
    }

    fn note(&mut self, what: Happened) {
        if self.history.len() >= MAX_HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((self.now, what));
    }
}

/// It changes nothing, and is done beside everything else.
pub(super) fn only_looks(kind: &ActionKind) -> bool {
    matches!(
        kind,
        ActionKind::Observe { .. } | ActionKind::ReadTraffic { .. } | ActionKind::AskPath { .. }
    )
}
