//! The driver over a fake `virsh`, and what it reads on output captured from libvirt 11.3.

use std::fs;
use std::time::Duration;

use tandem_core::types::PciAddress;

use super::*;
use crate::evacuate::{Failure, FailureKind};
use crate::hypervisor::{
    DomainEvent, EventKind, Host, JobOperation, Lifecycle, MAX_PROGRESS_BYTES, MigrateOptions,
    NicKind,
};
use crate::xml::device::parse_device;
use crate::xml::{BONDS_NAMESPACE, PROGRESS_NAMESPACE};

mod processes;
mod sessions;

const RUNNING: &str = include_str!("captures/running.xml");
const EVENTS: &str = include_str!("captures/events.txt");
const JOB: &str = include_str!("captures/job-running.txt");

/// A `virsh` that runs this script; `$ALL` are its arguments in one line.
fn fake(script: &str) -> (Virsh, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("virsh");
    let text = format!(
        "#!/bin/sh\nHERE={}\nALL=\"$*\"\n{script}",
        folder.path().display()
    );
    // Written by another process: what this one has open for writing, a child that another test starts just now
    // has open too, and the kernel runs no such file (ETXTBSY).
    let source = folder.path().join("virsh.text");
    fs::write(&source, text).unwrap();
    let copied = std::process::Command::new("install")
        .args(["-m", "755"])
        .args([&source, &program])
        .status();
    assert!(copied.unwrap().success());
    (Virsh::with_program("test:///fake", program), folder)
}

/// Answers as libvirt did for the captured domain.
const AS_CAPTURED: &str = r#"case "$ALL" in
*' dumpxml --domain=g1') cat "$HERE/running.xml" ;;
*' domstate --domain=g1 --reason') echo 'running (booted)' ;;
*' dominfo --domain=g1') printf 'State:          running\nPersistent:     yes\n' ;;
*' metadata '*) echo "$ALL" >> "$HERE/asked" ;;
*' --domain=nope'*) echo "error: failed to get domain 'nope'" >&2; exit 1 ;;
*' attach-device '*|*' detach-device '*) cat > "$HERE/device"; echo "$ALL" >> "$HERE/asked" ;;
*) echo "error: unexpected: $ALL" >&2; exit 1 ;;
esac
"#;

fn captured() -> (Virsh, tempfile::TempDir) {
    let (virsh, folder) = fake(AS_CAPTURED);
    fs::write(folder.path().join("running.xml"), RUNNING).unwrap();
    (virsh, folder)
}

#[tokio::test]
async fn a_running_domain_is_described() {
    let (virsh, _folder) = captured();
    let facts = virsh.look("g1").await.unwrap().facts;
    assert_eq!(facts.state, DomainState::Running);
    assert_eq!(facts.reason, "booted");
    assert!(!facts.run_id.is_empty());
    let standby = &facts.nics[0];
    assert_eq!(standby.mac, "52:54:00:aa:00:01".parse().ok());
    assert_eq!(standby.kind, NicKind::Interface);
    let vf = facts.nics.iter().find(|nic| nic.alias == "ua-vf0").unwrap();
    assert_eq!(vf.mac, "52:54:00:aa:00:02".parse().ok());
    assert_eq!(parse_device(&vf.xml).unwrap(), *vf);
    let channel = facts.channel.unwrap();
    assert_eq!(channel.opened, Some(false));
    assert!(channel.socket.unwrap().path.ends_with("org.tandem.agent.0"));
}

#[tokio::test]
async fn a_domain_that_is_not_there_is_absent() {
    let (virsh, _folder) = captured();
    let facts = virsh.look("nope").await.unwrap().facts;
    assert_eq!(facts, DomainFacts::absent("nope"));
    let error = virsh.set_progress("nope", None).await.unwrap_err();
    assert!(matches!(error, HostError::NoSuchDomain { .. }), "{error}");
}

#[tokio::test]
async fn metadata_is_written_for_now_and_for_the_next_start() {
    let (virsh, folder) = captured();
    virsh
        .set_progress("g1", Some("{\"a\": \"<&>\"}"))
        .await
        .unwrap();
    virsh.set_bonds("g1", None).await.unwrap();
    let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
    let mut lines = asked.lines();
    assert_eq!(
        lines.next().unwrap(),
        format!(
            "-c test:///fake metadata --domain=g1 --uri={PROGRESS_NAMESPACE} --key=tandem \
             --set=<progress>{{&quot;a&quot;: &quot;&lt;&amp;&gt;&quot;}}</progress> --live --config"
        )
    );
    let removed = format!("--uri={BONDS_NAMESPACE} --remove --live --config");
    assert!(lines.next().unwrap().ends_with(&removed), "{asked}");
    let long = "x".repeat(MAX_PROGRESS_BYTES + 1);
    assert!(virsh.set_progress("g1", Some(&long)).await.is_err());
}

#[tokio::test]
async fn a_device_that_is_there_is_not_attached_again() {
    let (virsh, folder) = captured();
    let vf = "<interface type='ethernet'><mac address='52:54:00:aa:00:02'/><alias name='ua-vf0'/></interface>";
    let error = virsh.attach("g1", vf).await.unwrap_err();
    assert!(matches!(error, HostError::AlreadyThere { .. }), "{error}");
    assert!(!folder.path().join("asked").exists());
    let same_mac = vf.replace("<alias name='ua-vf0'/>", "");
    let error = virsh.attach("g1", &same_mac).await.unwrap_err();
    assert!(matches!(error, HostError::AlreadyThere { .. }), "{error}");
    let other = vf.replace("ua-vf0", "ua-vf1");
    virsh.attach("g1", &other).await.unwrap();
    assert_eq!(
        fs::read_to_string(folder.path().join("device")).unwrap(),
        other
    );
    let error = virsh.attach("g1", "<disk/>").await.unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
}

/// A second request while the guest still thinks about the first: the guest was asked.
#[tokio::test]
async fn an_unplug_that_is_under_way_was_taken() {
    let words = "unable to execute QEMU command 'device_del': Device ua-vf0 is already in the process of unplug";
    let (virsh, _folder) = fake(&format!(
        "cat > /dev/null; echo \"error: {words}\" >&2; exit 1"
    ));
    let nic = parse_device("<interface type='ethernet'><alias name='ua-vf0'/></interface>");
    assert_eq!(virsh.detach("g1", &nic.unwrap()).await, Ok(()));
}

/// As libvirt 11.3 said it without that driver.
const NO_DRIVER: &str = "Could not find matching device; this function is not supported by the connection driver: virNodeDeviceLookupByName";

#[tokio::test]
async fn a_pci_function_is_checked() {
    let hostdev = "<hostdev mode='subsystem' type='pci'><source>\
        <address domain='0x0000' bus='0x3b' slot='0x02' function='0x1'/></source></hostdev>";
    let script = |domain: &str| {
        format!(
            "case \"$ALL\" in\n\
             *' nodedev-dumpxml --device=pci_0000_3b_02_1') echo '<device/>' ;;\n\
             *' list --uuid') echo u1; echo u2 ;;\n\
             *' dumpxml --domain=u1') echo 'error: failed to get domain' >&2; exit 1 ;;\n\
             *' dumpxml --domain=u2') echo \"{domain}\" ;;\n\
             *) echo 'error: no node device' >&2; exit 1 ;;\nesac"
        )
    };
    let (virsh, _folder) = fake(&script("<domain><name>idle</name></domain>"));
    virsh.check_device(hostdev, 1).await.unwrap();
    virsh
        .check_device("<interface type='ethernet'/>", 1)
        .await
        .unwrap();
    let missing = hostdev.replace("0x3b", "0x3c");
    let error = virsh.check_device(&missing, 1).await.unwrap_err();
    assert!(error.to_string().contains("0000:3c:02.1"), "{error}");
    let taken = format!("<domain><name>busy</name><devices>{hostdev}</devices></domain>");
    // One that a driver of the host has is no guest's, and no domain is asked.
    let driver = "<device><driver><name>igbvf</name></driver></device>";
    let (virsh, _folder) = fake(&script(&taken).replace("<device/>", driver));
    virsh.check_device(hostdev, 1).await.unwrap();
    let by_vfio = driver.replace("igbvf", "vfio-pci");
    let (virsh, _folder) = fake(&script(&taken).replace("<device/>", &by_vfio));
    let error = virsh.check_device(hostdev, 1).await.unwrap_err();
    assert!(error.to_string().contains("domain busy has it"), "{error}");
    let (virsh, _folder) = fake(&script(&taken));
    let error = virsh.check_device(hostdev, 1).await.unwrap_err();
    assert!(error.to_string().contains("domain busy has it"), "{error}");
    // A libvirt without the driver for such devices tells nothing of them; what its domains have, it does.
    let without = script(&taken).replace(
        "echo '<device/>'",
        &format!("echo 'error: {NO_DRIVER}' >&2; exit 1"),
    );
    let (virsh, _folder) = fake(&without);
    let error = virsh.check_device(hostdev, 1).await.unwrap_err();
    assert!(error.to_string().contains("domain busy has it"), "{error}");
    let (virsh, _folder) = fake(&without.replace("busy", "idle").replace(hostdev, ""));
    virsh.check_device(hostdev, 1).await.unwrap();
}

#[tokio::test]
async fn names_that_virsh_would_misread_are_looked_up() {
    let uuid = "d96edc6f-10d8-4982-9c52-a32c1e3e9de5";
    let (virsh, _folder) = fake(&format!("echo '{uuid} 12'; echo 'x -y'"));
    assert_eq!(
        virsh.target("12").await.unwrap(),
        format!("--domain={uuid}")
    );
    assert_eq!(
        virsh.target(uuid).await.unwrap(),
        format!("--domain={uuid}")
    );
    assert_eq!(virsh.target("-y; rm").await.unwrap(), "--domain=-y; rm");
    for name in ["", "13", "a/b", "a\nb", "a\0b"] {
        let error = virsh.target(name).await.unwrap_err();
        assert!(matches!(error, HostError::NoSuchDomain { .. }), "{error}");
    }
}

/// The lists are as `virsh -c test:///…` of libvirt 11.3 prints them for a domain that is called ` g1 `.
#[test]
fn blanks_at_the_ends_of_a_name_are_part_of_it() {
    let uuid = "fa133ba5-572a-48ad-8e4e-c7f22beff703";
    assert_eq!(read::uuids(&format!("{uuid}  g1 \n\n")), [(uuid, " g1 ")]);
    let active = ActiveDomain {
        name: " g1 ".to_owned(),
        run_id: "1".to_owned(),
    };
    assert_eq!(read::active("1  g1 \n\n"), [active]);
    let xml = DomainXml::parse("<domain><name> g1 </name><uuid> u\n</uuid></domain>").unwrap();
    assert_eq!((xml.name.as_str(), xml.uuid.as_str()), (" g1 ", "u"));
}

#[tokio::test]
async fn a_migration_ends_as_virsh_does() {
    let options = MigrateOptions {
        xml: Some("<domain/>".to_owned()),
        ..MigrateOptions::default()
    };
    let (virsh, folder) = fake("cat > \"$HERE/xml\"");
    let mut migration = virsh
        .migrate("g1", "test:///there", &options)
        .await
        .unwrap();
    assert_eq!(migration.finished().await, Ok(()));
    assert_eq!(migration.finished().await, Ok(()));
    assert_eq!(
        fs::read_to_string(folder.path().join("xml")).unwrap(),
        "<domain/>"
    );
    let options = MigrateOptions::default();
    let (virsh, _folder) =
        fake("echo 'error: operation aborted: migration out: canceled by client' >&2; exit 1");
    let mut migration = virsh
        .migrate("g1", "test:///there", &options)
        .await
        .unwrap();
    let ended = migration.finished().await.unwrap_err();
    assert!(matches!(ended, HostError::Cancelled { .. }), "{ended}");
    let (virsh, _folder) = fake(
        "echo \"error: Failed to connect socket to '/nope': No such file or directory\" >&2; exit 1",
    );
    let mut migration = virsh
        .migrate("g1", "test:///there", &options)
        .await
        .unwrap();
    let ended = migration.finished().await.unwrap_err();
    assert!(
        matches!(ended, HostError::MigrationFailed { .. }),
        "{ended}"
    );
}

#[tokio::test]
async fn a_source_of_events_that_ends_is_started_again() {
    let (virsh, _folder) =
        fake("case \"$ALL\" in *' event '*) cat \"$HERE/events\" ;; *) exec sleep 60 ;; esac");
    fs::write(_folder.path().join("events"), EVENTS).unwrap();
    let mut events = virsh.events().await.unwrap();
    let removed = DomainEvent::of(
        "g1",
        EventKind::DeviceRemoved {
            alias: "ua-vf0".into(),
        },
    );
    let mut lost = 0;
    let mut seen = 0;
    while seen < 2 {
        match events.next().await.unwrap() {
            event if event == removed => seen += 1,
            event if event == DomainEvent::lost() => lost += 1,
            _ => {}
        }
    }
    assert!(lost >= 1);
}

#[test]
fn captured_events_are_read() {
    let events: Vec<DomainEvent> = EVENTS.lines().filter_map(read::event).collect();
    let kinds: Vec<&EventKind> = events.iter().map(|event| &event.kind).collect();
    assert!(
        events
            .iter()
            .all(|event| event.domain.as_deref() == Some("g1"))
    );
    let alias = || "ua-vf0".to_owned();
    for wanted in [
        EventKind::Lifecycle(Lifecycle::Started),
        EventKind::Lifecycle(Lifecycle::Paused),
        EventKind::Lifecycle(Lifecycle::Stopped),
        EventKind::DeviceRemoved { alias: alias() },
        EventKind::DeviceAdded { alias: alias() },
        EventKind::MetadataChanged,
        EventKind::JobFinished,
    ] {
        assert!(kinds.contains(&&wanted), "{wanted:?}");
    }
}

#[test]
fn events_of_odd_names_and_unknown_ones() {
    let line =
        "2026-01-02 03:04:05.678+0000: event 'device-removal-failed' for domain 'a': b': ua-vf0";
    let refused = EventKind::UnplugRefused {
        alias: "ua-vf0".into(),
    };
    assert_eq!(read::event(line), Some(DomainEvent::of("a': b", refused)));
    let line = "x: event VSERPORT_CHANGE for domain 'g1': {\"open\":true,\"id\":\"channel0\"}";
    let opened = EventKind::Agent { connected: true };
    assert_eq!(
        read::monitor_event(line),
        Some(DomainEvent::of("g1", opened))
    );
    for line in [
        "",
        "events received: 3",
        "event 'lifecycle' for domain 'g1'",
        "event 'lifecycle' for domain 'g1': Exploded",
        "event 'balloon-change' for domain 'g1': 7KiB",
    ] {
        assert_eq!(read::event(line), None, "{line}");
    }
    assert_eq!(
        read::monitor_event("x: event VSERPORT_CHANGE for domain 'g1': <null>"),
        None
    );
}

#[test]
fn taps_and_speeds_are_read() {
    let told = "Domain: 'g1'\n  net.count=3\n  net.0.name=vnet3\n  net.0.rx.bytes=90\n  net.2.name=vnet5\n  \
                net.2.names=x\n  net.x.name=y\n";
    assert_eq!(read::taps(told), ["vnet3", "vnet5"]);
    assert!(read::taps("Domain: 'g1'\n\n").is_empty());
    assert_eq!(read::speed("8796093022207\n\n"), Some(8_796_093_022_207));
    assert_eq!(read::speed("fast\n"), None);
}

#[test]
fn jobs_are_read() {
    let job = read::job(JOB).unwrap();
    assert!(!job.incoming);
    assert_eq!(
        job.facts,
        JobFacts {
            phase: JobPhase::PreCopy,
            operation: JobOperation::Migration,
            memory_total_bytes: Some(201_859_072),
            memory_remaining_bytes: Some(163_782_656),
            rate_bytes_per_s: Some(5_364_540),
            dirty_bytes_per_s: Some(0),
            downtime_ms: Some(300),
            elapsed_ms: Some(5555),
            passes: Some(1),
        }
    );
    let backup = read::job("Job type: 2\n\noperation: 9\n").unwrap().facts;
    assert!(backup.is_under_way() && backup.operation == JobOperation::Backup);
    let phase = |text: &str| read::job(text).map(|job| job.facts.phase);
    assert_eq!(phase("Job type: 0\n\n"), Some(JobPhase::None));
    assert_eq!(
        phase("Job type: 2\n\noperation: 5\n"),
        Some(JobPhase::Setup)
    );
    assert_eq!(
        phase("Job type: 3\noperation: 4\n"),
        Some(JobPhase::Completed)
    );
    assert_eq!(phase("Job type: 2\noperation: 6\n"), Some(JobPhase::Other));
    assert_eq!(phase("Job type: 77\n"), Some(JobPhase::Other));
    assert_eq!(phase("Job type: -1\n"), None);
    assert_eq!(phase(""), None);
    assert_eq!(
        read::copy_phase("paused (migrating)\n\n"),
        JobPhase::SwitchOver
    );
    assert_eq!(read::copy_phase("paused (post-copy)\n"), JobPhase::PostCopy);
    assert_eq!(read::copy_phase("running (booted)\n"), JobPhase::PreCopy);
}

/// As `virsh dominfo` of libvirt 11.3 prints it.
#[test]
fn it_is_read_which_definitions_a_domain_has() {
    let info = |text| read::info(text).map(|info| (info.runs, info.is_persistent));
    let text = "Id:             1\nName:           test\nState:          running\nCPU(s):         2\n\
                Persistent:     yes\nAutostart:      disable\n\n";
    assert_eq!(info(text), Some((true, true)));
    let off = "State: shut off\nPersistent: yes\n";
    assert_eq!(info(off), Some((false, true)));
    assert_eq!(info("State: paused\nPersistent: no\n"), Some((true, false)));
    assert_eq!(info("State: odd\nPersistent: yes\n"), None);
    assert_eq!(info("Persistent: yes\n"), None);
}

#[test]
fn states_are_read() {
    let state = |text: &str| read::state(text).map(|(state, _)| state);
    assert_eq!(state("running (migrated)\n\n"), Some(DomainState::Running));
    assert_eq!(state("shut off (migrated)\n"), Some(DomainState::ShutOff));
    assert_eq!(state("paused\n"), Some(DomainState::Paused));
    assert_eq!(state("no state\n"), None);
    assert_eq!(state(""), None);
}

#[test]
fn captured_failures_are_told_apart() {
    let of = |command, text: &str| refusal::of("test:///h", command, "g1", text);
    let gone = "error: Failed to detach device from vf.xml\nerror: device not found: no device found at \
        address '(<null>)' matching MAC address '52:54:00:aa:00:02' and alias 'ua-vf0'\n\n";
    assert!(matches!(
        of("detach-device", gone),
        HostError::AlreadyGone { .. }
    ));
    let there = "error: unsupported configuration: non unique alias detected: ua-vf0\n";
    assert!(matches!(
        of("attach-device", there),
        HostError::AlreadyThere { .. }
    ));
    let no_job = "error: Requested operation is not valid: no job is active on the domain\n";
    assert!(matches!(
        of("domjobabort", no_job),
        HostError::AlreadyGone { .. }
    ));
    // `qemuDomainDetachDeviceLive`'s words for DEVICE_UNPLUG_GUEST_ERROR (src/qemu/qemu_hotplug.c, libvirt 11.3).
    let rejected = "error: Failed to detach device from vf.xml\nerror: operation failed: unplug of device was \
        rejected by the guest\n";
    let rejected = of("detach-device", rejected);
    assert!(matches!(rejected, HostError::UnplugRefused { .. }));
    assert_eq!(Failure::from(&rejected).kind, FailureKind::UnplugRefused);
    let off = "error: Requested operation is not valid: domain is not running\n";
    assert!(matches!(
        of("detach-device", off),
        HostError::Refused { .. }
    ));
    let left = "error: Domain not found: no domain with matching uuid 'd96edc6f' (g1)\n";
    assert!(matches!(
        of("domjobabort", left),
        HostError::NoSuchDomain { .. }
    ));
    let down =
        "error: failed to connect to the hypervisor\nerror: Failed to connect socket to '/x'\n";
    assert!(matches!(of("dumpxml", down), HostError::Unreachable { .. }));
    assert!(of("dumpxml", "").to_string().contains("without a word"));
    let long = of("dumpxml", &"\u{1b}[31m".repeat(10_000)).to_string();
    assert!(long.len() < 2000 && !long.contains('\u{1b}'), "{long}");
}

#[test]
fn a_pci_function_is_found_in_a_device() {
    let nic = parse_device(
        "<interface type='hostdev' managed='yes'><source><address type='pci' domain='0x0000' \
         bus='0x3b' slot='0x02' function='0x1'/></source><mac address='52:54:00:aa:00:02'/></interface>",
    )
    .unwrap();
    assert_eq!(nic.kind, NicKind::HostdevInterface);
    let function: PciAddress = "0000:3b:02.1".parse().unwrap();
    assert_eq!(nic.pci_source, Some(function));
}
