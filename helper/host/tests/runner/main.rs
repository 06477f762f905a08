//! The runner over hosts in memory. The clock only moves while everybody waits.
//! A signal reaches all runners of a process, so tests that run at once would disturb each
//! other: all is one test.

mod fake;

use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::process::{Signal, getpid, kill_process};
use tandem_host::act::{Ended, Hosts, Lock, Runner, Watcher, file_of};
use tandem_host::decide::{
    AgentUse, Evacuation, Limits, Owner, Phase, Plan, Progress, Start, Verdict, Vf, VfIdentity,
};
use tandem_host::hypervisor::MigrateOptions;
use tandem_host::xml::domain::DomainXml;

use fake::{Pair, function, pair};

/// Sends signals to this process when a phase is first seen.
#[derive(Debug, Default)]
struct Nosy {
    signal_in: Option<Phase>,
    /// Not before it was seen there so often.
    shows: usize,
    signals: usize,
    sent: usize,
    said: Vec<String>,
}

impl Watcher for Nosy {
    fn show(&mut self, evacuation: &Evacuation, _: u64) {
        let there = self.signal_in == Some(evacuation.phase());
        let first = there && self.shows == 0;
        self.shows = self.shows.saturating_sub(usize::from(there));
        let again = !self.said.is_empty();
        // One at a time: the next only once the runner has spoken of the last.
        let heard = self.said.len() == self.sent;
        if (first || again) && heard && self.sent < self.signals {
            self.sent += 1;
            kill_process(getpid(), Signal::INT).expect("our own process");
            // Any thread may take it, and the clock of this test runs faster than real time.
            while is_pending(Signal::INT) {
                std::thread::yield_now();
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.said.push(text.to_owned());
    }
}

/// No thread of this process has taken the signal yet (`ShdPnd` of proc(5)).
fn is_pending(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let mask = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let mask = u64::from_str_radix(mask.expect("ShdPnd").trim(), 16).expect("a mask");
    mask & (1 << (signal.as_raw() - 1)) != 0
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

fn start() -> Start {
    Start {
        plan: Plan {
            domain: "guest".to_owned(),
            source_uri: "fake:///source".to_owned(),
            destination_uri: "fake:///destination".to_owned(),
            bond: None,
            source_vf: Some(vf(0)),
            destination_vf: Some(vf(1)),
            agent: AgentUse::Never,
            reaches_destination_agent: true,
            configure: false,
            yes_degraded: false,
        },
        limits: Limits {
            // The clock runs on while a signal is on its way.
            restore_ms: 1_000_000_000,
            ..Limits::default()
        },
        evacuation: "one".to_owned(),
        owner: owner("first"),
    }
}

fn owner(token: &str) -> Owner {
    Owner {
        token: token.to_owned(),
        host: "here".to_owned(),
        pid: 1,
        started_at: String::new(),
    }
}

async fn run(folder: &Path, prepare: impl FnOnce(&mut Pair), watcher: &mut Nosy) -> Story {
    let (pair, source, destination) = pair();
    prepare(&mut pair.lock().expect("no holder panics"));
    let runner = Runner {
        hosts: Hosts {
            source,
            destination,
        },
        migrate: MigrateOptions {
            xml: Some("<domain><name>guest</name></domain>".to_owned()),
            ..MigrateOptions::default()
        },
        lessor: Default::default(),
        policy: None,
        folder: folder.to_owned(),
        lock: Lock::take(folder, "domain", "guest").expect("nobody has it"),
    };
    let evacuation = Evacuation::new(start(), 0);
    let ended = runner
        .run(evacuation, watcher)
        .await
        .expect("signals can be listened to");
    Story { pair, ended }
}

struct Story {
    pair: Arc<Mutex<Pair>>,
    ended: Ended,
}

impl Story {
    fn verdict(&self) -> Option<Verdict> {
        match &self.ended {
            Ended::With(outcome) => Some(outcome.verdict),
            Ended::Left => None,
        }
    }

    fn done(&self) -> Vec<String> {
        self.pair.lock().expect("no holder panics").done.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_decided_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let kept = || std::fs::read_to_string(file_of(folder, "domain", "guest")).unwrap();

    let story = run(folder, |_| {}, &mut Nosy::default()).await;
    assert_eq!(story.verdict(), Some(Verdict::Done));
    let migrate = "migrate to fake:///destination";
    assert_eq!(story.done(), ["detach vf 0", migrate, "attach vf 1"]);
    {
        let pair = story.pair.lock().unwrap();
        assert_eq!(pair.place(), (Some(1), true));
        assert_eq!(pair.records, [None, None]);
        // The destination's XML was given the record.
        let xml = DomainXml::parse(pair.xml.as_deref().unwrap()).unwrap();
        let record = Progress::parse(&xml.progress.unwrap()).unwrap();
        assert!(record.migration_begun && record.is_owned_by("first"));
    }
    assert_eq!(kept(), "");

    let story = run(
        folder,
        |pair| pair.attach_failures = 2,
        &mut Nosy::default(),
    )
    .await;
    assert_eq!(story.verdict(), Some(Verdict::Done));
    let attached = story
        .done()
        .iter()
        .filter(|one| *one == "attach vf 1")
        .count();
    assert_eq!(attached, 3);

    let story = run(
        folder,
        |pair| pair.migration_fails = true,
        &mut Nosy::default(),
    )
    .await;
    assert_eq!(story.verdict(), Some(Verdict::RolledBack));
    assert_eq!(story.done(), ["detach vf 0", migrate, "attach vf 0"]);
    assert_eq!(story.pair.lock().unwrap().place(), (Some(0), true));

    // One Ctrl-C: the migration is cancelled and all is undone.
    let mut once = Nosy {
        signal_in: Some(Phase::Migrate),
        shows: 20,
        signals: 1,
        ..Nosy::default()
    };
    let story = run(folder, |pair| pair.migration_hangs = true, &mut once).await;
    assert_eq!(story.verdict(), Some(Verdict::RolledBack));
    assert_eq!(
        story.done(),
        ["detach vf 0", migrate, "cancel", "attach vf 0"]
    );
    assert_eq!(kept(), "");

    // The source refuses to cancel it. One that was seen is left alone, and asked for again.
    for shows_job in [true, false] {
        let mut once = Nosy {
            signal_in: Some(Phase::Migrate),
            shows: 20,
            signals: 1,
            ..Nosy::default()
        };
        let refuses = |pair: &mut Pair| {
            pair.migration_hangs = true;
            pair.cancel_refusals = 2;
            pair.shows_job = shows_job;
        };
        let story = run(folder, refuses, &mut once).await;
        let gives_up = story.done().contains(&"give up".to_owned());
        assert_eq!(gives_up, !shows_job, "{:?}", story.done());
        if shows_job {
            let cancels = story.done().iter().filter(|one| *one == "cancel").count();
            assert_eq!(cancels, 3);
        }
    }
    Lock::take(folder, "domain", "guest")
        .unwrap()
        .keep(None)
        .unwrap();

    // A call without an end is ended before the next one begins.
    let story = run(folder, |pair| pair.attach_hangs = 1, &mut Nosy::default()).await;
    assert_eq!(story.verdict(), Some(Verdict::Done));
    assert_eq!(story.pair.lock().unwrap().attaching_at_once, 1);

    // A second one: left at once, with all that a recovery needs.
    // Both times it waits for something, so that it can't be over before the signal comes.
    let mut twice = Nosy {
        signal_in: Some(Phase::Migrate),
        shows: 20,
        signals: 2,
        ..Nosy::default()
    };
    let slow = |pair: &mut Pair| {
        pair.migration_hangs = true;
        pair.attach_failures = 1_000;
    };
    let story = run(folder, slow, &mut twice).await;
    assert_eq!(story.verdict(), None);
    assert!(Progress::parse(&kept()).unwrap().is_owned_by("first"));
}
