//! Every command, as a client sees it and as the service sees it.

use serde_json::{Value, json};
use tandem_core::Status;
use tandem_core::input::{CommandId, Input, Request};
use tandem_core::policy::Origin;
use tandem_core::status::{Answer, CommandError, CommandErrorCode, Event, ProblemCode, Traffic};
use tandem_core::types::Mac;
use tandem_guest::channel::ChannelInput;
use tandem_wire::Call;
use tandem_wire::reply::{ConfigureError, ConfigureErrorCode, Configured};

use crate::harness::{Harness, run};

fn answer() -> Answer {
    Answer {
        bond: "bond0".parse().unwrap(),
        ready: true,
        traffic: Traffic::Standby,
        released: Some(Mac([2, 0, 0, 0, 0, 9])),
        released_pci: None,
        done: vec!["moved the traffic to eth0".to_owned()],
    }
}

fn status(generation: u64, policy: Origin) -> Status {
    Status {
        generation,
        policy,
        ..Status::default()
    }
}

fn command(input: ChannelInput) -> (CommandId, Request) {
    match input {
        ChannelInput::Input(Input::Command(command)) => {
            assert!(!command.by_host, "the local socket is not the host's");
            (command.id, command.request)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_commands_of_qga_are_answered() {
    run(async {
        let mut harness = Harness::new();
        let mut client = harness.connect().await;
        let sync = json!({ "execute": "guest-sync", "arguments": { "id": -3 } });
        assert_eq!(
            harness.ask(&mut client, sync).await,
            json!({ "return": -3 })
        );
        let ping = json!({ "execute": "guest-ping", "id": "a" });
        assert_eq!(
            harness.ask(&mut client, ping).await,
            json!({ "return": {}, "id": "a" })
        );
        let info = harness
            .ask(&mut client, json!({ "execute": "guest-info" }))
            .await;
        assert_eq!(info["return"]["tandem-protocol"], 1);
        let listed: Vec<&str> = info["return"]["supported_commands"]
            .as_array()
            .unwrap()
            .iter()
            .map(|command| command["name"].as_str().unwrap())
            .collect();
        assert_eq!(listed, Call::NAMES);
        client.send_bytes(b"half of an old line").await;
        harness.drive(client.sync(77)).await;
        assert_eq!(harness.inputs, []);
    });
}

#[test]
fn unknown_commands_and_arguments_are_refused() {
    run(async {
        let mut harness = Harness::new();
        let mut client = harness.connect().await;
        let reply = harness
            .ask(&mut client, json!({ "execute": "guest-exec", "id": 1 }))
            .await;
        assert_eq!(reply["error"]["class"], "CommandNotFound");
        assert_eq!(reply["id"], 1);
        let wrong = json!({ "execute": "guest-ping", "arguments": { "loud": true } });
        let reply = harness.ask(&mut client, wrong).await;
        assert_eq!(reply["error"]["class"], "GenericError");
        assert!(reply["error"]["desc"].as_str().unwrap().contains("`loud`"));
    });
}

#[test]
fn the_status_is_the_published_one_and_the_same_within_a_generation() {
    run(async {
        let mut harness = Harness::new();
        let mut client = harness.connect().await;
        let ask = || json!({ "execute": "tandem-status" });
        let before = harness.ask(&mut client, ask()).await;
        assert_eq!(before["return"]["status"], json!(Status::default()));

        harness.channel.publish(&status(0, Origin::File));
        let first = harness.ask(&mut client, ask()).await;
        assert_eq!(first["return"]["status"], json!(status(0, Origin::File)));
        assert_eq!(first["return"]["tandem-protocol"], 1);
        assert!(first["return"]["now"].as_u64().unwrap() > 0);

        harness.channel.publish(&status(0, Origin::Host));
        let same = harness.ask(&mut client, ask()).await;
        assert_eq!(same["return"]["status"], first["return"]["status"]);

        harness.channel.publish(&status(1, Origin::Host));
        let next = harness.ask(&mut client, ask()).await;
        assert_eq!(next["return"]["status"], json!(status(1, Origin::Host)));
    });
}

#[test]
fn commands_of_the_machine_are_passed_on_and_answered() {
    let bond = Some("bond0".parse().unwrap());
    let cases = [
        (
            json!({ "execute": "tandem-prepare-unplug", "arguments": { "vf": "02:00:00:00:00:09" } }),
            Request::PrepareUnplug {
                bond: None,
                vf: Some(Mac([2, 0, 0, 0, 0, 9])),
            },
        ),
        (
            json!({ "execute": "tandem-resume", "arguments": { "bond": "bond0" } }),
            Request::Resume { bond: bond.clone() },
        ),
        (
            json!({ "execute": "tandem-announce" }),
            Request::Announce { bond: None },
        ),
        (
            json!({ "execute": "tandem-failover", "arguments": {} }),
            Request::Failover { bond: None },
        ),
        (
            json!({ "execute": "tandem-failback", "arguments": { "bond": "bond0" } }),
            Request::Failback { bond },
        ),
    ];
    run(async {
        let mut harness = Harness::new();
        let mut client = harness.connect().await;
        for (request, expected) in cases {
            harness.drive(client.send(&request.to_string())).await;
            let (id, request) = command(harness.input().await);
            assert_eq!(request, expected);
            harness.channel.reply(id, Ok(answer()));
            let reply = harness.drive(client.receive()).await;
            assert_eq!(reply, json!({ "return": answer() }));
        }
    });
}

#[test]
fn open_commands_are_answered_in_any_order_and_errors_keep_their_code() {
    run(async {
        let mut harness = Harness::new();
        let mut client = harness.connect().await;
        for id in ["first", "second"] {
            let request = json!({ "execute": "tandem-announce", "id": id });
            harness.drive(client.send(&request.to_string())).await;
        }
        let (first, _) = command(harness.input().await);
        let (second, _) = command(harness.input().await);
        assert_ne!(first, second);
        harness.channel.reply(second, Ok(answer()));
        harness.channel.reply(
            first,
            Err(CommandError {
                code: CommandErrorCode::UnknownBond,
                message: "there is no bond `x`".to_owned(),
            }),
        );
        let reply = harness.drive(client.receive()).await;
        assert_eq!(reply["id"], "second");
        let reply = harness.drive(client.receive()).await;
        assert_eq!(
            reply,
            json!({
                "error": { "class": "GenericError", "desc": "there is no bond `x`", "code": "unknown-bond" },
                "id": "first",
            })
        );
        harness.channel.reply(first, Ok(answer()));
        harness.assert_served(&mut client).await;
    });
}

fn configure(bonds: &[&str]) -> Value {
    let bonds: Vec<Value> = bonds
        .iter()
        .map(|name| json!({ "name": name, "standby": { "mac": "52:54:00:00:00:01" }, "vfs": [] }))
        .collect();
    json!({ "execute": "tandem-configure", "arguments": { "origin": "file", "bonds": bonds } })
}

#[test]
fn a_configuration_is_passed_on_as_the_hosts_and_answered() {
    run(async {
        let mut harness = Harness::new();
        let mut client = harness.connect().await;
        for accepted in [true, false] {
            harness
                .drive(client.send(&configure(&["bond7"]).to_string()))
                .await;
            let ChannelInput::Configure { id, policy } = harness.input().await else {
                panic!("the configuration is not passed on");
            };
            assert_eq!(policy.origin, Origin::Host, "whatever the host says");
            let bonds = vec![policy.bonds[0].name.clone()];
            let (result, expected) = if accepted {
                let configured = Configured {
                    bonds,
                    changed: true,
                };
                let expected = json!({ "return": configured });
                (Ok(configured), expected)
            } else {
                let error = ConfigureError {
                    code: ConfigureErrorCode::NotAllowed,
                    message: "host-may is \"commands\"".to_owned(),
                };
                let expected = json!({ "error": {
                    "class": "GenericError",
                    "desc": "host-may is \"commands\"",
                    "code": "not-allowed",
                }});
                (Err(error), expected)
            };
            harness.channel.configured(id, result);
            assert_eq!(harness.drive(client.receive()).await, expected);
        }
    });
}

#[test]
fn events_go_to_those_who_subscribed_until_they_unsubscribe() {
    let event = Event::ProblemCleared {
        bond: "bond0".parse().unwrap(),
        code: ProblemCode::Flapping,
    };
    run(async {
        let mut harness = Harness::new();
        let mut other = harness.connect().await;
        let mut client = harness.connect().await;
        harness.assert_served(&mut other).await;
        let subscribe = json!({ "execute": "tandem-subscribe" });
        assert_eq!(
            harness.ask(&mut client, subscribe).await,
            json!({ "return": {} })
        );
        harness.channel.notify(&event);
        let pushed = harness.drive(client.receive()).await;
        assert_eq!(pushed["event"], "problem-cleared");
        assert_eq!(
            pushed["data"],
            json!({ "bond": "bond0", "code": "flapping" })
        );
        assert!(pushed["timestamp"]["seconds"].as_i64().unwrap() > 0);
        harness.assert_served(&mut other).await;

        let unsubscribe = json!({ "execute": "tandem-unsubscribe" });
        assert_eq!(
            harness.ask(&mut client, unsubscribe).await,
            json!({ "return": {} })
        );
        harness.channel.notify(&event);
        harness.assert_served(&mut client).await;
    });
}
