//! Peers that send what they should not. After each of it the same client is
//! served when it resynchronises, and another one never notices.

use proptest::prelude::*;
use serde_json::Value;

use crate::harness::{Harness, run};

/// Sends it, expects that many error replies, and serves both clients afterwards.
fn survive(bytes: &[u8], errors: usize) {
    run(async {
        let mut harness = Harness::new();
        let mut other = harness.connect().await;
        let mut client = harness.connect().await;
        let replies = harness
            .drive(async {
                client.send_bytes(bytes).await;
                let mut replies: Vec<Value> = Vec::new();
                for _ in 0..errors {
                    replies.push(client.receive().await);
                }
                client.sync(5).await;
                replies
            })
            .await;
        for reply in &replies {
            assert_eq!(reply["error"]["class"], "GenericError", "{reply}");
        }
        harness.assert_served(&mut client).await;
        harness.assert_served(&mut other).await;
        assert_eq!(harness.inputs, [], "nothing of it reaches the service");
    });
}

#[test]
fn a_line_of_one_mib_costs_one_error() {
    let mut bytes = vec![b'x'; 1 << 20];
    bytes.push(b'\n');
    survive(&bytes, 1);
}

#[test]
fn a_line_of_one_mib_without_an_end_costs_one_error() {
    survive(&[b' '; 1 << 20], 1);
}

#[test]
fn invalid_utf8_costs_one_error() {
    survive(b"{\"execute\":\"guest-\xc3\x28\"}\n", 1);
}

#[test]
fn json_nested_10000_deep_costs_one_error() {
    for (open, close) in [
        ("[", "]"),
        (r#"{"execute":"#, "}"),
        (r#"{"arguments":"#, ""),
    ] {
        let line = format!("{}1{}\n", open.repeat(10_000), close.repeat(10_000));
        survive(line.as_bytes(), 1);
    }
}

#[test]
fn deep_arguments_of_a_known_command_cost_one_error() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for command in ["guest-ping", "tandem-configure", "tandem-failover"] {
        let line = format!("{{\"execute\":\"{command}\",\"arguments\":{{\"bonds\":{deep}}}}}\n");
        survive(line.as_bytes(), 1);
    }
}

#[test]
fn half_a_message_is_forgotten_at_the_sentinel() {
    let whole = br#"{"execute":"tandem-failover","arguments":{"bond":"bond0"}}"#;
    for cut in 0..whole.len() {
        survive(&whole[..cut], 0);
    }
}

#[test]
fn blank_lines_are_passed_over() {
    survive(b"\n\r\n   \n\xff\xff\n\n", 0);
}

#[test]
fn many_bad_lines_get_an_error_each() {
    survive("{\"execute\":7}\n".repeat(3000).as_bytes(), 3000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..20_000)) {
        let sent = bytes;
        run(async {
            let mut harness = Harness::new();
            let mut client = harness.connect().await;
            harness.drive(async {
                client.send_bytes(&sent).await;
                client.sync(6).await;
            }).await;
            harness.assert_served(&mut client).await;
            assert_eq!(harness.inputs, []);
        });
    }
}
