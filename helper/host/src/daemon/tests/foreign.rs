//! Records that other people wrote into a domain: nothing that they name is plugged in, and no other domain
//! is touched.

use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;
use crate::daemon::Sources;
use crate::evacuate::{Owner, Progress};
use crate::execute::Records;

/// A whole hour: many attempts.
const HOUR: Duration = Duration::from_secs(3600);

struct Two {
    service: Service,
    state: tempfile::TempDir,
    _guests: [Guest; 2],
}

/// Two domains; in the first stands this text.
fn two(text: &str, prepare: impl FnOnce(&Path)) -> Two {
    let (folder, state) = (folder(), tempfile::tempdir().unwrap());
    prepare(state.path());
    let guests = ["g1", "g2"].map(|name| Guest::new(&folder.path().join(name), Manner::Honest));
    let fake = Fake::new(&[("g1", &guests[0].socket), ("g2", &guests[1].socket)]);
    fake.record("g1", Some(text.to_owned()));
    let options = Options {
        state: state.path().to_owned(),
        replug: Some(Sources {
            records: state.path().join("records"),
            file: state.path().join("replug.toml"),
        }),
        ..Options::default()
    };
    Two {
        service: Service::over(folder, fake, options),
        state,
        _guests: guests,
    }
}

impl Two {
    /// Nothing is plugged in, and no record is written into the second domain.
    async fn stays_as_it_is(self) {
        tokio::time::sleep(HOUR).await;
        let fake = &self.service.fake;
        assert_eq!(fake.attaches.load(Ordering::Relaxed), 0);
        assert_eq!(fake.domains.lock().unwrap()["g2"].1, None);
        self.service.ends().await;
    }
}

fn record(domain: &str) -> Progress {
    Progress::degraded("e1", domain)
}

/// As a client that may write the metadata of `g1` alone would have it.
fn with_plan(domain: &str, version: u32) -> String {
    let device = "<interface type='bridge'><source bridge='mgmt'/><alias name='ua-x'/></interface>";
    let identity = json!({"pci": null, "alias": "ua-x", "mac": null});
    let spec = json!({"domain": domain, "source-uri": "qemu:///system", "destination-uri": "fake",
        "bond": null, "source-vf": null, "agent": "never", "reaches-destination-agent": false,
        "configure": false, "yes-degraded": true,
        "destination-vf": {"identity": identity, "guest-mac": null, "device": device}});
    json!({"version": version, "evacuation": "e", "domain": "g1", "owner": null, "beat": 1,
        "stage": "degraded", "migration-begun": true, "home": "destination", "spec": spec})
    .to_string()
}

#[tokio::test(start_paused = true)]
async fn a_record_never_touches_another_domain() {
    for version in [1, Progress::VERSION] {
        two(&with_plan("g2", version), |_| {})
            .stays_as_it_is()
            .await;
    }
    // A record that was copied from another domain.
    two(&record("g2").to_text(), |_| {}).stays_as_it_is().await;
    // One that says that the other domain is this one by now.
    let renamed = Progress {
        renamed: Some("g1".to_owned()),
        ..record("g2")
    };
    two(&renamed.to_text(), |_| {}).stays_as_it_is().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_in_the_metadata_is_never_plugged_in() {
    for version in [1, Progress::VERSION] {
        two(&with_plan("g1", version), |_| {})
            .stays_as_it_is()
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_word_of_this_host_nothing_is_plugged_in_and_the_command_is_told() {
    let two = two(&record("g1").to_text(), |_| {});
    let mut watching = two.service.watch("g1").await;
    let told = |shown: &Shown| {
        let last = shown
            .report
            .evacuation
            .as_ref()
            .and_then(|one| one.last.as_ref());
        last.is_some_and(|last| last.contains("`tandem-host recover g1 --vf FILE`"))
    };
    seen(&mut watching, told).await;
    two.stays_as_it_is().await;
}

#[tokio::test(start_paused = true)]
async fn an_own_record_of_another_host_or_evacuation_is_not_carried_out_here() {
    for (destination, evacuation) in [("qemu+ssh://b/system", "e1"), ("fake", "e0")] {
        let keep = |state: &Path| {
            let records = Records::open(&state.join("records")).unwrap();
            let progress = json!({"version": Progress::VERSION, "evacuation": evacuation, "domain": "g1",
                "owner": null, "beat": 1, "stage": "degraded", "migration-begun": true, "home": "destination"});
            let vf = json!({"identity": {"pci": null, "alias": "ua-vf", "mac": null}, "guest-mac": null,
                "device": "<interface type='network'><source network='vfs'/></interface>"});
            let spec = json!({"domain": "g1", "source-uri": "qemu:///system", "destination-uri": destination,
                "bond": null, "source-vf": null, "destination-vf": vf, "agent": "never",
                "reaches-destination-agent": false, "configure": false, "yes-degraded": false});
            let record = json!({"progress": progress, "spec": spec});
            records
                .keep(&serde_json::from_value(record).unwrap())
                .unwrap();
        };
        two(&record("g1").to_text(), keep).stays_as_it_is().await;
    }
}

const FILE: &str = "[[vf]]\ndomains = ['g1']\nnetwork = 'vfs'\nmacs = ['any']\n";

fn allow(state: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = state.join("replug.toml");
    std::fs::write(&path, FILE).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_file_of_this_host_allows_is_plugged_in() {
    let two = two(&record("g1").to_text(), allow);
    let mut watching = two.service.watch("g1").await;
    seen(&mut watching, |shown| shown.report.evacuation.is_some()).await;
    seen(&mut watching, |shown| shown.report.evacuation.is_none()).await;
    let domains = two.service.fake.domains.lock().unwrap().clone();
    let device = &domains["g1"].0.nics[0].xml;
    assert!(device.contains("<source network='vfs'/>"), "{device}");
    assert!(domains["g2"].0.nics.is_empty());
    // Nothing is left that would be carried out when the file allows it no more.
    let records = std::fs::read_dir(two.state.path().join("records")).unwrap();
    assert_eq!(records.count(), 0);
    two.service.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_others_may_write_allows_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let open = |state: &Path| {
        allow(state);
        let path = state.join("replug.toml");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).unwrap();
    };
    two(&record("g1").to_text(), open).stays_as_it_is().await;
}

/// A record that names a process which lives, and has nothing to do with it.
#[tokio::test(start_paused = true)]
async fn a_number_of_a_process_keeps_nobody_from_a_guest() {
    let owned = Progress {
        owner: Some(Owner {
            token: "t".to_owned(),
            host: crate::execute::this_process().unwrap().host,
            pid: 1,
            started_at: String::new(),
        }),
        ..record("g1")
    };
    let two = two(&owned.to_text(), |_| {});
    let mut watching = two.service.watch("g1").await;
    let shown = seen(&mut watching, |shown| generation(shown) == 1).await;
    assert!(shown.report.guest.is_some());
    two.service.ends().await;
}
