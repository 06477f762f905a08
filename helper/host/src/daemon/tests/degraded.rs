//! A domain that came without its VF.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::*;
use crate::daemon::Sources;
use crate::evacuate::{
    AgentUse, Device, DeviceRole, Owner, Progress, Record, Side, Spec, Stage, Vf, VfIdentity,
};
use crate::execute::{Lock, Records};

const DEVICE: &str =
    "<interface type='network'><source network='vfs'/><alias name='ua-vf'/></interface>";

/// What stands in the domain.
fn record() -> Progress {
    Progress::degraded("e1", "g1")
}

/// What this host keeps for itself.
fn own(progress: &Progress) -> Record {
    let vf = Vf {
        identity: VfIdentity {
            alias: Some("ua-vf".to_owned()),
            ..VfIdentity::default()
        },
        guest_mac: None,
        device: DEVICE.to_owned(),
    };
    Record {
        progress: progress.clone(),
        spec: Spec {
            domain: progress.domain.clone(),
            renamed: progress.renamed.clone(),
            source_uri: "qemu+ssh://a/system".to_owned(),
            destination_uri: "fake".to_owned(),
            devices: vec![Device {
                role: DeviceRole::Vf { bond: None },
                source: Some(vf.clone()),
                destination: Some(vf),
            }],
            agent: AgentUse::Never,
            reaches_destination_agent: false,
            configure: false,
            yes_degraded: false,
        },
        pace: None,
    }
}

struct Stage0 {
    service: Service,
    _guest: Guest,
    state: tempfile::TempDir,
}

/// A domain with this record, this host's own record of it, and a service that may plug in its VF.
fn stage(record: &Progress, failures: usize) -> Stage0 {
    let state = tempfile::tempdir().unwrap();
    let records = Records::open(&state.path().join("records")).unwrap();
    records.keep(&own(record)).unwrap();
    stage_in(state, record, failures)
}

/// The same with what is in that folder.
fn stage_in(state: tempfile::TempDir, record: &Progress, failures: usize) -> Stage0 {
    let folder = folder();
    let name = record.renamed.as_deref().unwrap_or("g1");
    let guest = Guest::new(&folder.path().join(name), Manner::Honest);
    let fake = Fake::new(&[(name, &guest.socket)]);
    fake.record(name, Some(record.to_text()));
    fake.attach_failures.store(failures, Ordering::Relaxed);
    let options = options(state.path());
    Stage0 {
        service: Service::over(folder, fake, options),
        _guest: guest,
        state,
    }
}

fn options(state: &Path) -> Options {
    Options {
        state: state.to_owned(),
        replug: Some(Sources {
            records: state.join("records"),
            file: state.join("replug.toml"),
        }),
        ..Options::default()
    }
}

impl Stage0 {
    fn attaches(&self) -> usize {
        self.service.fake.attaches.load(Ordering::Relaxed)
    }
}

fn evacuation(shown: &Shown) -> Option<(u32, bool)> {
    let evacuation = shown.report.evacuation.as_ref()?;
    Some((evacuation.attempts, evacuation.degraded))
}

#[tokio::test(start_paused = true)]
async fn its_vf_is_plugged_in() {
    let stage = stage(&record(), 0);
    let mut watching = stage.service.watch("g1").await;
    let shown = seen(&mut watching, |shown| generation(shown) == 1).await;
    assert_eq!(evacuation(&shown), Some((0, true)));
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(
        stage.attaches(),
        0,
        "the tool's own attempts were just over"
    );
    seen(&mut watching, |shown| shown.report.evacuation.is_none()).await;
    assert_eq!(stage.attaches(), 1);
    let shown = seen(&mut watching, |shown| generation(shown) == 1).await;
    assert_eq!(shown.report.channel, crate::report::ChannelUse::Subscribed);
    stage.service.ends().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_tried_again_ever_more_rarely() {
    let stage = stage(&record(), usize::MAX);
    let mut watching = stage.service.watch("g1").await;
    let mut began = Vec::new();
    let start = tokio::time::Instant::now();
    for count in 1..=7 {
        let told = |shown: &Shown| evacuation(shown).is_some_and(|(made, _)| made == count);
        let shown = seen(&mut watching, told).await;
        let last = shown.report.evacuation.unwrap().last.unwrap();
        assert!(last.contains("the VF is in use"), "{last}");
        began.push(start.elapsed().as_secs());
    }
    // An attempt takes about a minute and a half; 30 s doubled up to 15 min lie between them.
    let waits: Vec<u64> = began.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (wait, least) in waits.iter().zip([60, 120, 240, 480, 900, 900]) {
        assert!((least..least + 120).contains(wait), "{waits:?}");
    }
    let folder = stage.service.ends().await;
    let text = std::fs::read_to_string(folder.path().join("tandem.prom")).unwrap();
    for line in [
        "tandem_domain_degraded{domain=\"g1\"} 1\n",
        "tandem_domain_replug_attempts_total{domain=\"g1\"} 7\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

/// Which one it is the report says; nobody is told apart by a metric that a domain's metadata fills.
#[tokio::test(start_paused = true)]
async fn a_device_that_was_let_go_and_not_given_back_is_counted() {
    let record = Progress {
        let_go: 2,
        lacking: 1,
        ..record()
    };
    let stage = stage(&record, usize::MAX);
    let mut watching = stage.service.watch("g1").await;
    let shown = seen(&mut watching, |shown| generation(shown) == 1).await;
    assert_eq!(shown.report.evacuation.unwrap().lacking, 1);
    let folder = stage.service.ends().await;
    let text = std::fs::read_to_string(folder.path().join("tandem.prom")).unwrap();
    for line in [
        "tandem_domain_degraded{domain=\"g1\"} 1\n",
        "tandem_domain_devices_missing{domain=\"g1\"} 1\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_left_alone_while_a_tool_has_its_lock() {
    let stage = stage(&record(), 0);
    let lock = Lock::take(stage.state.path(), "domain", "g1").unwrap();
    let mut watching = stage.service.watch_answering("g1").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(stage.attaches(), 0);
    drop(lock);
    seen(&mut watching, |shown| shown.report.evacuation.is_none()).await;
    assert_eq!(stage.attaches(), 1);
    stage.service.ends().await;
}

/// One of two comes, and the other one is named and tried again alone.
#[tokio::test(start_paused = true)]
async fn of_two_devices_the_one_that_does_not_come_is_named() {
    let record = Progress {
        bond: Some("bond0".to_owned()),
        more_bonds: vec!["bond1".to_owned()],
        ..record()
    };
    let state = tempfile::tempdir().unwrap();
    let mut kept = own(&record);
    kept.spec.devices = ["0", "1"]
        .map(|number| {
            let mut device = own(&record).spec.devices.remove(0);
            device.role = DeviceRole::Vf {
                bond: Some(format!("bond{number}")),
            };
            for vf in [&mut device.source, &mut device.destination] {
                let vf = vf.as_mut().unwrap();
                vf.identity.alias = Some(format!("ua-vf{number}"));
                vf.device = DEVICE.replace("ua-vf", &format!("ua-vf{number}"));
            }
            device
        })
        .into();
    let records = Records::open(&state.path().join("records")).unwrap();
    records.keep(&kept).unwrap();
    let stage = stage_in(state, &record, 0);
    let bonds = ["0", "1"].map(|number| {
        format!("<bond name='bond{number}'><standby mac='52:54:00:00:0{number}:01'/><vf alias='ua-vf{number}'/></bond>")
    });
    let namespace = crate::xml::BONDS_NAMESPACE;
    let bonds = format!("<bonds xmlns='{namespace}'>{}</bonds>", bonds.concat());
    let fake = &stage.service.fake;
    *fake.bonds.lock().unwrap() = Some(crate::xml::Document::parse(&bonds).unwrap().bonds);
    *fake.broken.lock().unwrap() = Some("ua-vf1".to_owned());
    let mut watching = stage.service.watch("g1").await;
    let told = |shown: &Shown| evacuation(shown).is_some_and(|(made, _)| made == 1);
    let last = seen(&mut watching, told).await;
    let last = last.report.evacuation.unwrap().last.unwrap();
    assert!(last.contains("ua-vf1 of bond1"), "{last}");
    assert!(!last.contains("ua-vf0"), "{last}");
    let look = crate::hypervisor::Look::look(stage.service.fake.as_ref(), "g1").await;
    let look = look.unwrap();
    let aliases: Vec<&str> = look
        .facts
        .nics
        .iter()
        .map(|nic| nic.alias.as_str())
        .collect();
    assert_eq!(aliases, ["ua-vf0"]);
    // So it is in the log.
    assert_eq!(
        crate::daemon::replug::lacking(&record, &look),
        "the VF of bond1"
    );
    let without = Progress {
        lacking: 2,
        ..record
    };
    let said = crate::daemon::replug::lacking(&without, &look);
    assert_eq!(said, "the VF of bond1, 2 devices of no bond");
    *stage.service.fake.broken.lock().unwrap() = None;
    seen(&mut watching, |shown| shown.report.evacuation.is_none()).await;
    stage.service.ends().await;
}

/// Both ends of a migration may be on one machine, and the tool has the lock of the name that the domain had there.
#[tokio::test(start_paused = true)]
async fn one_under_another_name_is_left_alone_while_a_tool_drives_it() {
    let us = crate::execute::this_process().unwrap();
    let record = Progress {
        renamed: Some("g2".to_owned()),
        owner: Some(us),
        stage: Stage::Plugging,
        ..record()
    };
    let stage = stage(&record, 0);
    let lock = Lock::take(stage.state.path(), "domain", "g1").unwrap();
    let mut watching = stage.service.watch("g2").await;
    let shown = seen(&mut watching, |shown| shown.report.guest_error.is_some()).await;
    assert_eq!(shown.report.guest, None, "the tool has its channel");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(stage.attaches(), 0);
    drop(lock);
    seen(&mut watching, |shown| shown.report.evacuation.is_none()).await;
    assert_eq!(stage.attaches(), 1);
    stage.service.ends().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_left_alone_while_a_tool_has_its_channel() {
    let stage = stage(&record(), 0);
    let lease = stage.service.lease("g1").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(stage.attaches(), 0);
    drop(lease);
    let mut watching = stage.service.watch("g1").await;
    seen(&mut watching, |shown| shown.report.evacuation.is_none()).await;
    assert_eq!(stage.attaches(), 1);
    stage.service.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_needs_a_decision_is_left_to_the_operator() {
    let source = Progress {
        home: Some(Side::Source),
        ..record()
    };
    let unknown = Progress {
        home: None,
        ..record()
    };
    let migrating = Progress {
        stage: Stage::Migrating,
        ..record()
    };
    let before = Progress {
        migration_begun: false,
        ..record()
    };
    let driven = Progress {
        stage: Stage::Plugging,
        owner: Some(Owner {
            token: "t".to_owned(),
            host: crate::execute::this_process().unwrap().host,
            // Its lock keeps channel task and attempt away.
            pid: 1,
            started_at: String::new(),
        }),
        ..record()
    };
    for (record, is_driven) in [
        (source, false),
        (unknown, false),
        (migrating, false),
        (before, false),
        (driven, true),
    ] {
        let stage = stage(&record, 0);
        let lock = is_driven.then(|| Lock::take(stage.state.path(), "domain", "g1").unwrap());
        let mut watching = stage.service.watch("g1").await;
        let shown = seen(&mut watching, |shown| {
            let asked = generation(shown) == 1;
            asked || (is_driven && shown.report.guest_error.is_some())
        })
        .await;
        assert_eq!(shown.report.guest.is_some(), !is_driven);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(stage.attaches(), 0, "{record:?}");
        drop(lock);
        stage.service.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_may_be_turned_off() {
    let folder = folder();
    let guest = Guest::new(&folder.path().join("g1"), Manner::Honest);
    let fake = Fake::new(&[("g1", &guest.socket)]);
    fake.record("g1", Some(record().to_text()));
    let state = tempfile::tempdir().unwrap();
    let options = Options {
        replug: None,
        ..options(state.path())
    };
    let service = Service::over(folder, fake, options);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(service.fake.attaches.load(Ordering::Relaxed), 0);
    service.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_comes_later_is_seen() {
    let stage = stage(&record(), 0);
    stage.service.fake.record("g1", None);
    let mut watching = stage.service.watch_answering("g1").await;
    stage.service.fake.record("g1", Some(record().to_text()));
    stage.service.happens("g1", EventKind::MetadataChanged);
    seen(&mut watching, |shown| shown.report.evacuation.is_some()).await;
    seen(&mut watching, |shown| shown.report.evacuation.is_none()).await;
    assert_eq!(stage.attaches(), 1);
    stage.service.ends().await;
}
