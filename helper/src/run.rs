//! The service: one task that feeds the machine and carries out what it wants.
//!
//! Order of a turn: do what the machine wants, publish what it says, wait for
//! whatever comes first. Nothing in here decides anything about a bond.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tandem_core::action::{Action, ActionKind};
use tandem_core::input::{Hold, Input, Outcome, Source};
use tandem_core::policy::{Origin, Policy};
use tandem_core::{Machine, Output};
use tandem_wire::reply::{ConfigureError, ConfigureErrorCode, Configured};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::act::Executor;
use crate::alarm::Alarm;
use crate::channel::{Channel, ChannelInput};
use crate::config::{self, Config, HOST_POLICY_PATH};
use crate::ebpf::EbpfSource;
use crate::journal::Journal;
use crate::logging;
use crate::managers;
use crate::managers::decided;
use crate::nics::{self, GivenBack};
use crate::observe::{self, Completion, Observed, Sources, Touched, clock};
use crate::runtime::{self, HOLDS_PATH};
use crate::service_manager::ServiceManager;
use crate::system_files::SystemFiles;

/// What the command line chose.
#[derive(Debug, Clone)]
pub struct Options {
    /// The main configuration file.
    pub config: PathBuf,
    /// Where to record every input, if anywhere.
    pub journal: Option<PathBuf>,
    /// The local socket.
    pub socket: PathBuf,
}

/// Runs until SIGTERM or SIGINT. The bonds stay as they are.
///
/// # Errors
/// The configuration is wrong, or a source that nothing can replace is missing.
pub async fn run(options: Options) -> Result<()> {
    let config = config::load(&options.config)?;
    Service::start(options, config)?.turn().await
}

/// The service counts as started after so long even if the interfaces could not be read:
/// whoever waits for it, and so for the network, must not wait for ever.
const START_LIMIT: Duration = Duration::from_secs(5);
/// How long after a failure the holds are stored again.
const STORE_INTERVAL: Duration = Duration::from_secs(10);

struct Service {
    options: Options,
    config: Config,
    machine: Machine,
    sources: Sources,
    ebpf: EbpfSource,
    channel: Channel,
    executor: Executor,
    journal: Journal,
    manager: ServiceManager,
    /// The service manager was told that the service has started.
    is_ready: bool,
    /// All links were read at least once.
    links_read: bool,
    published: Option<u64>,
    kept_holds: Vec<Hold>,
    /// When to try again to store the holds.
    store_at: Option<Instant>,
    host_policy: Option<Policy>,
    files: SystemFiles,
    /// Bonds whose NICs `tandem udev --watch` gave back.
    given_back: GivenBack,
    /// Bonds that wait until it is known who makes them, and until when at most.
    undecided: Option<(decided::Bonds, Instant)>,
}

/// What woke the loop.
enum Wake {
    Stop,
    Reload,
    Observed(Vec<Observed>),
    Ebpf(Vec<Input>),
    Channel(ChannelInput),
    Finished(Completion),
    Watchdog,
    Deadline,
    /// Publishing has something to do by itself.
    Overdue,
}

impl Service {
    fn start(options: Options, config: Config) -> Result<Self> {
        let journal = Journal::create(options.journal.as_deref())?;
        std::fs::create_dir_all(runtime::FOLDER)
            .with_context(|| format!("can't make {}", runtime::FOLDER))?;
        let channel = Channel::open(&options.socket)?;
        let mut service = Self {
            machine: Machine::new(clock::now()),
            sources: Sources::open(observe::Options::default())?,
            ebpf: EbpfSource::start(),
            executor: Executor::new(),
            manager: ServiceManager::default(),
            is_ready: false,
            links_read: false,
            published: None,
            kept_holds: Vec::new(),
            store_at: None,
            host_policy: None,
            files: SystemFiles::this(),
            given_back: GivenBack::new(),
            undecided: None,
            options,
            config,
            channel,
            journal,
        };
        let health = service.ebpf.health();
        service.feed(health);
        service.feed(Input::FastPathsLoading);
        service.recall();
        let policy = service.starting_policy();
        service.adopt(policy)?;
        Ok(service)
    }

    /// The files' bonds, else those that the host provided before a restart.
    fn starting_policy(&mut self) -> Policy {
        if self.config.host_bonds_refused().is_some() {
            return self.config.policy.clone();
        }
        match config::load_host_policy(HOST_POLICY_PATH.as_ref()) {
            Ok(policy) => {
                self.host_policy.clone_from(&policy);
                policy.unwrap_or_default()
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the host's bonds are not used"
                );
                Policy::default()
            }
        }
    }

    /// Hands in the promises that an earlier run of the service made since boot.
    fn recall(&mut self) {
        match runtime::load::<Vec<Hold>>(HOLDS_PATH.as_ref()) {
            Ok(Some(holds)) => {
                self.kept_holds.clone_from(&holds);
                self.feed(Input::Recall(holds));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "earlier holds are forgotten");
            }
        }
    }

    /// Makes a valid policy and what the host may do the machine's and tells the sources what matters for it.
    fn adopt(&mut self, policy: Policy) -> Result<()> {
        if self.machine.status().host_may != self.config.host_may {
            self.feed(Input::HostMay(self.config.host_may));
        }
        let undecided = decided::undecided(&policy, &self.files);
        let until = Instant::now() + decided::PATIENCE;
        self.apply(policy, undecided, until)
    }

    fn apply(&mut self, policy: Policy, undecided: decided::Bonds, until: Instant) -> Result<()> {
        let policy = managers::applied(policy, &self.files, &undecided);
        self.undecided = (!undecided.is_empty()).then_some((undecided, until));
        let names: Vec<_> = policy.bonds.iter().map(|bond| bond.name.clone()).collect();
        self.sources.set_names(&names)?;
        self.feed(Input::Policy(policy));
        Ok(())
    }

    fn feed(&mut self, input: Input) {
        let now = clock::now();
        self.links_read |= matches!(input, Input::Links(_));
        self.journal.record(now, &input);
        self.machine.handle(now, input);
    }

    /// Looks whether NICs were given back or taken again: with each turn, so at the latest when the watchdog
    /// is fed. Where nothing was, that is one call that finds no file.
    fn notice_given_back(&mut self) {
        let found = nics::given_back(&self.files);
        if found == self.given_back {
            return;
        }
        let texts = found.iter().map(|(bond, why)| format!("{bond}: {why}"));
        let why = texts.collect::<Vec<_>>().join("; ");
        self.given_back = found;
        self.feed(Input::NicsGivenBack((!why.is_empty()).then_some(why)));
    }

    /// Looks whether it is known by now who makes a bond, as with what was given back. Waits no longer than a guest may
    /// be without its network.
    fn notice_decided(&mut self) -> Result<()> {
        let Some((before, until)) = self.undecided.clone() else {
            return Ok(());
        };
        let policy = self.starting_policy();
        let mut now = decided::undecided(&policy, &self.files);
        if until <= Instant::now() {
            tracing::warn!(bonds = ?now, "nobody says who makes these bonds, so they are made here; see `tandem check`");
            now.clear();
        } else if now == before {
            return Ok(());
        }
        self.apply(policy, now, until)
    }

    async fn turn(&mut self) -> Result<()> {
        let mut reload = signal(SignalKind::hangup()).context("can't listen for SIGHUP")?;
        let stop = |kind| signal(kind).context("can't listen for SIGTERM and SIGINT");
        let mut terminate = stop(SignalKind::terminate())?;
        let mut interrupt = stop(SignalKind::interrupt())?;
        let mut running = FuturesUnordered::new();
        let watchdog_interval = ServiceManager::watchdog_interval();
        let alive_again = || {
            let interval_ms = watchdog_interval?
                .as_millis()
                .try_into()
                .unwrap_or(u64::MAX);
            Some(clock::now().plus_ms(interval_ms))
        };
        let mut next_alive = alive_again();
        let mut alarm = Alarm::open().context("can't make a timer")?;
        let mut alive_alarm = Alarm::open().context("can't make a timer")?;
        let ready_by = Instant::now() + START_LIMIT;
        loop {
            self.notice_given_back();
            self.notice_decided()?;
            while let Some(output) = self.machine.next_output() {
                match output {
                    Output::Act(action) => {
                        let action = self.answer(action);
                        running.extend(action.map(|action| self.executor.start(action)));
                    }
                    Output::Reply { command, result } => self.channel.reply(command, result),
                    Output::Notify(event) => {
                        logging::event(&event);
                        self.channel.notify(&event);
                    }
                }
            }
            self.publish();
            if !self.is_ready && (self.links_read || ready_by <= Instant::now()) {
                self.is_ready = true;
                self.manager.ready();
            }
            let deadline = self.machine.next_deadline();
            let starting = (!self.is_ready).then_some(ready_by);
            let decision = self.undecided.as_ref().map(|(_, until)| *until);
            let overdue = starting
                .into_iter()
                .chain(self.store_at)
                .chain(decision)
                .min();
            // In this order: a flood of news delays neither the end nor the sign of life.
            let wake = tokio::select! {
                biased;
                _ = terminate.recv() => Wake::Stop,
                _ = interrupt.recv() => Wake::Stop,
                _ = reload.recv() => Wake::Reload,
                rang = alive_alarm.at(next_alive) => rang.map(|()| Wake::Watchdog)?,
                inputs = self.ebpf.next() => Wake::Ebpf(inputs),
                batch = self.sources.next() => Wake::Observed(batch?),
                Some(done) = running.next(), if !running.is_empty() => Wake::Finished(done),
                input = self.channel.next() => Wake::Channel(input),
                rang = alarm.at(deadline) => rang.map(|()| Wake::Deadline)?,
                () = until(overdue) => Wake::Overdue,
            };
            match wake {
                Wake::Reload => self.reload()?,
                Wake::Stop => {
                    self.manager.stopping();
                    tracing::info!("stopped on request; bonds and traffic stay as they are");
                    return Ok(());
                }
                Wake::Observed(batch) => self.observed(batch),
                Wake::Ebpf(inputs) => {
                    self.executor.use_fast_paths(self.ebpf.fast_paths());
                    inputs.into_iter().for_each(|input| self.feed(input));
                }
                Wake::Channel(input) => self.asked(input)?,
                Wake::Finished(completion) => self.sources.complete(completion),
                Wake::Watchdog => {
                    self.manager.alive();
                    next_alive = alive_again();
                }
                Wake::Deadline => self.feed(Input::Tick),
                Wake::Overdue => {}
            }
        }
    }

    fn observed(&mut self, batch: Vec<Observed>) {
        for observed in batch {
            match observed {
                Observed::Input(input) => self.feed(input),
                Observed::AgentPortsChanged => self.channel.ports_changed(),
            }
        }
    }

    /// Ends the reading of a source that has nothing to read; gives back what the executor has to do.
    fn answer(&mut self, action: Action) -> Option<Action> {
        let ActionKind::Observe {
            source: source @ (Source::Ebpf | Source::Channel),
        } = action.kind
        else {
            return Some(action);
        };
        if source == Source::Ebpf {
            let health = self.ebpf.health();
            self.feed(health);
        }
        self.sources.complete(Completion {
            action: action.id,
            outcome: Outcome::Accepted,
            learnt: Vec::new(),
            touched: Touched::default(),
        });
        None
    }

    fn publish(&mut self) {
        let status = self.machine.status();
        if self.published != Some(status.generation) {
            self.published = Some(status.generation);
            self.manager.status(status);
            self.channel.publish(status);
        }
        self.store_holds();
    }

    /// Keeps what has to outlive the service; tries again later if that fails.
    fn store_holds(&mut self) {
        let holds = self.machine.holds();
        if holds == self.kept_holds {
            self.store_at = None;
            return;
        }
        if self.store_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        match runtime::store(HOLDS_PATH.as_ref(), &holds) {
            Ok(()) => {
                self.kept_holds = holds;
                self.store_at = None;
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "a restart would forget what is held; it is tried again"
                );
                self.store_at = Some(Instant::now() + STORE_INTERVAL);
            }
        }
    }

    fn asked(&mut self, input: ChannelInput) -> Result<()> {
        match input {
            ChannelInput::Input(input) => self.feed(input),
            ChannelInput::Configure { id, policy } => {
                let result = self.take_from_host(policy)?;
                self.channel.configured(id, result);
            }
        }
        Ok(())
    }

    /// Takes the host's policy if the guest's administrator and its own sense allow
    /// it, and keeps it for a restart of the service.
    fn take_from_host(&mut self, mut policy: Policy) -> Result<Result<Configured, ConfigureError>> {
        let refuse = |code, message: String| Ok(Err(ConfigureError { code, message }));
        if let Some(code) = self.config.host_bonds_refused() {
            let file = self.options.config.display();
            let message = match code {
                ConfigureErrorCode::DefinedByFile => {
                    format!("the bonds are defined in the guest, in {file}")
                }
                _ => format!(
                    "the guest's administrator lets the host define no bonds: `host-may` in {file}"
                ),
            };
            return refuse(code, message);
        }
        policy.origin = Origin::Host;
        if let Err(error) = policy.validate() {
            return refuse(
                ConfigureErrorCode::Invalid,
                format!("{error} (key `{}`)", error.key),
            );
        }
        let changed = self.host_policy.as_ref() != Some(&policy);
        let bonds = policy.bonds.iter().map(|bond| bond.name.clone()).collect();
        if changed {
            if let Err(error) = runtime::store(HOST_POLICY_PATH.as_ref(), &policy) {
                return refuse(ConfigureErrorCode::NotStored, format!("{error:#}"));
            }
            tracing::info!(?bonds, "the host configured the guest");
            self.host_policy = Some(policy.clone());
            self.adopt(policy)?;
        }
        Ok(Ok(Configured { bonds, changed }))
    }

    fn reload(&mut self) -> Result<()> {
        self.manager.reloading();
        match config::load(&self.options.config) {
            Ok(config) => {
                self.config = config;
                let policy = self.starting_policy();
                self.adopt(policy)?;
                self.feed(Input::FilesRefused(None));
                tracing::info!(files = ?self.config.files, "configuration read anew");
            }
            Err(error) => self.feed(Input::FilesRefused(Some(error.to_string()))),
        }
        self.publish();
        self.manager.ready();
        Ok(())
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
