//! Peers that don't read, ask for too much, or leave at the wrong moment.

use serde_json::{Value, json};
use tandem_core::input::{CommandId, Input};
use tandem_core::status::{CommandError, CommandErrorCode, Event, ProblemCode};
use tandem_guest::channel::{ChannelInput, MAX_CLIENTS};
use tokio::io::AsyncWriteExt;

use crate::harness::{Client, Harness, run};

fn event() -> Event {
    Event::ProblemCleared {
        bond: "bond0".parse().unwrap(),
        code: ProblemCode::Flapping,
    }
}

fn refusal() -> CommandError {
    CommandError {
        code: CommandErrorCode::TimedOut,
        message: "too late".to_owned(),
    }
}

async fn subscribe(harness: &mut Harness, client: &mut Client) {
    let reply = harness
        .ask(client, json!({ "execute": "tandem-subscribe" }))
        .await;
    assert_eq!(reply, json!({ "return": {} }));
}

#[test]
fn a_subscriber_that_does_not_read_loses_the_oldest_events_and_is_told_how_many() {
    const SENT: u64 = 20_000;
    run(async {
        let mut harness = Harness::new();
        let mut slow = harness.connect().await;
        let mut other = harness.connect().await;
        subscribe(&mut harness, &mut slow).await;
        for number in 0..SENT {
            harness.channel.notify(&event());
            if number % 50 == 0 {
                harness.assert_served(&mut other).await;
            }
        }
        let mut received = 0;
        let mut lost = 0;
        let mut reports = 0;
        while received + lost < SENT {
            let pushed = harness.drive(slow.receive()).await;
            if pushed["event"] == "events-lost" {
                lost += pushed["data"]["count"].as_u64().unwrap();
                reports += 1;
            } else {
                received += 1;
            }
        }
        assert_eq!(received + lost, SENT);
        assert!(
            lost > 0 && reports == 1,
            "{lost} lost, reported {reports} times"
        );
        harness.assert_served(&mut slow).await;
    });
}

#[test]
fn a_client_that_asks_and_does_not_read_is_no_longer_read_from() {
    run(async {
        let mut harness = Harness::new();
        let mut greedy = harness.connect().await;
        let mut other = harness.connect().await;
        let requests = harness.stall(&mut greedy, &mut other).await;
        assert!(requests > 100, "only {requests} requests were taken");
        for _ in 0..requests {
            let reply = harness.drive(greedy.receive()).await;
            assert!(reply["return"]["supported_commands"].is_array());
        }
        harness.drive(greedy.sync(1)).await;
    });
}

#[test]
fn the_number_of_clients_is_bounded_and_a_place_becomes_free() {
    run(async {
        let mut harness = Harness::new();
        let mut clients = Vec::new();
        for _ in 0..MAX_CLIENTS {
            let mut client = harness.connect().await;
            harness.assert_served(&mut client).await;
            clients.push(client);
        }
        let mut refused = harness.connect().await;
        let rest = harness.drive(refused.rest()).await;
        let reply: Value = serde_json::from_slice(&rest).unwrap();
        assert!(reply["error"]["desc"].as_str().unwrap().contains("limit"));

        let mut leaving = clients.swap_remove(3);
        leaving.writer.shutdown().await.unwrap();
        assert_eq!(harness.drive(leaving.rest()).await, b"");
        let mut next = harness.connect().await;
        harness.assert_served(&mut next).await;
        for client in &mut clients {
            harness.assert_served(client).await;
        }
    });
}

async fn open_command(harness: &mut Harness, client: &mut Client) -> CommandId {
    harness
        .drive(client.send(r#"{"execute":"tandem-announce"}"#))
        .await;
    match harness.input().await {
        ChannelInput::Input(Input::Command(command)) => command.id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn open_commands_of_a_client_are_bounded() {
    run(async {
        let mut harness = Harness::new();
        let mut client = harness.connect().await;
        let mut ids = Vec::new();
        for _ in 0..8 {
            ids.push(open_command(&mut harness, &mut client).await);
        }
        let ninth = harness
            .ask(
                &mut client,
                json!({ "execute": "tandem-announce", "id": 9 }),
            )
            .await;
        assert_eq!(ninth["error"]["code"], "busy");
        assert_eq!(ninth["id"], 9);
        assert_eq!(harness.inputs, []);

        harness.channel.reply(ids[4], Err(refusal()));
        assert_eq!(
            harness.drive(client.receive()).await["error"]["code"],
            "timed-out"
        );
        open_command(&mut harness, &mut client).await;
    });
}

#[test]
fn the_reply_to_a_client_that_left_goes_nowhere() {
    run(async {
        let mut harness = Harness::new();
        let mut other = harness.connect().await;
        for _ in 0..3 * MAX_CLIENTS {
            let mut client = harness.connect().await;
            let id = open_command(&mut harness, &mut client).await;
            drop(client);
            harness.assert_served(&mut other).await;
            harness.channel.reply(id, Err(refusal()));
            harness.assert_served(&mut other).await;
        }
    });
}

#[test]
fn a_client_that_only_stops_sending_still_gets_its_reply() {
    run(async {
        let mut harness = Harness::new();
        let mut client = harness.connect().await;
        let id = open_command(&mut harness, &mut client).await;
        client.writer.shutdown().await.unwrap();
        harness.channel.reply(id, Err(refusal()));
        let rest = harness.drive(client.rest()).await;
        let reply: Value = serde_json::from_slice(&rest).unwrap();
        assert_eq!(reply["error"]["code"], "timed-out");
    });
}

#[test]
fn commands_reach_the_service_exactly_once_however_often_next_is_dropped() {
    run(async {
        let mut harness = Harness::new();
        let mut client = harness.connect().await;
        for number in 0..200_u32 {
            let line = format!("{{\"execute\":\"tandem-announce\",\"id\":{number}}}\n");
            for piece in line.as_bytes().chunks(5) {
                // `drive` drops the future of `next` each time its own work is done.
                harness.drive(client.send_bytes(piece)).await;
            }
            let ChannelInput::Input(Input::Command(command)) = harness.input().await else {
                panic!("no command");
            };
            harness.channel.reply(command.id, Err(refusal()));
            assert_eq!(harness.drive(client.receive()).await["id"], number);
            assert_eq!(harness.inputs, []);
        }
    });
}
