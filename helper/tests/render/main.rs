//! The text for people, held against committed files. `UPDATE=1` rewrites them.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tandem_core::Status;
use tandem_core::input::RemovalStage;
use tandem_core::policy::HostMay;
use tandem_core::status::{Answer, BondState, BondStatus, Event};
use tandem_core::types::{Mac, Time};
use tandem_guest::render::{self, Style};
use tandem_wire::event::{EventMessage, Pushed, Timestamp};
use tandem_wire::reply::StatusReport;

const SECOND: u64 = 1_000_000;

fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/render")
        .join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{} differs; if the new text is meant, run this test with UPDATE=1:\n{text}",
        path.display()
    );
}

fn port(name: &str, last: u8, pci: &str, driver: &str) -> Value {
    json!({
        "name": name,
        "ifindex": last,
        "mac": format!("52:54:00:00:00:{last:02x}"),
        "pci": pci,
        "driver": driver,
        "enslaved": true,
        "active": false,
        "carrier": true,
        "held": null,
    })
}

fn with(mut value: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else {
        panic!("changes are an object");
    };
    value.as_object_mut().unwrap().extend(changes);
    value
}

fn quiet_bond() -> Value {
    json!({
        "name": "bond0",
        "ifindex": 4,
        "mac": "52:54:00:00:00:01",
        "state": "accelerated",
        "traffic": "vf",
        "reason": "the VF has held its carrier for 1 s",
        "standby": port("enp1s0", 1, "0000:01:00.0", "virtio_net"),
        "vf": with(port("enp129s0f0v1", 2, "0000:81:00.1", "igbvf"), json!({ "active": true })),
        "addresses": [
            { "ip": "192.0.2.10", "prefix": 24 },
            { "ip": "2001:db8::10", "prefix": 64 },
        ],
        "problems": [],
        "fast-path-armed": true,
        "next-deadline": null,
        "switchovers": [],
        "switchover-count": 0,
    })
}

fn switchover(number: u64, at: u64, from: &str, to: &str, cause: &str) -> Value {
    json!({
        "number": number,
        "at": at,
        "from": from,
        "to": to,
        "cause": cause,
        "took-us": 412,
        "lead-us": null,
        "warned-by": null,
    })
}

fn report(status: Value) -> StatusReport {
    StatusReport {
        tandem_protocol: 1,
        version: "0.1.0".to_owned(),
        now: Time(200_000 * SECOND),
        status: serde_json::from_value(status).unwrap(),
    }
}

fn busy_status() -> Value {
    let troubled = with(
        quiet_bond(),
        json!({
            "name": "storage0",
            "fast-path-armed": false,
            "mac": "52:54:00:00:00:03",
            "state": "standby",
            "traffic": "standby",
            "reason": "the VF refused its MAC; the standby carries the traffic",
            "standby": with(
                port("eth3", 3, "0000:00:03.0", "virtio_net"),
                json!({ "active": true }),
            ),
            "vf": with(
                port("eth9", 9, "0000:02:00.0", "igbvf"),
                json!({ "enslaved": false, "carrier": false, "held": "refused" }),
            ),
            "addresses": [],
            "next-deadline": 200_004 * SECOND - 1,
            "problems": [{
                "code": "mac-refused",
                "device": "eth9",
                "message": "its driver refused the MAC 52:54:00:00:00:03",
                "remedy": "give both NICs the same MAC on the host, or set mac = \"follow\"",
            }, {
                "code": "bonding-missing",
                "device": null,
                "message": "a name\u{1b}[2J that steers the terminal\n",
                "remedy": "none",
            }],
            "switchovers": [
                switchover(1, 1_000 * SECOND, "none", "vf", "arrival"),
                switchover(2, 100_000 * SECOND, "vf", "standby", "carrier"),
                switchover(3, 190_000 * SECOND, "standby", "vf", "arrival"),
                with(
                    switchover(4, 199_000 * SECOND, "vf", "standby", "warned"),
                    json!({
                        "lead-us": 5_003_127, "warned-by": "button-pressed", "reaction-us": 877,
                        "gap": {
                            "receive-us": 1_204, "transmit-us": null,
                            "late-frames": 3, "drain-us": 2_001,
                        },
                    }),
                ),
                switchover(5, 199_880 * SECOND, "standby", "vf", "operator"),
                with(
                    switchover(6, 199_881 * SECOND, "vf", "standby", "abrupt"),
                    json!({ "took-us": null }),
                ),
            ],
            "switchover-count": 12,
        }),
    );
    let waiting = with(
        quiet_bond(),
        json!({
            "name": "late0",
            "fast-path-armed": false,
            "ifindex": null,
            "mac": null,
            "state": "waiting",
            "traffic": "none",
            "reason": "no NIC matches the standby",
            "standby": null,
            "vf": null,
            "addresses": [],
            "switchovers": [switchover(1, 199_999 * SECOND, "vf", "none", "planned")],
            "switchover-count": 1,
        }),
    );
    let working = |source: &str, lost: u64| json!({ "source": source, "health": "working", "lost": lost, "parts": [] });
    json!({
        "generation": 7,
        "policy": "host",
        "problems": [{
            "code": "configuration-refused",
            "device": null,
            "message": "the configuration is refused and the previous one stays in effect: a.toml:3:1: unknown field `x`",
            "remedy": "correct the line that is named",
        }],
        "bonds": [quiet_bond(), troubled, waiting],
        "sources": [
            working("links", 1),
            working("addressing", 3),
            { "source": "udev", "health": { "missing": { "reason": "no udevd runs" } }, "lost": 0, "parts": [] },
            {
                "source": "ebpf",
                "health": "partial",
                "lost": 0,
                "parts": [
                    { "name": "button", "ok": true, "detail": "attached" },
                    { "name": "eject", "ok": false, "detail": "this kernel has no acpi_hotplug_schedule" },
                ],
            },
            {
                "source": "channel",
                "health": "working",
                "lost": 0,
                "parts": [{ "name": "org.tandem.agent.0", "ok": true, "detail": "the host has it open" }],
            },
        ],
    })
}

#[test]
fn a_status_with_everything_in_it() {
    let report = report(busy_status());
    assert_golden(
        "status.txt",
        &render::status(&report, &BTreeMap::new(), Style::Plain),
    );
}

#[test]
fn a_status_without_a_bond() {
    let report = report(serde_json::to_value(Status::default()).unwrap());
    assert_golden(
        "status-empty.txt",
        &render::status(&report, &BTreeMap::new(), Style::Plain),
    );
}

#[test]
fn a_backup_vf_has_a_line_and_the_fast_path_leads_to_it_once_it_is_ready() {
    for (held, shown, next) in [
        ("backup", "ready to take over", "the backup VF"),
        (
            "unchecked",
            "its path is checked once the standby carries the traffic",
            "the standby",
        ),
    ] {
        let backup = port("enp130s0f0v1", 3, "0000:82:00.1", "igbvf");
        let backup = with(backup, json!({ "held": held }));
        let bond = with(quiet_bond(), json!({ "backup-vfs": [backup] }));
        let status = with(busy_status(), json!({ "bonds": [bond] }));
        let text = render::status(&report(status), &BTreeMap::new(), Style::Plain);
        let line = |name: &str| {
            let mut lines = text.lines().map(str::trim_start);
            lines.find(|line| line.starts_with(name)).unwrap()
        };
        assert!(line("backup VF enp130s0f0v1").ends_with(shown), "{text}");
        assert!(line("fast path").ends_with(next), "{text}");
    }
}

#[test]
fn colours_change_nothing_but_colours() {
    let report = report(busy_status());
    let coloured = render::status(&report, &BTreeMap::new(), Style::Coloured);
    assert!(coloured.contains("\u{1b}[32maccelerated\u{1b}[0m"));
    let mut plain = coloured;
    for sequence in ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[0m"] {
        plain = plain.replace(sequence, "");
    }
    assert_eq!(
        plain,
        render::status(&report, &BTreeMap::new(), Style::Plain)
    );
}

#[test]
fn what_the_host_may_not_do_is_shown() {
    for (may, shown) in [
        (HostMay::None, ", the host may only ask\n"),
        (HostMay::Commands, ", the host may not define bonds\n"),
        (HostMay::Bonds, "configured by the host\n"),
    ] {
        let mut report = report(busy_status());
        report.status.host_may = may;
        let text = render::status(&report, &BTreeMap::new(), Style::Plain);
        let first = text.split_inclusive('\n').next().unwrap();
        assert!(first.ends_with(shown), "{first}");
    }
}

#[test]
fn every_state_of_a_bond_has_words_of_its_own() {
    let states = [
        BondState::Waiting,
        BondState::Assembling,
        BondState::Accelerated,
        BondState::Standby,
        BondState::SwitchingOver,
        BondState::Unprotected,
        BondState::Down,
        BondState::Blocked,
    ];
    let mut texts: Vec<String> = states
        .into_iter()
        .map(|state| {
            let mut report = report(busy_status());
            let bond: &mut BondStatus = &mut report.status.bonds[0];
            bond.state = state;
            render::status(&report, &BTreeMap::new(), Style::Plain)
        })
        .collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), states.len());
}

#[test]
fn events_as_lines() {
    let events = [
        json!({ "event": "state-changed", "data": {
            "bond": "bond0", "state": "switching-over", "traffic": "vf", "reason": "the host wants to unplug enp2s0",
        }}),
        json!({ "event": "switched-over", "data": {
            "bond": "bond0", "switchover": switchover(3, 0, "vf", "standby", "planned"),
        }}),
        json!({ "event": "removal-expected", "data": {
            "bond": "bond0", "vf": "enp2s0", "stage": "eject-requested", "at": 1,
        }}),
        json!({ "event": "problem-raised", "data": { "bond": "bond0", "problem": {
            "code": "standby-no-carrier", "device": "enp1s0", "message": "no carrier", "remedy": "connect it",
        }}}),
        json!({ "event": "problem-cleared", "data": { "bond": "bond0", "code": "standby-no-carrier" }}),
        json!({ "event": "events-lost", "data": { "count": 8 }}),
    ];
    let mut text = String::new();
    for (number, event) in events.into_iter().enumerate() {
        let at = json!({ "seconds": 1_764_547_199 + number, "microseconds": 999_999 });
        let message: EventMessage =
            serde_json::from_value(with(event, json!({ "timestamp": at }))).unwrap();
        text += &render::event(&message);
    }
    for (lead_us, warned_by) in [
        (Some(83_512), Some(RemovalStage::EjectRequested)),
        (None, None),
    ] {
        text += &render::event(&EventMessage {
            event: Pushed::Bond(Event::VfRemoved {
                bond: "bond0".parse().unwrap(),
                mac: lead_us.map(|_| Mac([2, 0, 0, 0, 0, 1])),
                lead_us,
                warned_by,
            }),
            timestamp: Timestamp::default(),
        });
    }
    assert_golden("events.txt", &text);
}

#[test]
fn answers_say_what_was_done() {
    let ready: Answer = serde_json::from_value(json!({
        "bond": "bond0",
        "ready": true,
        "traffic": "standby",
        "released": "52:54:00:00:00:02",
        "released-pci": "0000:02:00.0",
        "done": ["moved the traffic to enp1s0", "released enp2s0"],
    }))
    .unwrap();
    let waiting = Answer {
        ready: false,
        released: None,
        released_pci: None,
        done: Vec::new(),
        ..ready.clone()
    };
    let text = render::answer(&ready) + &render::answer(&waiting);
    assert_golden("answers.txt", &text);
}
