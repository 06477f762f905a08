//! Follows the host: which domains run, and what is so about each. Events say where to look; now
//! and then one question tells whether any was missed.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::channel_task::ChannelTask;
use super::claims::Claims;
use super::domain_task::{DomainTask, desired_of, too_early};
use super::lease::HostLeases;
use super::manager::Manager;
use super::options::Options;
use super::registry::{Registry, ReplugAttempts};
use super::replug;
use crate::evacuate::Progress;
use crate::hypervisor::{
    ActiveDomain, DomainEvent, DomainLook, DomainState, EventKind, Events, Host, HostError,
};
use crate::report::DomainReport;
use crate::words::{message, printable};

mod channel_tasks;

/// Domains that are looked at in the same moment.
const AT_ONCE: usize = 16;
/// Most domains that are cared for; others are not looked at, and a warning says so.
const MAX_DOMAINS: usize = 4096;
/// Events come in bursts; one look serves a burst of this length.
const BURST: Duration = Duration::from_millis(200);
/// Longest time for one look.
const LOOK: Duration = Duration::from_secs(60);
/// What failed is tried again after this.
const AGAIN: Duration = Duration::from_secs(15);
/// A domain with the record of an evacuation is looked at this often.
const RECORDED: Duration = Duration::from_secs(30);
/// Looks that are closer to each other are in quick succession.
const SUCCESSION: Duration = Duration::from_secs(5);
/// Each round looks at this share of the domains, whether or not something happened to them.
const ROUNDS: usize = 12;

/// The work of one guest's channel task.
pub(super) type Keep = fn(ChannelTask) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Everything that serves one host.
pub(super) struct Supervisor {
    pub(super) host: Arc<dyn Host>,
    pub(super) options: Options,
    pub(super) registry: Arc<Registry>,
    pub(super) host_leases: Arc<HostLeases>,
    domain_tasks: BTreeMap<String, DomainTask>,
    claims: Claims,
    pub(super) keep: Keep,
    channel_tasks: JoinSet<()>,
    jobs: JoinSet<Done>,
    looking: BTreeSet<String>,
    due: BTreeSet<String>,
    /// Events came; look when their burst is over.
    burst_at: Option<Instant>,
    all_due: bool,
    rolling: bool,
    roll_at: Instant,
    turns: Arc<Semaphore>,
    attempts: Arc<Semaphore>,
    /// Tells attempts under way to stop.
    stops: watch::Sender<u32>,
}

enum Done {
    Rolled {
        full: bool,
        result: Result<Vec<ActiveDomain>, HostError>,
    },
    Looked {
        name: String,
        result: Result<Box<DomainLook>, String>,
    },
    Attempted {
        name: String,
        evacuation: String,
        ended: replug::AttemptEnd,
    },
}

impl Supervisor {
    pub(super) fn new(
        host: Arc<dyn Host>,
        options: Options,
        registry: Arc<Registry>,
        host_leases: Arc<HostLeases>,
    ) -> Self {
        Self {
            host,
            options,
            registry,
            host_leases,
            domain_tasks: BTreeMap::new(),
            claims: Claims::default(),
            keep: |channel_task| Box::pin(channel_task.keep()),
            channel_tasks: JoinSet::new(),
            jobs: JoinSet::new(),
            looking: BTreeSet::new(),
            due: BTreeSet::new(),
            burst_at: None,
            all_due: true,
            rolling: false,
            roll_at: Instant::now(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            attempts: Arc::new(Semaphore::new(replug::AT_ONCE)),
            stops: watch::Sender::new(0),
        }
    }

    /// Follows the host until `stop` ends.
    pub(super) async fn run(mut self, mut events: Events, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut is_blind = false;
        let mut manager = Manager::ready();
        loop {
            let due = self.do_what_is_due();
            let deadline = manager.alive().map_or(due, |at| at.min(due));
            tokio::select! {
                () = &mut stop => break,
                event = events.next(), if !is_blind => match event {
                    Some(event) => self.note(&event),
                    // The driver is gone: only the clock is left.
                    None => is_blind = true,
                },
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => self.settle(done),
                    Err(error) => tracing::error!("a task of serve ended: {error}"),
                },
                Some(ended) = self.channel_tasks.join_next_with_id() => self.channel_task_ended(ended),
                () = sleep_until(deadline) => {}
            }
        }
        manager.stopping();
        self.wind_up(manager).await;
    }

    /// Attempts under way leave the domain in order.
    async fn wind_up(mut self, mut manager: Manager) {
        self.stops.send_replace(1);
        let busy = |domain_task: &DomainTask| domain_task.replug.is_busy();
        let finish = async {
            while self.domain_tasks.values().any(busy) {
                let next = manager.alive().unwrap_or(Instant::now() + replug::WIND_UP);
                match timeout_at(next, self.jobs.join_next()).await {
                    Ok(Some(Ok(done @ Done::Attempted { .. }))) => self.settle(done),
                    Ok(Some(_)) | Err(_) => {}
                    Ok(None) => break,
                }
            }
        };
        if timeout(replug::WIND_UP, finish).await.is_err() {
            tracing::warn!(
                "an attempt to plug in a VF was interrupted; `tandem-host recover` goes on"
            );
        }
    }

    /// Starts what is due, and says when the next thing will be.
    fn do_what_is_due(&mut self) -> Instant {
        let now = Instant::now();
        if self.burst_at.is_some_and(|at| at <= now) {
            self.burst_at = None;
        }
        if self.burst_at.is_none() && !self.rolling && (self.all_due || self.roll_at <= now) {
            self.roll();
        }
        let mut attempts = Vec::new();
        let mut ended = Vec::new();
        for (name, domain_task) in &mut self.domain_tasks {
            if domain_task
                .channel_task
                .again_at()
                .is_some_and(|at| at <= now)
            {
                ended.push(name.clone());
            }
            if domain_task.look_at.is_some_and(|at| at <= now) {
                domain_task.look_at = None;
                self.due.insert(name.clone());
            }
            let replug = &mut domain_task.replug;
            if replug.is_due(now)
                && let Some(evacuation) = replug.begin()
            {
                attempts.push((name.clone(), evacuation));
            }
        }
        for name in ended {
            self.begin_again(&name);
        }
        for (name, evacuation) in attempts {
            self.attempt(name, evacuation);
        }
        if self.burst_at.is_none() {
            let due = std::mem::take(&mut self.due);
            for name in due {
                if self.looking.contains(&name) {
                    // Once that look has ended.
                    self.due.insert(name);
                } else if let Some((domain_task, at)) =
                    self.domain_tasks.get_mut(&name).and_then(too_early)
                {
                    domain_task.look_at =
                        Some(domain_task.look_at.map_or(at, |known| known.min(at)));
                } else {
                    self.look(name);
                }
            }
        }
        let later = self.domain_tasks.values().filter_map(DomainTask::next);
        // While a burst lasts, nothing else is begun.
        let own = self
            .burst_at
            .or(Some(self.roll_at).filter(|_| !self.rolling));
        let next = later.chain(own).min();
        next.unwrap_or(now + self.options.interval)
    }

    fn note(&mut self, event: &DomainEvent) {
        let restarted = match event.kind {
            // A guest may have restarted unseen; the same bonds twice change nothing.
            EventKind::Lost | EventKind::Reboot => true,
            EventKind::Agent { connected } => connected,
            _ => false,
        };
        let bump =
            |domain_task: &DomainTask| domain_task.desired.send_modify(|desired| desired.boot += 1);
        match &event.domain {
            Some(name) => {
                if let Some(domain_task) = self.domain_tasks.get(name).filter(|_| restarted) {
                    bump(domain_task);
                }
                self.due.insert(name.clone());
            }
            None => {
                if restarted {
                    self.domain_tasks.values().for_each(bump);
                }
                self.all_due = true;
            }
        }
        if self.due.len() > MAX_DOMAINS {
            self.due.clear();
            self.all_due = true;
        }
        self.burst_at.get_or_insert(Instant::now() + BURST);
    }

    /// Asks which domains run. A full roll call is followed by a look at each.
    fn roll(&mut self) {
        let full = std::mem::take(&mut self.all_due);
        self.rolling = true;
        let host = Arc::clone(&self.host);
        self.jobs.spawn(async move {
            let result = host.active().await;
            Done::Rolled { full, result }
        });
    }

    fn look(&mut self, name: String) {
        self.looking.insert(name.clone());
        let (host, turns) = (Arc::clone(&self.host), Arc::clone(&self.turns));
        self.jobs.spawn(async move {
            let _turn = turns.acquire().await;
            let result = match timeout(LOOK, host.look(&name)).await {
                Ok(Ok(look)) => Ok(Box::new(look)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {} s", LOOK.as_secs())),
            };
            Done::Looked { name, result }
        });
    }

    fn attempt(&mut self, name: String, evacuation: String) {
        let options = self.options.clone();
        let (host, turns) = (Arc::clone(&self.host), Arc::clone(&self.attempts));
        let channel_leases = self.host_leases.of(&name);
        let stops = self.stops.subscribe();
        self.jobs.spawn(async move {
            let _turn = turns.acquire().await;
            let ended =
                replug::attempt(host, &name, &evacuation, channel_leases, &options, stops).await;
            Done::Attempted {
                name,
                evacuation,
                ended,
            }
        });
    }

    fn settle(&mut self, done: Done) {
        match done {
            Done::Rolled { full, result } => {
                self.rolling = false;
                self.roll_at = Instant::now() + self.options.interval;
                match result {
                    Ok(active) => self.rolled(active, full),
                    Err(error) => {
                        tracing::warn!("{error}");
                        self.all_due |= full;
                        self.roll_at = Instant::now() + AGAIN.min(self.options.interval);
                        // Not at once again, though everything is due.
                        self.burst_at = Some(self.roll_at);
                    }
                }
            }
            Done::Looked { name, result } => {
                self.looking.remove(&name);
                match result {
                    Ok(look) => self.looked(&look),
                    Err(error) => {
                        tracing::warn!("domain {}: {}", printable(&name), message(&error));
                        let again = Instant::now() + AGAIN;
                        match self.domain_tasks.get_mut(&name) {
                            Some(domain_task) => domain_task.look_at = Some(again),
                            // The next roll call finds that it is not known yet.
                            None => self.roll_at = self.roll_at.min(again),
                        }
                    }
                }
            }
            Done::Attempted {
                name,
                evacuation,
                ended,
            } => {
                self.due.insert(name.clone());
                if let Some(domain_task) = self.domain_tasks.get_mut(&name) {
                    let replug = &mut domain_task.replug;
                    replug.ended(&name, &evacuation, ended);
                    if let Some(attempts) = replug.attempts() {
                        self.registry.attempted(&name, attempts);
                    }
                }
            }
        }
    }

    fn rolled(&mut self, active: Vec<ActiveDomain>, full: bool) {
        let active: BTreeMap<String, String> = active
            .into_iter()
            .map(|domain| (domain.name, domain.run_id))
            .collect();
        let count = active.len();
        if count > MAX_DOMAINS {
            tracing::warn!("{count} domains; only {MAX_DOMAINS} are cared for");
        }
        // One that has gone may also be incoming: a look tells.
        let gone = self
            .domain_tasks
            .keys()
            .filter(|name| !active.contains_key(*name));
        self.due.extend(gone.cloned());
        let mut oldest: Vec<(Instant, &String)> = Vec::new();
        for (name, run_id) in active.iter().take(MAX_DOMAINS) {
            let same = self.domain_tasks.get(name).filter(|domain_task| {
                let desired = domain_task.desired.borrow();
                desired.run_id == *run_id
            });
            match same {
                Some(domain_task) if !full => oldest.push((domain_task.looked, name)),
                _ => {
                    self.due.insert(name.clone());
                }
            }
        }
        oldest.sort();
        let share = oldest.len().div_ceil(ROUNDS);
        let again = oldest.into_iter().take(share);
        self.due.extend(again.map(|(_, name)| name.clone()));
    }

    fn looked(&mut self, look: &DomainLook) {
        let name = look.facts.name.as_str();
        let known = self.domain_tasks.contains_key(name);
        let runs = matches!(look.facts.state, DomainState::Running | DomainState::Paused);
        if !runs || (!known && self.domain_tasks.len() >= MAX_DOMAINS) {
            self.domain_tasks.remove(name);
            self.registry.remove(name);
            self.claim(name, None);
            return;
        }
        let channel = look.facts.channel.as_ref();
        let socket = channel.and_then(|channel| channel.socket.as_ref());
        self.claim(name, socket.map(|socket| socket.path.as_path()));
        let before = self
            .domain_tasks
            .get(name)
            .map(|domain_task| domain_task.desired.borrow().clone());
        let boot = before.as_ref().map_or(0, |desired| desired.boot);
        let mut desired = desired_of(look, boot, self.is_driven_here(look));
        let own_channel = desired.channel.clone();
        desired.channel = self.claims.judged(name, desired.channel);
        let same_run = before.is_some_and(|before| before.run_id == desired.run_id);
        self.registry.show(DomainReport::of(look), same_run);
        if !known {
            let domain_task = self.domain_task(name, desired.clone(), own_channel.clone());
            self.domain_tasks.insert(name.to_owned(), domain_task);
        }
        let Some(domain_task) = self.domain_tasks.get_mut(name) else {
            return;
        };
        domain_task.channel = own_channel;
        domain_task.desired.send_if_modified(|old| {
            let differs = *old != desired;
            *old = desired;
            differs
        });
        let is_quick =
            known && domain_task.looked.elapsed() < SUCCESSION.max(domain_task.wait() * 2);
        domain_task.quick = if is_quick { domain_task.quick + 1 } else { 0 };
        domain_task.looked = Instant::now();
        domain_task.look_at = look
            .progress
            .as_ref()
            .map(|_| domain_task.looked + RECORDED);
        let record = look.progress.as_deref();
        let record = record.and_then(|text| Progress::parse_for(text, name).ok());
        let running = look.facts.state == DomainState::Running;
        let wanted = self.options.replug.is_some() && running;
        let record = record.filter(|_| wanted);
        let record = record.as_ref();
        let lacking = record.map(|record| (record, replug::lacking(record, look)));
        let replug = &mut domain_task.replug;
        replug.follow(lacking, name, &look.facts.run_id);
        let attempts = replug.attempts();
        if let Some(attempts) = attempts.filter(|attempts| **attempts != ReplugAttempts::default())
        {
            self.registry.attempted(name, attempts);
        }
    }
}
