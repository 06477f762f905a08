//! What a newer or older side may say.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use serde_json::{Value, json};
use tandem_core::policy::{AddressingPolicy, PathCheck};
use tandem_core::status::{SourceHealth, SourceStatus};
use tandem_wire::from_guest::FromGuest;
use tandem_wire::message::{Call, ReplyTo, RequestLine};
use tandem_wire::reply::{Empty, ReturnLine};
use tandem_wire::{Protocols, agree};

fn call(line: &str) -> Call {
    RequestLine::parse(line).unwrap().call
}

#[test]
fn of_a_policy_only_what_is_not_the_default_is_written() {
    let bond = r#"{"name":"b","standby":{"mac":"52:54:00:00:00:01"},"vfs":[]}"#;
    let timed = r#"{"name":"c","standby":{"mac":"52:54:00:00:00:02"},"vfs":[],"mtu":1500,"timing":{"hold-ms":5}}"#;
    let line =
        format!(r#"{{"execute":"tandem-configure","arguments":{{"bonds":[{bond},{timed}]}}}}"#);
    let call = call(&line);
    let written = RequestLine { call, id: None }.to_line();
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(&line).unwrap());
}

/// An older guest takes these for keys that are not written: who changes one has to raise the version of the
/// messages.
#[test]
fn defaults_are_what_they_were() {
    let bond = r#"{"name":"b","standby":{"mac":"52:54:00:00:00:01"},"vfs":[]}"#;
    let call = call(&format!(
        r#"{{"execute":"tandem-configure","arguments":{{"bonds":[{bond}]}}}}"#
    ));
    let Call::TandemConfigure(policy) = call else {
        panic!("{call:?}");
    };
    let mut bond = serde_json::to_value(&policy.bonds[0]).unwrap();
    for key in ["name", "standby", "vfs"] {
        bond.as_object_mut().unwrap().remove(key);
    }
    let timing = json!({
        "miimon-ms": 100, "hold-ms": 1000, "hold-max-ms": 60000, "settle-ms": 250,
        "removal-timeout-ms": 15000, "prepared-timeout-ms": 120_000, "command-timeout-ms": 10000,
        "announcements": 3, "announcement-interval-ms": 100
    });
    let defaults = json!({
        "mac": "standby", "ownership": "create", "mtu": null,
        "timing": timing
    });
    // Not written, so that a guest that does not know it yet uses its own default.
    assert_eq!(policy.bonds[0].addressing, AddressingPolicy::Auto);
    assert_eq!(policy.bonds[0].path_check, PathCheck::Auto);
    assert_eq!(bond, defaults);
}

#[test]
fn keys_that_are_passed_over_are_named_and_few() {
    let many: Vec<String> = (0..99).map(|number| format!("\"new{number}\":1")).collect();
    let line = format!(
        r#"{{"execute":"guest-info","x":{{}},"arguments":{{"{}":1,{}}}}}"#,
        "y".repeat(9_000),
        many.join(",")
    );
    let ignored = RequestLine::parse(&line).unwrap().reply_to.ignored;
    assert_eq!(ignored.len(), ReplyTo::MAX_IGNORED);
    assert_eq!(ignored[0], "x");
    assert!(ignored[1].starts_with("arguments.yyy") && ignored[1].len() == 200);
    let to = ReplyTo { id: None, ignored };
    let line = String::from_utf8(ReturnLine::new(Empty {}, to).to_line()).unwrap();
    match FromGuest::parse(line.trim_end()) {
        Ok(FromGuest::Return { ignored, .. }) => assert_eq!(ignored[2], "arguments.new0"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_highest_common_version_is_spoken() {
    let range = |min, max| Protocols { min, max };
    assert_eq!(agree(range(1, 4), range(2, 9)), Ok(4));
    assert_eq!(agree(range(3, 3), range(1, 3)), Ok(3));
    for (guest, host, told) in [
        (
            range(1, 2),
            range(3, 4),
            "the guest speaks version 1 to 2 of the messages, the host 3 to 4: update tandem in the guest",
        ),
        (
            range(5, 5),
            range(1, 4),
            "the guest speaks version 5 of the messages, the host 1 to 4: update tandem-host on the host",
        ),
    ] {
        assert_eq!(agree(guest, host).unwrap_err().to_string(), told);
    }
}

#[test]
fn a_source_s_health_of_tomorrow_is_unknown() {
    for health in [json!("half"), json!({ "half": { "reason": 1 } }), json!(7)] {
        let source = json!({ "source": "udev", "health": health, "lost": 0, "parts": [] });
        let read: SourceStatus = serde_json::from_value(source).unwrap();
        assert_eq!(read.health, SourceHealth::Unknown);
    }
}

#[test]
fn an_event_of_a_newer_guest_is_no_error() {
    let line = r#"{"event":"moon-rose","timestamp":{"seconds":1,"microseconds":2},"data":{}}"#;
    match FromGuest::parse(line) {
        Ok(FromGuest::UnknownEvent { name }) => assert_eq!(name, "moon-rose"),
        other => panic!("{other:?}"),
    }
}
