//! The runner over hosts in memory: what is decided is done, however it is disturbed.

mod fake;
#[path = "../../src/daemon/tests/guest.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "one of the tests of `serve`, which use all of it"
)]
mod guest;
mod hostile;

use std::sync::{Arc, Mutex};

use tandem_host::carry::{CarrySettings, Place};
use tandem_host::evacuate::{
    AgentUse, CauseCode, Device, DeviceRole, Evacuation, Limits, Outcome, Owner, Phase, Progress,
    Record, Side, Spec, Start, Verdict, Vf, VfIdentity,
};
use tandem_host::execute::{Hosts, Lock, Records, RunEnd, Runner, Watcher};
use tandem_host::hypervisor::MigrateOptions;
use tandem_host::xml::domain::DomainXml;
use tokio::sync::watch;

use fake::{FULL_SPEED, Pair, function, pair};

const MIGRATE: &str = "migrate to fake:///destination";

/// Asks to stop when a phase is first seen.
#[derive(Debug, Default)]
struct Nosy {
    stop_in: Option<Phase>,
    /// Not before it was seen there so often.
    shows: usize,
    /// How often to ask.
    stops: u32,
    asked: watch::Sender<u32>,
    said: u32,
}

impl Watcher for Nosy {
    fn show(&mut self, evacuation: &Evacuation, _: u64) {
        let there = self.stop_in == Some(evacuation.phase());
        let first = there && self.shows == 0;
        self.shows = self.shows.saturating_sub(usize::from(there));
        let asked = *self.asked.borrow();
        // The next time only once the runner has spoken of the last.
        if (first || self.said > 0) && self.said == asked && asked < self.stops {
            self.asked.send_replace(asked + 1);
        }
    }

    fn say(&mut self, _: &str) {
        self.said += 1;
    }
}

fn vf(index: usize) -> Vf {
    Vf {
        identity: VfIdentity {
            pci: Some(function(index)),
            ..VfIdentity::default()
        },
        guest_mac: None,
        device: format!("vf {index}"),
    }
}

fn start(agent: AgentUse, limits: Limits) -> Start {
    Start {
        spec: Spec {
            domain: "guest".to_owned(),
            renamed: None,
            source_uri: "fake:///source".to_owned(),
            destination_uri: "fake:///destination".to_owned(),
            devices: vec![Device {
                role: DeviceRole::Vf { bond: None },
                source: Some(vf(0)),
                destination: Some(vf(1)),
            }],
            agent,
            reaches_destination_agent: true,
            configure: false,
            yes_degraded: false,
        },
        limits,
        evacuation: "one".to_owned(),
        owner: Owner {
            token: "first".to_owned(),
            host: "here".to_owned(),
            pid: 1,
            started_at: String::new(),
        },
        check_only: false,
        obstacles: Default::default(),
    }
}

async fn run(prepare: impl FnOnce(&mut Pair), watcher: &mut Nosy) -> Story {
    let folder = tempfile::tempdir().expect("a folder");
    let start = start(AgentUse::Never, Limits::default());
    run_in(folder, start, prepare, watcher).await
}

async fn run_in(
    folder: tempfile::TempDir,
    start: Start,
    prepare: impl FnOnce(&mut Pair),
    watcher: &mut Nosy,
) -> Story {
    run_with(folder, start, None, prepare, watcher).await
}

async fn run_with(
    folder: tempfile::TempDir,
    start: Start,
    carry: Option<CarrySettings>,
    prepare: impl FnOnce(&mut Pair),
    watcher: &mut Nosy,
) -> Story {
    let records = Records::open(&folder.path().join("records")).expect("a folder");
    let (pair, source, destination) = pair();
    prepare(&mut pair.lock().expect("no holder panics"));
    let runner = Runner {
        hosts: Hosts {
            source: Some(source),
            destination,
        },
        migrate: MigrateOptions {
            xml: Some("<domain><name>guest</name></domain>".to_owned()),
            ..MigrateOptions::default()
        },
        carry: carry.clone(),
        lease_client: Default::default(),
        policy: start.spec.configure.then(policy),
        folder: folder.path().to_owned(),
        lock: Lock::take(folder.path(), "domain", "guest").expect("nobody has it"),
        records: Some(records),
    };
    let stops = watcher.asked.subscribe();
    let machine = Evacuation::new(start, 0);
    let machine = match carry {
        Some(_) => machine.with_carry(None),
        None => machine,
    };
    let ended = runner.run(machine, stops, watcher).await;
    Story {
        folder,
        pair,
        ended,
    }
}

/// The bonds of the domain's XML.
fn policy() -> tandem_core::Policy {
    let policy = serde_json::json!({ "bonds": [{ "name": "bond0", "standby": { "mac": "52:54:00:00:00:01" },
        "vfs": [{ "mac": guest::VF_MAC }] }] });
    serde_json::from_value(policy).expect("a policy")
}

struct Story {
    folder: tempfile::TempDir,
    pair: Arc<Mutex<Pair>>,
    ended: RunEnd,
}

impl Story {
    fn outcome(&self) -> Option<&Outcome> {
        match &self.ended {
            RunEnd::With(outcome) => Some(outcome),
            RunEnd::Left { .. } => None,
        }
    }

    fn verdict(&self) -> Option<Verdict> {
        self.outcome().map(|outcome| outcome.verdict)
    }

    fn done(&self) -> Vec<String> {
        self.pair.lock().expect("no holder panics").done.clone()
    }

    /// This host's own record.
    fn kept(&self) -> Option<Record> {
        let records = Records::open(&self.folder.path().join("records")).expect("a folder");
        records.read("guest").expect("a record of ours")
    }

    /// Where the domain runs and which NICs it has; and neither record nor claim is left.
    fn check(&self, place: usize, vfs: usize) {
        let done = self.done();
        let pair = self.pair.lock().expect("no holder panics");
        assert_eq!(pair.place(), (Some(place), vfs), "{done:?}");
        let is_degraded = self.verdict() == Some(Verdict::Degraded);
        let records = pair.records.iter().flatten().count();
        assert_eq!(records, usize::from(is_degraded), "{done:?}");
        assert!(pair.claims.iter().all(Vec::is_empty), "{:?}", pair.claims);
        let files = std::fs::read_dir(self.folder.path()).expect("its folder");
        let files = files.map(|entry| entry.expect("an entry").path());
        let locks: Vec<_> = files.filter(|path| path.is_file()).collect();
        assert!(locks.is_empty(), "locks are left: {locks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_is_well() {
    let story = run(|_| {}, &mut Nosy::default()).await;
    assert_eq!(story.verdict(), Some(Verdict::Done));
    assert_eq!(story.done(), ["detach vf 0", MIGRATE, "attach vf 1"]);
    story.check(1, 1);
    // The destination's XML was given the record.
    let xml = story.pair.lock().unwrap().xml.clone();
    let xml = DomainXml::parse(&xml.unwrap()).unwrap();
    let text = xml.progress.unwrap();
    let record = Progress::parse_for(&text, "guest").unwrap();
    assert!(record.migration_begun && record.is_owned_by("first"));
    // It names neither host nor device.
    assert!(!text.contains("fake://") && !text.contains("vf "), "{text}");
    assert_eq!(story.kept(), None);
}

/// Nothing is begun that a recovery could not finish.
#[tokio::test(start_paused = true)]
async fn without_room_for_the_record_nothing_is_begun() {
    // Where the file is to be written anew, there is a folder.
    let folder = tempfile::tempdir().expect("a folder");
    let in_the_way = folder.path().join("records/domain-guest.json.new");
    std::fs::create_dir_all(in_the_way).expect("a folder");
    let start = start(AgentUse::Never, Limits::default());
    let story = run_in(folder, start, |_| {}, &mut Nosy::default()).await;
    let outcome = story.outcome().expect("it ended");
    assert_eq!(outcome.verdict, Verdict::Refused, "{outcome:#?}");
    let code = outcome.cause.as_ref().map(|cause| cause.code);
    assert_eq!(code, Some(CauseCode::RecordNotWritten), "{outcome:#?}");
    assert!(story.done().is_empty(), "{:?}", story.done());
    story.check(0, 1);
}

/// What the destination says of its VF is heard before anything leaves the source.
#[tokio::test(start_paused = true)]
async fn a_vf_that_can_not_come_keeps_the_other_where_it_is() {
    for check_only in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let start = Start {
            check_only,
            ..start(AgentUse::Never, Limits::default())
        };
        let refuses = |pair: &mut Pair| pair.device_is_refused = true;
        let story = run_in(folder, start, refuses, &mut Nosy::default()).await;
        let outcome = story.outcome().expect("it ended");
        assert_eq!(outcome.verdict, Verdict::Refused, "{outcome:#?}");
        let cause = outcome.cause.as_ref().expect("a cause");
        assert_eq!(cause.code, CauseCode::VfTaken);
        assert!(cause.message.contains("not active"), "{}", cause.message);
        assert!(story.done().is_empty(), "{:?}", story.done());
        story.check(0, 1);
    }
}

/// To check is to change nothing, not even the record.
#[tokio::test(start_paused = true)]
async fn a_check_says_that_it_could_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = Start {
        check_only: true,
        ..start(AgentUse::Never, Limits::default())
    };
    let story = run_in(folder, start, |_| {}, &mut Nosy::default()).await;
    let outcome = story.outcome().expect("it ended");
    assert_eq!((outcome.verdict, outcome.exit_code()), (Verdict::Ready, 0));
    assert!(outcome.vf_attached && outcome.runs_on == Some(Side::Source));
    assert!(story.done().is_empty() && story.kept().is_none());
    story.check(0, 1);
}

/// Two VFs and a device of no bond, by the numbers of the fake hosts' devices.
fn three_devices() -> Start {
    let device = |role: DeviceRole, here: usize, there: usize| Device {
        role,
        source: Some(vf(here)),
        destination: Some(vf(there)),
    };
    let bond = |name: &str| DeviceRole::Vf {
        bond: Some(name.to_owned()),
    };
    let mut start = start(AgentUse::Never, Limits::default());
    start.spec.devices = vec![
        device(bond("bond0"), 0, 4),
        device(bond("bond1"), 1, 5),
        device(DeviceRole::LetGo, 2, 6),
    ];
    start
}

async fn run_three(prepare: impl FnOnce(&mut Pair)) -> Story {
    let folder = tempfile::tempdir().expect("a folder");
    let all = |pair: &mut Pair| {
        pair.begin_with(&[0, 1, 2]);
        prepare(pair);
    };
    run_in(folder, three_devices(), all, &mut Nosy::default()).await
}

#[tokio::test(start_paused = true)]
async fn all_devices_move_in_one_migration() {
    let story = run_three(|_| {}).await;
    assert_eq!(story.verdict(), Some(Verdict::Done));
    let steps = [
        "detach vf 0",
        "detach vf 1",
        "detach vf 2",
        MIGRATE,
        "attach vf 4",
        "attach vf 5",
        "attach vf 6",
    ];
    assert_eq!(story.done(), steps);
    story.check(1, 3);
    let story = run_three(|pair| pair.migration_fails = true).await;
    assert_eq!(story.verdict(), Some(Verdict::RolledBack));
    let back = ["attach vf 0", "attach vf 1", "attach vf 2"];
    assert_eq!(story.done()[4..], back);
    story.check(0, 3);
}

/// The report names it, and the record that is kept has all of them.
#[tokio::test(start_paused = true)]
async fn a_device_that_does_not_come_is_named() {
    let story = run_three(|pair| pair.broken = Some("vf 5".to_owned())).await;
    let outcome = story.outcome().expect("it ended");
    assert_eq!(outcome.verdict, Verdict::Degraded);
    let missing: Vec<_> = outcome.devices.iter().filter(|one| !one.attached).collect();
    let [missing] = missing.as_slice() else {
        panic!("{outcome:#?}")
    };
    assert_eq!(missing.bond.as_deref(), Some("bond1"));
    let cause = outcome.cause.as_ref().expect("a cause");
    assert!(cause.message.contains("of bond1"), "{}", cause.message);
    let kept = story.kept().expect("a record");
    assert_eq!((kept.progress.version, kept.spec.devices.len()), (3, 3));
    assert_eq!(kept.spec.bonds(), ["bond0", "bond1"]);
    story.check(1, 2);
}

#[tokio::test(start_paused = true)]
async fn plugging_in_is_tried_again() {
    let story = run(|pair| pair.attach_failures = 2, &mut Nosy::default()).await;
    assert_eq!(story.verdict(), Some(Verdict::Done));
    let done = story.done();
    let attached = done.iter().filter(|one| *one == "attach vf 1").count();
    assert_eq!(attached, 3);
    story.check(1, 1);
    // A call without an end is ended before the next one begins.
    let story = run(|pair| pair.attach_hangs = 1, &mut Nosy::default()).await;
    assert_eq!(story.verdict(), Some(Verdict::Done));
    assert_eq!(story.pair.lock().unwrap().attaching_at_once, 1);
    story.check(1, 1);
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_fails_is_undone() {
    let story = run(|pair| pair.migration_fails = true, &mut Nosy::default()).await;
    assert_eq!(story.verdict(), Some(Verdict::RolledBack));
    assert_eq!(story.done(), ["detach vf 0", MIGRATE, "attach vf 0"]);
    story.check(0, 1);
}

/// Asks so often while it migrates.
fn stops(stops: u32) -> Nosy {
    Nosy {
        stop_in: Some(Phase::Migrate),
        shows: 20,
        stops,
        ..Nosy::default()
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_to_stop_cancels_the_migration_and_undoes_all() {
    let story = run(|pair| pair.migration_hangs = true, &mut stops(1)).await;
    assert_eq!(story.verdict(), Some(Verdict::RolledBack));
    let wanted = ["detach vf 0", MIGRATE, "cancel", "attach vf 0"];
    assert_eq!(story.done(), wanted);
    assert_eq!(story.kept(), None);
    story.check(0, 1);
}

/// A migration that was seen is left alone, and asked for again.
#[tokio::test(start_paused = true)]
async fn only_a_migration_that_has_not_begun_is_given_up() {
    for shows_job in [true, false] {
        let refuses = |pair: &mut Pair| {
            pair.migration_hangs = true;
            pair.cancel_refusals = 2;
            pair.shows_job = shows_job;
        };
        let story = run(refuses, &mut stops(1)).await;
        let done = story.done();
        let gives_up = done.contains(&"give up".to_owned());
        assert_eq!(gives_up, !shows_job, "{done:?}");
        let cancels = done.iter().filter(|one| *one == "cancel").count();
        assert!(!shows_job || cancels == 3, "{done:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_request_to_stop_leaves_all_that_a_recovery_needs() {
    let slow = |pair: &mut Pair| {
        pair.migration_hangs = true;
        pair.attach_failures = 1_000;
    };
    let story = run(slow, &mut stops(2)).await;
    assert!(matches!(story.ended, RunEnd::Left { .. }));
    let kept = story.kept().expect("a record");
    assert!(kept.progress.is_owned_by("first"));
    assert_eq!(kept.spec.destination_uri, "fake:///destination");
}

/// The command that goes on has to be asked where the domain is by then.
#[tokio::test(start_paused = true)]
async fn who_leaves_learns_where_the_domain_stays() {
    let mut nosy = Nosy {
        stop_in: Some(Phase::Plug),
        // By then its first attempt to plug in has begun.
        shows: 5,
        ..stops(2)
    };
    let story = run(|pair| pair.attach_hangs = 1_000, &mut nosy).await;
    let runs_on = match story.ended {
        RunEnd::Left { runs_on } => runs_on,
        RunEnd::With(outcome) => panic!("{outcome:#?}"),
    };
    assert_eq!(runs_on, Some(Side::Destination));
}

/// A carry whose halves are started so.
fn carry_by(program: &[&str]) -> CarrySettings {
    let place = Place {
        program: program.iter().copied().map(str::to_owned).collect(),
        uri: "fake:///".to_owned(),
    };
    CarrySettings {
        taps: None,
        places: [place.clone(), place],
        obstacle: None,
        own: Vec::new(),
        limit_bytes: 1 << 20,
        max_pause_ms: 321,
        bandwidth_mib_s: None,
    }
}

/// Where no half can be had, the migration is as any other one.
#[tokio::test(start_paused = true)]
async fn a_migration_is_not_slowed_down_for_a_carry_that_can_not_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = start(AgentUse::Never, Limits::default());
    let carry = carry_by(&["/nowhere/tandem-host"]);
    let story = run_with(folder, start, Some(carry), |_| {}, &mut Nosy::default()).await;
    {
        let pair = story.pair.lock().expect("no holder panics");
        assert_eq!((pair.speed, pair.max_downtime_ms), (None, None));
    }
    let outcome = story.outcome().expect("it ended");
    assert_eq!(outcome.verdict, Verdict::Done, "{outcome:#?}");
    let carry = outcome
        .carry
        .as_ref()
        .and_then(|carry| carry.reason.clone());
    let reason = carry.unwrap_or_default();
    assert!(reason.contains("can't be started"), "{reason}");
    story.check(1, 1);
}

/// What a carry sets for its migration is set back when that never begins: the domain's next one has no carry, perhaps.
#[tokio::test]
async fn limits_of_a_carry_go_with_a_migration_that_does_not_begin() {
    let at_once = Nosy {
        shows: 0,
        ..stops(1)
    };
    for mut watcher in [Nosy::default(), at_once] {
        let is_refused = watcher.stops == 0;
        let folder = tempfile::tempdir().expect("a folder");
        let carry = carry_by(&["sh", "-c", r#"printf '\002\000\000\000\007"ready"'"#]);
        let start = start(AgentUse::Never, Limits::default());
        let refuse = |pair: &mut Pair| pair.migration_is_refused = is_refused;
        let story = run_with(folder, start, Some(carry), refuse, &mut watcher).await;
        let limits = {
            let pair = story.pair.lock().expect("no holder panics");
            (pair.speed, pair.max_downtime_ms)
        };
        assert_eq!(limits, (Some(FULL_SPEED), Some(321)), "{:?}", story.done());
        let carry = story.outcome().and_then(|outcome| outcome.carry.clone());
        let reason = carry.and_then(|carry| carry.reason).unwrap_or_default();
        assert_eq!(reason.contains("did not begin"), is_refused, "{reason}");
        story.check(0, 1);
    }
}
