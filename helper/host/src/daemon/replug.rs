//! Plugs in the VF of a domain that came without it, as `recover` does, and only where that needs
//! nobody's decision: on the host where the domain runs to stay, when all else was done.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::lease::ChannelLeases;
use super::options::Options;
use super::registry::Attempts;
use super::sources;
use crate::evacuate::{Device, Evacuation, Limits, Outcome, Progress, Verdict};
use crate::execute::{Hosts, Lock, RunEnd, Runner, Stops, Watcher, owner_is_dead, this_process};
use crate::hypervisor::{DomainLook, DomainState, Host, JobPhase, JobWhich, Nic};
use crate::words::{message, printable};

/// Attempts at the same time; each may take minutes.
pub(super) const AT_ONCE: usize = 2;
/// How long the service's own end waits for attempts under way.
pub(super) const WIND_UP: Duration = Duration::from_secs(30);
/// From the first sight of the record to the first attempt.
const FIRST: Duration = Duration::from_secs(30);
/// Longest time between two attempts.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// How long to wait for a tool that has the guest's channel.
const LEASE: Duration = Duration::from_secs(15);
/// One attempt's time for plugging in; the next one comes by itself.
const PLUG_MS: u64 = 30_000;

/// What is planned for one domain.
#[derive(Debug)]
pub(super) struct Replug {
    evacuation: String,
    /// What the domain lacks, for people.
    lacks: String,
    attempts: Attempts,
    wait: Duration,
    /// `None` while an attempt is under way.
    at: Option<Instant>,
}

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AttemptEnd {
    /// The VF is in, and nothing is left to do.
    Done,
    /// It was not begun, and why.
    NotBegun(String),
    /// Nothing on this host says what may be plugged in.
    NotAllowed(String),
    /// It was, to no avail.
    Failed(String),
}

impl Replug {
    /// Plans for what a look shows: `record` only if an attempt is wanted at all.
    pub(super) fn follow(
        slot: &mut Option<Self>,
        record: Option<&Progress>,
        look: &DomainLook,
        name: &str,
    ) {
        if slot.as_ref().is_some_and(Self::is_busy) {
            return;
        }
        let Some(record) = record.filter(|record| record.lacks_only_plug()) else {
            *slot = None;
            return;
        };
        let lacks = lacking(record, look);
        if let Some(planned) = slot
            .as_mut()
            .filter(|one| one.evacuation == record.evacuation)
        {
            planned.lacks = lacks;
            return;
        }
        tracing::warn!(
            "domain {} came without {lacks}; plugging in is tried in {} s",
            printable(name),
            FIRST.as_secs()
        );
        *slot = Some(Self {
            evacuation: record.evacuation.clone(),
            lacks,
            attempts: Attempts::default(),
            wait: FIRST,
            at: Some(Instant::now() + FIRST),
        });
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        self.at
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.at.is_none()
    }

    /// An attempt begins; returns the evacuation that it is about.
    pub(super) fn begin(&mut self) -> String {
        self.at = None;
        self.evacuation.clone()
    }

    /// It has ended.
    pub(super) fn ended(&mut self, name: &str, evacuation: &str, ended: AttemptEnd) {
        if self.evacuation != evacuation {
            return;
        }
        self.wait = (self.wait * 2).min(LONGEST);
        self.at = Some(Instant::now() + self.wait);
        let again_s = self.wait.as_secs();
        let name = printable(name);
        let lacks = &self.lacks;
        let text = match ended {
            AttemptEnd::Done => {
                tracing::info!("domain {name} has {lacks}");
                self.attempts.count += 1;
                format!("it has {lacks}")
            }
            AttemptEnd::NotBegun(why) => {
                let why = message(&why);
                tracing::info!(
                    "domain {name}: {lacks}: not plugged in now: {why}; again in {again_s} s"
                );
                why
            }
            AttemptEnd::NotAllowed(why) => {
                let why = message(&why);
                // Once: only an operator can change that.
                if self.attempts.last.as_ref() != Some(&why) {
                    tracing::warn!("domain {name}: {lacks}: not plugged in: {why}");
                }
                why
            }
            AttemptEnd::Failed(why) => {
                let why = message(&why);
                tracing::warn!(
                    "domain {name} is still without {lacks}: {why}; again in {again_s} s"
                );
                self.attempts.count += 1;
                why
            }
        };
        self.attempts.last = Some(text);
    }

    pub(super) fn attempts(&self) -> &Attempts {
        &self.attempts
    }
}

/// What the domain lacks of the devices that its evacuation moved, in words: the record names the bonds, and which of
/// them has its VF, a look shows. Of devices of no bond it only counts those that are missing.
pub(super) fn lacking(record: &Progress, look: &DomainLook) -> String {
    let nics = &look.facts.nics;
    let bonds = look.bonds.as_ref().ok().and_then(Option::as_ref);
    let has_vf = |name: &String| {
        let mut bonds = bonds.into_iter().flat_map(|bonds| &bonds.bonds);
        let bond = bonds.find(|bond| bond.name.as_str() == name);
        bond.is_some_and(|bond| bond.vf(nics).is_some())
    };
    let without = record.bonds().filter(|name| !has_vf(name));
    let mut lacks: Vec<String> = without
        .map(|bond| format!("the VF of {}", printable(bond)))
        .collect();
    match record.lacking {
        0 => {}
        1 => lacks.push("a device of no bond".to_owned()),
        several => lacks.push(format!("{several} devices of no bond")),
    }
    match lacks.is_empty() {
        true => "its VF".to_owned(),
        false => lacks.join(", "),
    }
}

/// Tells the log what goes on.
struct Log<'a> {
    domain: &'a str,
    phase: Option<crate::evacuate::Phase>,
}

impl Watcher for Log<'_> {
    fn show(&mut self, evacuation: &Evacuation, _: u64) {
        let phase = evacuation.phase();
        if self.phase.replace(phase) != Some(phase) {
            let name = printable(self.domain);
            tracing::info!("domain {name}: plugging in what it lacks: {phase:?}");
        }
    }

    fn say(&mut self, text: &str) {
        tracing::warn!("domain {}: {}", printable(self.domain), message(text));
    }
}

/// One attempt.
pub(super) async fn attempt(
    host: Arc<dyn Host>,
    name: &str,
    evacuation: &str,
    channel_leases: Arc<ChannelLeases>,
    options: &Options,
    stops: Stops,
) -> AttemptEnd {
    match begin(host, name, evacuation, channel_leases, options, stops).await {
        Ok(outcome) if outcome.verdict == Verdict::Done => AttemptEnd::Done,
        Ok(outcome) => {
            let why = outcome.cause.map(|cause| cause.message);
            AttemptEnd::Failed(why.unwrap_or_else(|| format!("{:?}", outcome.verdict)))
        }
        Err(ended) => ended,
    }
}

async fn begin(
    host: Arc<dyn Host>,
    name: &str,
    evacuation: &str,
    channel_leases: Arc<ChannelLeases>,
    options: &Options,
    stops: Stops,
) -> Result<Outcome, AttemptEnd> {
    let not_begun = |why: String| AttemptEnd::NotBegun(why);
    // A tool that drives the evacuation holds it.
    let lock =
        Lock::take(&options.state, "domain", name).map_err(|error| not_begun(error.to_string()))?;
    let look = host.look(name).await;
    let look = look.map_err(|error| not_begun(error.to_string()))?;
    let facts = &look.facts;
    let record = look.progress.as_deref();
    let record = record.map(|text| Progress::parse_for(text, name));
    let Some(Ok(record)) = record else {
        return Err(not_begun("its record has gone".to_owned()));
    };
    if facts.state != DomainState::Running
        || record.evacuation != evacuation
        || !record.lacks_only_plug()
    {
        return Err(not_begun("it is not as it was".to_owned()));
    }
    let job = host.job(name, JobWhich::Current).await;
    let job = job.map_err(|error| not_begun(error.to_string()))?;
    if job.phase != JobPhase::None || facts.reason.starts_with("post-copy") {
        return Err(not_begun("a job of the hypervisor goes on".to_owned()));
    }
    let Some(sources) = &options.replug else {
        return Err(not_begun("it is turned off".to_owned()));
    };
    let allowed = sources::allowed(sources, host.uri(), record, &look);
    let (record, records) = allowed.map_err(AttemptEnd::NotAllowed)?;
    // Who evacuates a domain that comes under another name holds the lock of its first one.
    let first = record.spec.domain.as_str();
    let (lock, _also) = if first == name {
        (lock, None)
    } else {
        let first = Lock::take(&options.state, "domain", first);
        (
            first.map_err(|error| not_begun(error.to_string()))?,
            Some(lock),
        )
    };
    let lease = timeout(LEASE, channel_leases.lease()).await;
    let lease = lease.map_err(|_| not_begun("another tool has its channel".to_owned()))?;
    let policy = look.bonds.ok().flatten();
    let devices = record.spec.devices.iter();
    let arriving: Vec<Nic> = devices.filter_map(Device::arriving).collect();
    let policy = policy.and_then(|bonds| bonds.policy_with(&facts.nics, &arriving).ok());
    let owner_is_dead = owner_is_dead(&record, &lock);
    let runner = Runner {
        hosts: Hosts {
            // The domain has left it for good.
            source: None,
            destination: host,
        },
        migrate: Default::default(),
        policy,
        folder: options.state.clone(),
        lock,
        records,
        // The channel is ours already.
        carry: None,
        lease_client: Default::default(),
    };
    let limits = Limits {
        plug_ms: PLUG_MS,
        ..Limits::default()
    };
    let me = this_process().map_err(|error| AttemptEnd::Failed(error.to_string()))?;
    let recovery = Evacuation::recover(record, me, limits, owner_is_dead, 0);
    let mut log = Log {
        domain: name,
        phase: None,
    };
    let ended = runner.run(recovery, stops, &mut log).await;
    drop(lease);
    match ended {
        RunEnd::With(outcome) => Ok(*outcome),
        RunEnd::Left { .. } => {
            let why = "the service was told to end at once".to_owned();
            Err(AttemptEnd::Failed(why))
        }
    }
}
