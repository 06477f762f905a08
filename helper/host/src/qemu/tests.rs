//! The driver against a scripted QEMU on a unix socket, sound and hostile.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::qmp::QmpEvent;
use super::*;
use crate::hypervisor::{DomainEvent, DomainFacts, EventKind, JobPhase, NicKind};

const GREETING: &str =
    "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 10}}, \"capabilities\": [\"oob\"]}}\r\n";

/// A QEMU: `answer` gives the lines for a command, `@ID` standing for the request's identity.
struct Fake {
    folder: tempfile::TempDir,
    task: JoinHandle<()>,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    fn new(answer: impl Fn(&str, &Value) -> String + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("qmp")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (read, mut write) = stream.into_split();
                let mut lines = BufReader::new(read).lines();
                let mut bytes = GREETING.as_bytes().to_vec();
                loop {
                    if write.write_all(&bytes).await.is_err() {
                        break;
                    }
                    let Ok(Some(line)) = lines.next_line().await else {
                        break;
                    };
                    let request: Value = serde_json::from_str(&line).unwrap();
                    let command = request["execute"].as_str().unwrap().to_owned();
                    let text = match command.as_str() {
                        "qmp_capabilities" | "migrate-set-capabilities" => returned(json!({})),
                        "query-name" => returned(json!({ "name": "vm1" })),
                        _ => {
                            log.lock().unwrap().push(request.clone());
                            answer(&command, &request["arguments"])
                        }
                    };
                    if text == HANG_UP {
                        break;
                    }
                    bytes = text.replace("@ID", &request["id"].to_string()).into_bytes();
                }
            }
        });
        Self {
            folder,
            task,
            asked,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("qmp")
    }

    fn qemu(&self) -> Qemu {
        Qemu::new(&self.socket(), None)
    }

    fn commands(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let names = asked
            .iter()
            .map(|request| request["execute"].as_str().unwrap());
        names.map(str::to_owned).collect()
    }
}

const EXAMPLE: &str = include_str!("../../schema/examples/static.xml");

const HANG_UP: &str = "hang up";

fn returned(value: Value) -> String {
    format!("{{\"return\": {value}, \"id\": @ID}}\r\n")
}

fn refused(class: &str, desc: &str) -> String {
    format!("{{\"id\": @ID, \"error\": {{\"class\": \"{class}\", \"desc\": \"{desc}\"}}}}\r\n")
}

fn machine(command: &str, arguments: &Value) -> String {
    match command {
        "query-status" => returned(json!({ "status": "running", "running": true, "new-key": 1 })),
        "query-uuid" => returned(json!({ "UUID": "d96edc6f-10d8-4982-9c52-a32c1e3e9de5" })),
        "query-chardev" => returned(json!([
            { "label": "qmp", "filename": "unix:/x/qmp,server=on", "frontend-open": true },
            { "label": "agent", "filename": "disconnected:unix:/x/agent,server=on", "frontend-open": false },
        ])),
        "query-pci" => returned(json!([{ "bus": 0, "devices": [
            { "qdev_id": "standby", "class_info": { "class": 512 } },
            { "qdev_id": "", "class_info": { "class": 512 } },
            { "qdev_id": "rp1", "class_info": { "class": 1540 }, "pci_bridge": { "devices": [
                { "qdev_id": "vf0", "class_info": { "class": 512 } },
            ] } },
        ] }])),
        "qom-get" => match (
            arguments["path"].as_str().unwrap(),
            arguments["property"].as_str().unwrap(),
        ) {
            (path, "type") if path.ends_with("vf0") => returned(json!("igb")),
            (_, "type") => returned(json!("virtio-net-pci")),
            (path, "mac") if path.ends_with("vf0") => returned(json!("52:54:00:aa:00:02")),
            (_, "mac") => returned(json!("52:54:00:AA:00:01")),
            (_, "romfile") => returned(json!("")),
            (_, "netdev") => returned(json!("net0")),
            _ => refused("GenericError", "Property not found"),
        },
        _ => refused("CommandNotFound", "what?"),
    }
}

#[tokio::test]
async fn a_machine_is_described() {
    let fake = Fake::new(machine);
    let qemu = Qemu::new(&fake.socket(), Some(Path::new("/x/agent")));
    let facts = qemu.look("vm1").await.unwrap().facts;
    assert_eq!(facts.state, DomainState::Running);
    assert_eq!(facts.uuid, "d96edc6f-10d8-4982-9c52-a32c1e3e9de5");
    assert_eq!(facts.channel.unwrap().opened, Some(false));
    let aliases: Vec<&str> = facts.nics.iter().map(|nic| nic.alias.as_str()).collect();
    assert_eq!(aliases, ["standby", "vf0"]);
    let vf = &facts.nics[1];
    assert_eq!(
        (vf.kind, vf.mac),
        (NicKind::Interface, "52:54:00:aa:00:02".parse().ok())
    );
    let again: Value = serde_json::from_str(&vf.xml).unwrap();
    let wanted = json!({ "driver": "igb", "id": "vf0", "bus": "rp1", "mac": "52:54:00:aa:00:02",
        "netdev": "net0", "romfile": "" });
    assert_eq!(again, wanted);
    assert_eq!(
        qemu.look("vm2").await.unwrap().facts,
        DomainFacts::absent("vm2")
    );
    assert_eq!(qemu.active().await.unwrap()[0].name, "vm1");
}

#[tokio::test]
async fn a_process_that_is_gone_has_no_domain() {
    let fake = Fake::new(machine);
    let qemu = Qemu::new(&fake.folder.path().join("nowhere"), None);
    assert_eq!(
        qemu.look("vm1").await.unwrap().facts,
        DomainFacts::absent("vm1")
    );
    let error = qemu.active().await.unwrap_err();
    assert!(matches!(error, HostError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn devices_leave_and_arrive() {
    let fake = Fake::new(
        |command, arguments| match (command, arguments["id"].as_str()) {
            ("device_del", Some("gone")) => refused("DeviceNotFound", "Device 'gone' not found"),
            ("device_del", Some("slow")) => refused(
                "GenericError",
                "Device slow is already in the process of unplug",
            ),
            ("device_add", Some("bad")) => refused("GenericError", "Bus 'rp9' not found"),
            ("qom-list", _) if arguments["path"] == "/machine/peripheral/there" => {
                returned(json!([]))
            }
            ("qom-list", _) => refused("DeviceNotFound", "no"),
            _ => returned(json!({})),
        },
    );
    let qemu = fake.qemu();
    let nic = |alias: &str| Nic {
        alias: alias.to_owned(),
        mac: None,
        kind: NicKind::Interface,
        pci_source: None,
        xml: String::new(),
    };
    qemu.detach("vm1", &nic("vf0")).await.unwrap();
    qemu.detach("vm1", &nic("slow")).await.unwrap();
    let error = qemu.detach("vm1", &nic("gone")).await.unwrap_err();
    assert!(matches!(error, HostError::AlreadyGone { .. }), "{error}");
    let error = qemu.detach("vm2", &nic("vf0")).await.unwrap_err();
    assert!(matches!(error, HostError::NoSuchDomain { .. }), "{error}");

    let with_netdev = |id: &str| {
        json!({ "netdev": { "type": "tap", "id": "n1" }, "device": { "driver": "igb", "id": id } })
            .to_string()
    };
    qemu.attach("vm1", &with_netdev("vf0")).await.unwrap();
    let error = qemu.attach("vm1", &with_netdev("there")).await.unwrap_err();
    assert!(matches!(error, HostError::AlreadyThere { .. }), "{error}");
    fake.asked.lock().unwrap().clear();
    let error = qemu.attach("vm1", &with_netdev("bad")).await.unwrap_err();
    assert!(matches!(error, HostError::Refused { .. }), "{error}");
    assert_eq!(
        fake.commands(),
        ["qom-list", "netdev_add", "device_add", "netdev_del"]
    );
    for text in ["", "[]", "{}", "{\"driver\": \"igb\"}", "{\"device\": 1}"] {
        let error = qemu.attach("vm1", text).await.unwrap_err();
        assert!(
            matches!(error, HostError::Refused { .. }),
            "{text}: {error}"
        );
    }
    qemu.check_device(&with_netdev("vf0"), 1).await.unwrap();
    let missing = json!({ "driver": "vfio-pci", "id": "v", "host": "ffff:ff:1f.7" }).to_string();
    assert!(qemu.check_device(&missing, 1).await.is_err());
}

#[tokio::test]
async fn hostile_and_unknown_lines_harm_nobody() {
    let noise = [
        "{\"event\": \"FROM_THE_FUTURE\", \"data\": 7, \"timestamp\": {}}\r\n",
        "not json\r\n",
        "{\"return\": {\"wrong\": 1}, \"id\": 999}\r\n",
        "{\"return\": {\"wrong\": 1}}\r\n",
        "{\"event\": \"DEVICE_DELETED\", \"data\": {\"path\": \"/machine/unattached/device[22]\"}}\r\n",
        "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"vf0\", \"path\": \"/x\"}}\r\n",
        "\r\n",
    ]
    .concat();
    let fake =
        Fake::new(move |_, _| format!("{noise}{}", returned(json!({ "status": "inmigrate" }))));
    let qemu = fake.qemu();
    let mut events = qemu.events().await.unwrap();
    assert_eq!(events.next().await, Some(DomainEvent::lost()));
    let status = qemu.execute("query-status", json!({})).await.unwrap();
    assert_eq!(
        look::state(status["status"].as_str().unwrap()),
        DomainState::Incoming
    );
    assert_eq!(events.next().await, Some(DomainEvent::lost()));
    let removed = EventKind::DeviceRemoved {
        alias: "vf0".to_owned(),
    };
    assert_eq!(events.next().await.map(|event| event.kind), Some(removed));
}

#[tokio::test]
async fn an_endless_line_is_not_kept() {
    let fake =
        Fake::new(|_, _| format!("{}\n{}", "x".repeat(9 << 20), returned(json!({ "a": 1 }))));
    let answer = fake
        .qemu()
        .execute("query-status", json!({}))
        .await
        .unwrap();
    assert_eq!(answer, json!({ "a": 1 }));
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_anew() {
    let fake = Fake::new(|command, _| match command {
        "query-status" => HANG_UP.to_owned(),
        _ => returned(json!({ "UUID": "u" })),
    });
    let qemu = fake.qemu();
    let mut events = qemu.events().await.unwrap();
    assert_eq!(events.next().await, Some(DomainEvent::lost()));
    let error = qemu.look("vm1").await.unwrap_err();
    assert!(matches!(error, HostError::Unreachable { .. }), "{error}");
    assert_eq!(events.next().await, Some(DomainEvent::lost()));
    let uuid = qemu.execute("query-uuid", json!({})).await.unwrap();
    assert_eq!(uuid["UUID"], "u");
}

#[tokio::test]
async fn migrations_end_as_qemu_says() {
    let options = MigrateOptions {
        migrate_uri: Some("unix:/x/migrate".to_owned()),
        ..MigrateOptions::default()
    };
    for (status, wanted) in [("completed", 0), ("failed", 1), ("cancelled", 2)] {
        let fake = Fake::new(move |command, _| match command {
            "query-migrate" => returned(json!({ "status": status, "error-desc": "no memory" })),
            _ => returned(json!({})),
        });
        let qemu = fake.qemu();
        qemu.set_progress("vm1", Some("record")).await.unwrap();
        let bonds = Document::parse(EXAMPLE).unwrap().bonds;
        qemu.set_bonds("vm1", Some(&bonds)).await.unwrap();
        let there = fake.folder.path().join("there");
        let destination = format!("qmp:{},agent=/x/agent", there.display());
        let mut migration = qemu.migrate("vm1", &destination, &options).await.unwrap();
        let ended = match migration.finished().await {
            Ok(()) => 0,
            Err(HostError::MigrationFailed { reason, .. }) if reason == "no memory" => 1,
            Err(HostError::Cancelled { .. }) => 2,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(ended, wanted, "{status}");
        let there = Qemu::new(&there, None);
        let look = there.look("vm1").await.unwrap();
        assert_eq!(look.progress.as_deref(), Some("record"));
        assert_eq!(look.bonds, Ok(Some(bonds)));
        let error = qemu.cancel("vm1").await.unwrap_err();
        assert!(matches!(error, HostError::AlreadyGone { .. }), "{error}");
    }
    let fake = Fake::new(machine);
    let none = MigrateOptions::default();
    let error = fake
        .qemu()
        .migrate("vm1", "qmp:/x", &none)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--migrate-uri"), "{error}");
}

#[tokio::test]
async fn files_beside_the_socket_keep_bonds_and_progress() {
    let fake = Fake::new(machine);
    let qemu = fake.qemu();
    assert_eq!(qemu.look("vm1").await.unwrap().progress, None);
    qemu.set_progress("vm1", Some("{}")).await.unwrap();
    assert_eq!(
        qemu.look("vm1").await.unwrap().progress.as_deref(),
        Some("{}")
    );
    qemu.set_progress("vm1", None).await.unwrap();
    qemu.set_progress("vm1", None).await.unwrap();
    assert_eq!(qemu.look("vm1").await.unwrap().progress, None);
    let bonds = Document::parse(EXAMPLE).unwrap().bonds;
    qemu.set_bonds("vm1", Some(&bonds)).await.unwrap();
    assert_eq!(qemu.look("vm1").await.unwrap().bonds, Ok(Some(bonds)));
    std::fs::write(qemu.bonds_file(), "<bonds>").unwrap();
    let error = qemu.look("vm1").await.unwrap().bonds.unwrap_err();
    assert!(error.contains("line 1"), "{error}");
}

#[test]
fn jobs_are_read() {
    let job = look::job(
        &json!({ "status": "active", "total-time": 5, "expected-downtime": 300,
        "ram": { "total": 100, "remaining": 40, "mbps": 8.0, "dirty-pages-rate": 3, "page-size": 4096 } }),
    );
    assert_eq!(job.dirty_bytes_per_s, Some(12_288));
    assert_eq!(job.phase, JobPhase::PreCopy);
    assert_eq!(
        (job.memory_remaining_bytes, job.rate_bytes_per_s),
        (Some(40), Some(1_000_000))
    );
    let phase = |status: &str| look::job(&json!({ "status": status })).phase;
    assert_eq!(phase("device"), JobPhase::SwitchOver);
    assert_eq!(phase("postcopy-active"), JobPhase::PostCopy);
    assert_eq!(phase("from-the-future"), JobPhase::Other);
    assert_eq!(look::job(&json!({})).phase, JobPhase::None);
    assert_eq!(look::job(&json!([])).phase, JobPhase::None);
}

#[test]
fn events_mean_something_or_nothing() {
    let kind = |name: &str, data: Value| {
        connection::meaning(&QmpEvent {
            name: name.to_owned(),
            data,
        })
    };
    assert_eq!(kind("MIGRATION", json!({ "status": "active" })), None);
    assert_eq!(
        kind("MIGRATION", json!({ "status": "failed" })),
        Some(EventKind::JobFinished)
    );
    assert_eq!(kind("VSERPORT_CHANGE", json!({ "open": "yes" })), None);
    assert_eq!(kind("RESET", Value::Null), Some(EventKind::Reboot));
    assert_eq!(kind("DEVICE_DELETED", json!({ "device": 5 })), None);
    // qapi/qdev.json, QEMU 10.0; a device without a name is none that was asked for.
    let refused = json!({ "device": "vf", "path": "/machine/peripheral/vf" });
    let alias = "vf".to_owned();
    let wanted = Some(EventKind::UnplugRefused { alias });
    assert_eq!(kind("DEVICE_UNPLUG_GUEST_ERROR", refused), wanted);
    let nameless = json!({ "path": "/machine/unattached/device[7]" });
    assert_eq!(kind("DEVICE_UNPLUG_GUEST_ERROR", nameless), None);
}

#[test]
fn bridges_nest_without_recursion() {
    let mut devices = json!([{ "qdev_id": "vf", "class_info": { "class": 512 } }]);
    for level in 0..60 {
        devices = json!([{ "qdev_id": format!("b{level}"), "pci_bridge": { "devices": devices } }]);
    }
    let buses = json!([{ "devices": devices }]);
    let found = look::pci_devices(&buses);
    let nics: Vec<_> = found.iter().filter(|device| device.is_nic).collect();
    let vf = look::PciDevice {
        name: "vf",
        bridge: Some("b0"),
        is_nic: true,
    };
    assert_eq!(nics, [&vf]);
}
