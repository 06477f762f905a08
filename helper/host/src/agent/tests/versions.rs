//! Guests of other versions: what earlier ones said, and what a later one may say.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tandem_core::Policy;
use tandem_core::policy::{HostMay, Origin};
use tandem_core::status::{
    BondState, Held, ProblemCode, SourceHealth, Status, SwitchoverCause, Traffic,
};
use tandem_wire::from_guest::{FromGuest, content};
use tandem_wire::reply::{Configured, Empty, GuestInfo, StatusReport};
use tandem_wire::{PROTOCOLS, Protocols};

use super::*;
use crate::execute::guest::status_of;

/// One folder for each version.
fn frozen() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/frozen");
    let versions = fs::read_dir(folder).unwrap();
    let versions: Vec<PathBuf> = versions.map(|entry| entry.unwrap().path()).collect();
    assert!(!versions.is_empty());
    versions
}

/// What a guest of that version answered: commands and lines.
fn answers(version: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(version.join("guest.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let (command, line) = line.split_once(' ').unwrap();
        (command.to_owned(), line.to_owned())
    });
    lines.collect()
}

/// Reads what was returned, and writes it again: nothing of it may be lost or be taken for something unknown.
fn again<T: serde::Serialize + serde::de::DeserializeOwned>(value: &str, line: &str) {
    let raw = serde_json::value::RawValue::from_string(value.to_owned()).unwrap();
    let read: T = content("a command", &raw).unwrap();
    let written = serde_json::to_value(read).unwrap();
    assert_eq!(
        written,
        serde_json::from_str::<Value>(value).unwrap(),
        "{line}"
    );
    assert!(!written.to_string().contains("\"unknown\""), "{line}");
}

#[test]
fn every_answer_and_event_of_an_earlier_guest_is_understood() {
    for version in frozen() {
        for (command, line) in answers(&version) {
            match FromGuest::parse(&line).unwrap() {
                FromGuest::Return { value, ignored, .. } => {
                    assert_eq!(ignored, Vec::<String>::new());
                    let value = value.get();
                    match command.as_str() {
                        "guest-info" => {
                            let info: GuestInfo = serde_json::from_str(value).unwrap();
                            assert_eq!(info.highest_common(PROTOCOLS), Ok(1));
                        }
                        "guest-ping" | "tandem-subscribe" => again::<Empty>(value, &line),
                        "tandem-status" => again::<StatusReport>(value, &line),
                        "tandem-configure" => again::<Configured>(value, &line),
                        _ => again::<Answer>(value, &line),
                    }
                }
                FromGuest::Error { error, .. } => {
                    let known = match command.as_str() {
                        "tandem-configure" => error.configure_code().is_some(),
                        _ => error.command_code().is_some(),
                    };
                    assert!(known, "{line}");
                }
                other => panic!("{other:?}"),
            }
        }
        let events = fs::read_to_string(version.join("events.jsonl")).unwrap();
        for line in events.lines() {
            let Ok(FromGuest::Event(event)) = FromGuest::parse(line) else {
                panic!("{line}");
            };
            let written = serde_json::to_value(&event).unwrap();
            assert_eq!(written, serde_json::from_str::<Value>(line).unwrap());
            assert!(!written.to_string().contains("\"unknown\""), "{line}");
        }
    }
}

fn policy() -> Policy {
    let policy = json!({ "bonds": [{ "name": "bond0", "standby": { "mac": "52:54:00:12:34:01" },
        "vfs": [{ "mac": "52:54:00:12:34:02" }], "timing": { "hold-ms": 500 } }] });
    serde_json::from_value(policy).unwrap()
}

#[tokio::test]
async fn a_whole_dialogue_with_an_earlier_guest() {
    for version in frozen() {
        let answers = answers(&version);
        let guest = guest(move |stream| {
            serve(stream, move |command, id| {
                // Commands that return the same have one line.
                let command = match command {
                    "tandem-resume" | "tandem-announce" => "tandem-prepare-unplug",
                    other => other,
                };
                let mut lines = answers.iter();
                let (_, line) = lines.find(|(name, _)| name == command).unwrap();
                line.replace("\"id\":4}", &format!("\"id\":{id}}}\n"))
                    .into_bytes()
            })
        });
        let mut agent = Agent::connect(&guest.socket, PATIENT).await.unwrap();
        assert_eq!(agent.info().await.unwrap().tandem_protocol, 1);
        let (configured, lacks) = agent.configure(policy()).await.unwrap();
        assert!(configured.changed && lacks.is_none());
        assert!(agent.prepare_unplug(None, None).await.unwrap().ready);
        assert!(agent.resume(None).await.unwrap().ready);
        agent.subscribe().await.unwrap();
        let status = agent.status().await.unwrap().status;
        assert_eq!(status.host_may, HostMay::Bonds);
        let bond = "bond1".parse().unwrap();
        assert!(status_of(&status, Some(&bond)).vf_active);
        // A later host.
        let range = |min, max| Protocols { min, max };
        let info = agent.info_as(range(1, 2)).await.unwrap();
        assert_eq!(info.tandem_protocol, 1);
        let error = agent.info_as(range(2, 3)).await.unwrap_err().to_string();
        assert!(
            error.contains("version 1 of the messages, the host 2 to 3"),
            "{error}"
        );
        assert!(error.ends_with("update tandem in the guest"), "{error}");
    }
}

/// A status in which everything that has a name has one of tomorrow.
fn status_of_tomorrow() -> Value {
    let new = "of-tomorrow";
    let switchover = json!({ "number": 1, "at": 1, "from": new, "to": new, "cause": new, "took-us": null,
        "lead-us": null, "warned-by": new, "reaction-us": null, "gap": { "new": 1, "receive-us": null,
        "transmit-us": 5, "late-frames": 0, "drain-us": null } });
    let port = json!({ "name": "eth1", "ifindex": 3, "mac": null, "pci": null, "driver": null, "enslaved": true,
        "active": true, "carrier": true, "held": new, "colour": 1 });
    let problem = json!({ "code": new, "device": null, "message": "m", "remedy": "r", "since": 1 });
    let bond = json!({ "name": "bond0", "ifindex": 5, "mac": null, "state": new, "traffic": new, "reason": "why",
        "standby": port, "vf": port, "addresses": [{ "ip": "192.0.2.1", "prefix": 24, "scope": 1 }],
        "problems": [problem], "next-deadline": null, "switchovers": [switchover], "switchover-count": 1,
        "mood": {} });
    let sources = json!([
        { "source": new, "health": new, "lost": 0, "parts": [] },
        { "source": "udev", "health": { "half": { "reason": 1 } }, "lost": 0, "parts": [] },
    ]);
    json!({ "tandem-protocol": 1, "version": "9", "now": 1, "new": 1, "status": { "generation": 1, "policy": new,
        "host-may": new, "problems": [problem], "bonds": [bond], "sources": sources, "new": [] } })
}

#[tokio::test]
async fn a_later_guest_is_asked_and_what_it_says_is_unknown_and_nothing_else() {
    let guest = guest(|stream| {
        serve(stream, |command, id| {
            let value = match command {
                "guest-info" => {
                    json!({ "version": "9", "tandem-protocol": 1, "protocols": { "min": 1, "max": 2 },
                    "features": ["x"], "supported_commands": [], "new": 1 })
                }
                "tandem-status" => status_of_tomorrow(),
                "tandem-configure" => {
                    let ignored = json!(["arguments.bonds.0.x\u{1b}[2J"]);
                    let line = json!({ "return": { "bonds": ["bond0"], "changed": true, "new": 1 }, "new": 1,
                        "ignored": ignored, "id": id.parse::<u64>().unwrap() });
                    return format!("{line}\n").into_bytes();
                }
                "tandem-resume" => {
                    let error = json!({ "class": "Tomorrow", "desc": "no", "code": "of-tomorrow", "new": 1 });
                    return format!("{{\"error\":{error},\"id\":{id}}}\n").into_bytes();
                }
                _ => {
                    json!({ "bond": "bond0", "ready": true, "traffic": "of-tomorrow", "released": null,
                    "released-pci": null, "done": [], "new": 1 })
                }
            };
            format!(
                "{{\"event\":\"state-changed\",\"timestamp\":{{\"seconds\":1,\"microseconds\":2}},\"data\":{{\
                 \"bond\":\"bond0\",\"state\":\"of-tomorrow\",\"traffic\":\"vf\",\"reason\":\"r\"}}}}\n\
                 {{\"return\":{value},\"new\":1,\"id\":{id}}}\n"
            )
            .into_bytes()
        })
    });
    let mut agent = Agent::connect(&guest.socket, PATIENT).await.unwrap();
    assert_eq!(agent.info().await.unwrap().tandem_protocol, 1);
    assert!(matches!(agent.next_event().await, Ok(Heard::Event(_))));
    let (_, lacks) = agent.configure(policy()).await.unwrap();
    let lacks = lacks.unwrap();
    assert!(
        lacks.contains("arguments.bonds.0.x") && !lacks.contains('\u{1b}'),
        "{lacks:?}"
    );
    assert_eq!(
        agent.prepare_unplug(None, None).await.unwrap().traffic,
        Traffic::Unknown
    );
    let error = agent.resume(None).await.unwrap_err();
    assert!(matches!(error, AgentError::Refused { .. }), "{error}");
    let Status {
        policy,
        host_may,
        problems,
        bonds,
        sources,
        ..
    } = agent.status().await.unwrap().status;
    assert_eq!((policy, host_may), (Origin::Unknown, HostMay::Unknown));
    assert_eq!(problems[0].code, ProblemCode::Unknown);
    let bond = &bonds[0];
    assert_eq!(
        (bond.state, bond.traffic),
        (BondState::Unknown, Traffic::Unknown)
    );
    assert_eq!(bond.vf.as_ref().unwrap().held, Some(Held::Unknown));
    assert_eq!(bond.switchovers[0].cause, SwitchoverCause::Unknown);
    assert!(
        sources
            .iter()
            .all(|source| source.health == SourceHealth::Unknown)
    );
    // Nothing is made of it: the VF is not taken for one that carries the traffic.
    let status = Status {
        bonds,
        ..Status::default()
    };
    assert!(!status_of(&status, None).vf_active);
    assert!(!host_may.allows_commands());
}

#[tokio::test]
async fn a_version_of_the_messages_is_agreed_on_or_both_are_named() {
    let guest = guest(|stream| {
        let mut asked = 0;
        serve(stream, move |_, id| {
            asked += 1;
            // Asked with the host's range, it speaks the highest; it did not read it, but its like does.
            let spoken = if asked == 2 { 3 } else { 2 };
            format!(
                "{{\"return\":{{\"version\":\"9\",\"tandem-protocol\":{spoken},\"protocols\":{{\"min\":2,\"max\":4}},\
                 \"features\":[],\"supported_commands\":[]}},\"id\":{id}}}\n"
            )
            .into_bytes()
        })
    });
    let mut agent = Agent::connect(&guest.socket, PATIENT).await.unwrap();
    let info = agent.info_as(Protocols { min: 1, max: 3 }).await.unwrap();
    assert_eq!(info.tandem_protocol, 3);
    let error = agent.info().await.unwrap_err().to_string();
    assert!(
        error.contains("version 2 to 4 of the messages, the host 1"),
        "{error}"
    );
    assert!(error.ends_with("update tandem-host on the host"), "{error}");
}
