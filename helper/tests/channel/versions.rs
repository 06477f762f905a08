//! Hosts of other versions: what earlier ones sent, and what a later one may send.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tandem_core::Policy;
use tandem_core::input::Input;
use tandem_core::policy::Origin;
use tandem_core::status::{Answer, Traffic};
use tandem_guest::channel::ChannelInput;
use tandem_guest::config::load_host_policy;
use tandem_wire::reply::Configured;

use crate::harness::{Client, Harness, run};

/// One folder for each version.
fn frozen() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/frozen");
    let versions = fs::read_dir(folder).unwrap();
    let versions: Vec<PathBuf> = versions.map(|entry| entry.unwrap().path()).collect();
    assert!(!versions.is_empty());
    versions
}

/// Sends a line, and has what it asks of the service done. Gives the reply, and the bonds that were handed over.
async fn ask(harness: &mut Harness, client: &mut Client, line: &str) -> (Value, Option<Policy>) {
    let mut policy = None;
    harness.drive(client.send(line)).await;
    let bytes = {
        let receive = client.receive_bytes();
        let mut receive = std::pin::pin!(receive);
        loop {
            tokio::select! {
                bytes = &mut receive => break bytes,
                input = harness.channel.next() => match input {
                    ChannelInput::Configure { id, policy: given } => {
                        given.validate().unwrap();
                        let bonds = given.bonds.iter().map(|bond| bond.name.clone()).collect();
                        let changed = true;
                        harness.channel.configured(id, Ok(Configured { bonds, changed }));
                        policy = Some(given);
                    }
                    ChannelInput::Input(Input::Command(command)) => {
                        let answer = Answer {
                            bond: "bond0".parse().unwrap(),
                            ready: true,
                            traffic: Traffic::Standby,
                            released: None,
                            released_pci: None,
                            done: Vec::new(),
                        };
                        harness.channel.reply(command.id, Ok(answer));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    };
    let reply = bytes.strip_prefix(b"\xff").unwrap_or(&bytes);
    (serde_json::from_slice(reply).unwrap(), policy)
}

#[test]
fn every_request_of_an_earlier_host_is_carried_out() {
    run(async {
        for version in frozen() {
            let mut harness = Harness::new();
            let mut client = harness.connect().await;
            let requests = fs::read_to_string(version.join("host.jsonl")).unwrap();
            let mut last = None;
            for line in requests.lines() {
                let request: Value = serde_json::from_str(line).unwrap();
                let (reply, policy) = ask(&mut harness, &mut client, line).await;
                assert!(reply["return"] != Value::Null, "{line}: {reply}");
                assert_eq!(reply["id"], request["id"]);
                assert_eq!(reply["ignored"], Value::Null, "{line}: {reply}");
                last = policy.or(last);
            }
            // It means what it meant.
            let kept = load_host_policy(&version.join("host-policy.json"));
            assert_eq!(kept.unwrap(), last, "{}", version.display());
        }
    });
}

const BOND: &str =
    r#"{"name":"bond0","standby":{"mac":"52:54:00:00:00:01"},"vfs":[{"mac":"52:54:00:00:00:02"}]"#;

#[test]
fn what_a_later_host_says_besides_is_passed_over_and_told() {
    run(async {
        let mut harness = Harness::new();
        let mut client = harness.connect().await;
        let line = format!(
            r#"{{"execute":"tandem-configure","trace":[1],"arguments":{{"colour":1,"bonds":[{BOND},"mood":{{"a":1}},"timing":
               {{"hold-ms":5,"new-ms":1}}}}]}},"id":1}}"#
        );
        let (reply, policy) = ask(&mut harness, &mut client, &line.replace('\n', "")).await;
        let ignored = json!([
            "trace",
            "arguments.colour",
            "arguments.bonds.0.mood",
            "arguments.bonds.0.timing.new-ms"
        ]);
        assert_eq!(reply["ignored"], ignored, "{reply}");
        assert_eq!(reply["return"]["changed"], true);
        let policy = policy.unwrap();
        assert_eq!(policy.origin, Origin::Host);
        assert_eq!(policy.bonds[0].timing.hold_ms, 5);
    });
}

#[test]
fn what_would_mean_something_else_without_its_unknown_part_is_refused() {
    run(async {
        let mut harness = Harness::new();
        let mut client = harness.connect().await;
        let plain = BOND.replace("bond0\",\"standby\":{", "bond0\",\"standby\":{\"slot\":1,");
        let configure =
            |bond: &str| format!(r#""tandem-configure","arguments":{{"bonds":[{bond}}}]}}"#);
        let route = r#"{"destination":{"ip":"0.0.0.0","prefix":0},"table":7}"#;
        for (request, named) in [
            (configure(&plain), "`slot`"),
            (
                configure(&format!(r#"{BOND},"path-check":"gateway""#)),
                "`gateway`",
            ),
            (
                configure(&format!(r#"{BOND},"ownership":"borrow""#)),
                "`borrow`",
            ),
            (
                configure(&format!(r#"{BOND},"addressing":"dhcp""#)),
                "`dhcp`",
            ),
            (
                configure(&format!(
                    r#"{BOND},"addressing":{{"static":{{"addresses":[],"routes":[{route}]}}}}"#
                )),
                "table`",
            ),
            (
                r#""tandem-prepare-unplug","arguments":{"slot":1}"#.to_owned(),
                "`slot`",
            ),
            (
                r#""tandem-failover","arguments":{"rehearse":true}"#.to_owned(),
                "`rehearse`",
            ),
            (r#""tandem-of-tomorrow""#.to_owned(), "tandem-of-tomorrow"),
        ] {
            let line = format!(r#"{{"execute":{request},"id":7}}"#);
            harness.drive(client.send(&line)).await;
            let reply = harness.drive(client.receive()).await;
            let desc = reply["error"]["desc"].as_str().unwrap_or_default();
            assert!(desc.contains(named), "{line}: {reply}");
            assert_eq!(reply["id"], 7, "{reply}");
            assert!(harness.inputs.is_empty(), "{line}");
        }
        harness.assert_served(&mut client).await;
    });
}

#[test]
fn a_version_of_the_messages_is_agreed_on() {
    run(async {
        let mut harness = Harness::new();
        let mut client = harness.connect().await;
        let info = |min: u32, max: u32| json!({ "execute": "guest-info", "arguments": { "protocols": { "min": min, "max": max } } });
        let plain = harness
            .ask(&mut client, json!({ "execute": "guest-info" }))
            .await;
        assert_eq!(plain["return"]["protocols"], json!({ "min": 1, "max": 1 }));
        assert_eq!(plain["return"]["features"], json!(["names-ignored-keys"]));
        let agreed = harness.ask(&mut client, info(1, 2)).await;
        assert_eq!(agreed["return"]["tandem-protocol"], 1, "{agreed}");
        let refused = harness.ask(&mut client, info(2, 3)).await;
        assert_eq!(refused["error"]["code"], "no-common-protocol");
        assert_eq!(
            refused["error"]["desc"],
            "the guest speaks version 1 of the messages, the host 2 to 3: update tandem in the guest"
        );
        harness.assert_served(&mut client).await;
    });
}
