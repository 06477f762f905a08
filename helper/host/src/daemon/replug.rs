//! Plugs in the VF of a domain that came without it, as `recover` does, and only where that needs
//! nobody's decision: on the host where the domain runs to stay, when all else was done.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::lease::ChannelLeases;
use super::options::Options;
use super::registry::ReplugAttempts;
use super::sources;
use super::told::Told;
use crate::evacuate::{Evacuation, Limits, Outcome, Progress, Verdict};
use crate::execute::{Hosts, Lock, RunEnd, Runner, Stops, Watcher, owner_is_dead, this_process};
use crate::hypervisor::{DomainLook, DomainState, Host, JobWhich};
use crate::words::{message, printable};

/// Attempts at the same time; each may take minutes.
pub(super) const AT_ONCE: usize = 2;
/// How long the service's own end waits for attempts under way.
pub(super) const WIND_UP: Duration = Duration::from_secs(30);
/// From the first sight of the record to the first attempt.
const FIRST: Duration = Duration::from_secs(30);
/// Longest time between two attempts.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// After so long without an attempt the next one counts as the first.
const FORGOTTEN: Duration = Duration::from_secs(60 * 60);
/// How long to wait for a tool that has the guest's channel.
const LEASE: Duration = Duration::from_secs(15);
/// One attempt's time for plugging in; the next one comes by itself.
const PLUG_MS: u64 = 30_000;

/// What is planned for one domain, and what was tried. It is kept as long as the domain runs here: whoever may write
/// its metadata must not make each attempt the first one, by another record or by the same one again.
#[derive(Debug)]
pub(super) struct Replug {
    /// The domain's present run ([`crate::hypervisor::DomainFacts::run_id`]).
    run_id: String,
    plan: Option<Plan>,
    /// From the last attempt to the next one.
    wait: Duration,
    /// When the last attempt ended.
    tried: Option<Instant>,
    /// Why nothing may be plugged in, as it was logged last.
    not_allowed: Option<String>,
    told: Told,
}

/// An attempt that is wanted.
#[derive(Debug)]
struct Plan {
    evacuation: String,
    /// What the domain lacks, for people.
    lacks: String,
    /// `None` while it is under way.
    at: Option<Instant>,
    attempts: ReplugAttempts,
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
    /// For a domain whose metadata were not looked at yet.
    pub(super) fn new(run_id: &str) -> Self {
        Self {
            run_id: run_id.to_owned(),
            plan: None,
            wait: FIRST,
            tried: None,
            not_allowed: None,
            told: Told::default(),
        }
    }

    /// Plans for what a look shows: `record` only if an attempt is wanted at all.
    pub(super) fn follow(&mut self, record: Option<(&Progress, String)>, name: &str, run_id: &str) {
        if self.is_busy() {
            return;
        }
        if self.run_id != run_id {
            self.run_id = run_id.to_owned();
            self.plan = None;
            self.wait = FIRST;
            self.tried = None;
        }
        let Some((record, lacks)) = record.filter(|(record, _)| record.lacks_only_plug()) else {
            self.plan = None;
            return;
        };
        if let Some(plan) = self.plan.as_mut()
            && plan.evacuation == record.evacuation
        {
            plan.lacks = lacks;
            return;
        }
        self.plan(record, lacks, name);
    }

    fn plan(&mut self, record: &Progress, lacks: String, name: &str) {
        let now = Instant::now();
        // What was long ago was another evacuation's.
        if self.tried.is_some_and(|at| now - at >= FORGOTTEN) {
            self.wait = FIRST;
        }
        let at = match self.tried {
            Some(tried) => (tried + self.wait).max(now + FIRST),
            None => now + FIRST,
        };
        if let Some(more) = self.told.may() {
            tracing::warn!(
                "domain {} came without {lacks}; plugging in is tried in {} s{more}",
                printable(name),
                (at - now).as_secs()
            );
        }
        self.plan = Some(Plan {
            evacuation: record.evacuation.clone(),
            lacks,
            at: Some(at),
            attempts: ReplugAttempts::default(),
        });
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        self.plan.as_ref()?.at
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due_at().is_some_and(|at| at <= now)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.at.is_none())
    }

    /// An attempt begins, if one is planned; returns the evacuation that it is about.
    pub(super) fn begin(&mut self) -> Option<String> {
        let plan = self.plan.as_mut()?;
        plan.at = None;
        Some(plan.evacuation.clone())
    }

    /// It has ended.
    pub(super) fn ended(&mut self, name: &str, evacuation: &str, ended: AttemptEnd) {
        let plan = self.plan.as_mut();
        let Some(plan) = plan.filter(|plan| plan.evacuation == evacuation) else {
            return;
        };
        self.wait = (self.wait * 2).min(LONGEST);
        let now = Instant::now();
        self.tried = Some(now);
        plan.at = Some(now + self.wait);
        let again_s = self.wait.as_secs();
        let name = printable(name);
        let lacks = &plan.lacks;
        let text = match ended {
            AttemptEnd::Done => {
                plan.attempts.count += 1;
                if let Some(more) = self.told.may() {
                    tracing::info!("domain {name} has {lacks}{more}");
                }
                format!("it has {lacks}")
            }
            AttemptEnd::NotBegun(why) => {
                let why = message(&why);
                if let Some(more) = self.told.may() {
                    tracing::info!(
                        "domain {name}: {lacks}: not plugged in now: {why}; again in {again_s} s{more}"
                    );
                }
                why
            }
            AttemptEnd::NotAllowed(why) => {
                let why = message(&why);
                // Once: only an operator can change that.
                if self.not_allowed.as_ref() != Some(&why)
                    && let Some(more) = self.told.may()
                {
                    tracing::warn!("domain {name}: {lacks}: not plugged in: {why}{more}");
                    self.not_allowed = Some(why.clone());
                }
                why
            }
            AttemptEnd::Failed(why) => {
                let why = message(&why);
                plan.attempts.count += 1;
                if let Some(more) = self.told.may() {
                    tracing::warn!(
                        "domain {name} is still without {lacks}: {why}; again in {again_s} s{more}"
                    );
                }
                why
            }
        };
        plan.attempts.last = Some(text);
    }

    /// What was tried for the record that stands there; nothing without one.
    pub(super) fn attempts(&self) -> Option<&ReplugAttempts> {
        self.plan.as_ref().map(|plan| &plan.attempts)
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
    // A QEMU that the guest came to tells of that for ever (`query-migrate`, QEMU 11.1).
    if job.is_under_way() || facts.reason.starts_with("post-copy") {
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
    let arriving = record.spec.arriving();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(evacuation: &str) -> Progress {
        Progress::degraded(evacuation, "g1")
    }

    /// What attempts of the next hours begin at, in s, if the record is another one each time and goes away between; and
    /// how many of these records were logged.
    async fn moments(replug: &mut Replug, hours: u64, run_id: &str) -> (Vec<u64>, u32) {
        let start = Instant::now();
        let (mut moments, mut logged) = (Vec::new(), 0);
        for count in 0.. {
            if start.elapsed().as_secs() >= hours * 3600 {
                break;
            }
            let evacuation = format!("e{count}");
            let before = replug.told.left_out();
            replug.follow(
                Some((&record(&evacuation), "its VF".to_owned())),
                "g1",
                run_id,
            );
            logged += u32::from(replug.told.left_out() <= before);
            tokio::time::advance(Duration::from_secs(40)).await;
            if replug.is_due(Instant::now()) {
                moments.push(start.elapsed().as_secs());
                assert_eq!(replug.begin().as_deref(), Some(&*evacuation));
                replug.ended("g1", &evacuation, AttemptEnd::Failed("in use".to_owned()));
            }
            replug.follow(None, "g1", run_id);
        }
        (moments, logged)
    }

    #[tokio::test(start_paused = true)]
    async fn another_record_is_no_new_chance_and_no_new_line() {
        let mut replug = Replug::new("1");
        let (moments, logged) = moments(&mut replug, 3, "1").await;
        // 30 s after it was seen, then 1, 2, 4, 8 and 15 minutes after the last.
        assert!((14..=17).contains(&moments.len()), "{moments:?}");
        let waits: Vec<u64> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits[4..].iter().all(|wait| *wait >= 900), "{waits:?}");
        // Of 270 records: four lines, and one more each five minutes.
        assert!((4..=40).contains(&logged), "{logged} lines");
    }

    #[tokio::test(start_paused = true)]
    async fn another_run_or_a_long_quiet_time_begins_anew() {
        let mut replug = Replug::new("1");
        moments(&mut replug, 1, "1").await;
        let seen = |replug: &mut Replug, run_id: &str| {
            replug.follow(Some((&record("new"), "its VF".to_owned())), "g1", run_id);
            replug.due_at().unwrap() - Instant::now()
        };
        assert!(seen(&mut replug, "1") > FIRST * 2);
        assert_eq!(seen(&mut replug, "2"), FIRST);
        moments(&mut replug, 1, "2").await;
        assert!(seen(&mut replug, "2") > FIRST * 2);
        replug.follow(None, "g1", "2");
        tokio::time::advance(FORGOTTEN).await;
        assert_eq!(seen(&mut replug, "2"), FIRST);
        assert_eq!(replug.wait, FIRST);
    }
}
