//! Requests, replies and events, both ways.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use proptest::prelude::*;
use serde_json::{Value, json};
use tandem_core::Policy;
use tandem_core::input::Request;
use tandem_core::status::{
    BondState, CommandError, CommandErrorCode, Event, Problem, ProblemCode, Status, Traffic,
};
use tandem_core::types::{IfName, Mac, Time};
use tandem_wire::event::{EventMessage, Pushed, Timestamp};
use tandem_wire::from_guest::{FromGuest, content};
use tandem_wire::message::{
    Call, CallError, Id, InfoArguments, ReplyTo, RequestLine, SyncArguments,
};
use tandem_wire::reply::{
    ErrorBody, ErrorClass, ErrorLine, GuestInfo, ReturnLine, StatusReport, delimited_sync_line,
};

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn call(line: &str) -> Call {
    RequestLine::parse(line).unwrap().call
}

fn refused(line: &str) -> CallError {
    RequestLine::parse(line).unwrap_err().error
}

fn every_call() -> Vec<Call> {
    let policy = json!({
        "bonds": [{
            "name": "bond0",
            "standby": { "mac": "52:54:00:00:00:01" },
            "vfs": [{ "mac": "52:54:00:00:00:02" }, { "pci": "0000:02:00.0", "driver": "igbvf" }],
            "addressing": { "static": { "addresses": [{ "ip": "192.0.2.1", "prefix": 24 }] } },
        }]
    });
    let policy: Policy = serde_json::from_value(policy).unwrap();
    let bond = Some(name("bond0"));
    vec![
        Call::GuestSync(SyncArguments { id: i64::MIN }),
        Call::GuestSyncDelimited(SyncArguments { id: 7 }),
        Call::GuestPing,
        Call::GuestInfo(InfoArguments::default()),
        Call::TandemStatus,
        Call::TandemConfigure(policy),
        Call::Command(Request::PrepareUnplug {
            bond: bond.clone(),
            vf: Some(Mac([2, 0, 0, 0, 0, 1])),
        }),
        Call::Command(Request::Resume { bond: bond.clone() }),
        Call::Command(Request::Announce { bond: None }),
        Call::Command(Request::Failover { bond: bond.clone() }),
        Call::Command(Request::Failback { bond }),
        Call::TandemSubscribe,
        Call::TandemUnsubscribe,
    ]
}

#[test]
fn every_command_is_read_as_it_was_written_and_is_in_guest_info() {
    let names: Vec<String> = every_call()
        .into_iter()
        .map(|call| {
            let name = call.name();
            let request = RequestLine {
                call,
                id: Some(Id::from(3)),
            };
            let line = String::from_utf8(request.to_line()).unwrap();
            let read = RequestLine::parse(line.trim_end()).unwrap();
            assert_eq!(
                (&read.call, &read.reply_to.id),
                (&request.call, &request.id)
            );
            assert_eq!(read.reply_to.ignored, Vec::<String>::new());
            let value: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["execute"], name);
            name.to_owned()
        })
        .collect();
    assert_eq!(names, Call::NAMES);
    let listed: Vec<String> = GuestInfo::new("1")
        .supported_commands
        .into_iter()
        .map(|command| command.name)
        .collect();
    assert_eq!(listed, names);
}

#[test]
fn requests_of_the_machine_are_commands() {
    for (request, line) in [
        (
            Request::PrepareUnplug {
                bond: None,
                vf: None,
            },
            r#"{"execute":"tandem-prepare-unplug","arguments":{}}"#,
        ),
        (
            Request::Failback {
                bond: Some(name("bond1")),
            },
            r#"{"execute":"tandem-failback","arguments":{"bond":"bond1"}}"#,
        ),
    ] {
        let request = RequestLine {
            call: Call::Command(request),
            id: None,
        };
        let written = String::from_utf8(request.to_line()).unwrap();
        assert_eq!(written.trim_end(), line);
        assert_eq!(call(line), request.call);
    }
    assert_eq!(
        call(r#"{"execute":"tandem-resume"}"#),
        Call::Command(Request::Resume { bond: None })
    );
}

#[test]
fn keys_may_come_in_any_order_and_with_escapes() {
    assert_eq!(
        call(r#" { "id" : null, "arguments" : {}, "execute" : "guest\u002dping" } "#),
        Call::GuestPing
    );
}

#[test]
fn an_unknown_command_gets_the_class_of_qga() {
    let refused = RequestLine::parse(r#"{"execute":"guest-shutdown","id":[1]}"#).unwrap_err();
    let line = ErrorLine::from(refused).to_line();
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"error\":{\"class\":\"CommandNotFound\",\
         \"desc\":\"The command guest-shutdown has not been found\"},\"id\":[1]}\n"
    );
}

#[test]
fn wrong_arguments_are_named() {
    for (line, word) in [
        (
            r#"{"execute":"guest-ping","arguments":{"loud":1}}"#,
            "`loud`",
        ),
        (
            r#"{"execute":"tandem-resume","arguments":{"bonds":"x"}}"#,
            "`bonds`",
        ),
        (r#"{"execute":"guest-sync"}"#, "`id`"),
        (r#"{"execute":"tandem-configure"}"#, "`bonds`"),
        (
            r#"{"execute":"tandem-configure","arguments":{"bond":[]}}"#,
            "`bonds`",
        ),
        (
            r#"{"execute":"guest-sync","arguments":{"id":"1"}}"#,
            "string",
        ),
        (
            r#"{"execute":"guest-sync","arguments":{"id":9223372036854775808}}"#,
            "9223372036854775808",
        ),
        (
            r#"{"execute":"tandem-failover","arguments":{"bond":"much too long a name"}}"#,
            "much too long",
        ),
        (
            r#"{"execute":"tandem-prepare-unplug","arguments":{"vf":"52:54"}}"#,
            "52:54",
        ),
        (
            r#"{"execute":"tandem-configure","arguments":{"bonds":[{"name":"b","standby":{"colour":1},"vfs":[]}]}}"#,
            "`colour`",
        ),
        (
            r#"{"execute":"tandem-configure","arguments":{"bonds":[{"name":"b","standby":{},"vfs":[],"addressing":
                {"static":{"addresses":[{"ip":"192.0.2.1","prefix":24,"colour":1}]}}}]}}"#,
            "addressing.addresses.0.colour`",
        ),
        (
            r#"{"execute":"tandem-configure","arguments":{"bonds":[{"name":"b","standby":{},"vfs":[],"path-check":"x"}]}}"#,
            "`x`",
        ),
        (r#"{"execute":"guest-ping","arguments":[]}"#, "guest-ping"),
    ] {
        let error = refused(line);
        assert!(
            matches!(error, CallError::Arguments { .. }),
            "{line}: {error:?}"
        );
        assert!(error.to_string().contains(word), "{line}: {error}");
        assert_eq!(ErrorBody::from(&error).class, ErrorClass::GenericError);
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let long_id = format!(r#"{{"execute":"guest-ping","id":"{}"}}"#, "x".repeat(256));
    for line in [
        "",
        "null",
        "[]",
        r#"["guest-ping",{},1]"#,
        "{}",
        r#"{"execute":1}"#,
        r#"{"execute":"guest-ping"} {"execute":"guest-ping"}"#,
        r#"{"execute":"guest-ping","execute":"guest-info"}"#,
        r#"{"execute":"guest-ping""#,
        "{\"execute\":\"guest-ping\u{0}\"}",
        long_id.as_str(),
    ] {
        assert!(matches!(refused(line), CallError::NotARequest(_)), "{line}");
    }
}

#[test]
fn nesting_of_any_depth_is_survived() {
    for depth in [100, 127, 128, 129, 10_000, 32_000] {
        let nest = |open: &str, inner: &str, close: &str| {
            format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
        };
        for line in [
            nest("[", "", "]"),
            nest(r#"{"execute":"#, "1", "}"),
            nest("[", "", ""),
            format!(
                r#"{{"execute":"guest-ping","arguments":{}}}"#,
                nest("[", "", "]")
            ),
            format!(
                r#"{{"execute":"guest-ping","arguments":{}}}"#,
                nest(r#"{"a":"#, "1", "}")
            ),
            format!(
                r#"{{"execute":"tandem-configure","arguments":{{"bonds":{}}}}}"#,
                nest("[", "", "]")
            ),
        ] {
            assert!(RequestLine::parse(&line).is_err(), "{depth}: {line:.60}");
        }
        let other = nest("[", "", "]");
        let other = format!(r#"{{"execute":"guest-ping","other":{other}}}"#);
        let read = RequestLine::parse(&other).unwrap();
        assert_eq!(read.reply_to.ignored, ["other"]);
        let id = format!(r#"{{"execute":"guest-ping","id":{}}}"#, nest("[", "", "]"));
        assert_eq!(RequestLine::parse(&id).is_ok(), 2 * depth <= Id::MAX_BYTES);
        let reply = format!(r#"{{"return":{}}}"#, nest("[", "", "]"));
        let Ok(FromGuest::Return { value, .. }) = FromGuest::parse(&reply) else {
            panic!("a guest may return any JSON");
        };
        assert!(content::<StatusReport>("tandem-status", &value).is_err());
    }
}

#[test]
fn an_identity_comes_back_as_it_was_written() {
    for id in [
        "1",
        "-0.0",
        "18446744073709551616",
        "1e400",
        r#""\u00e4""#,
        "null",
        r#"{"a": [ ]}"#,
    ] {
        let request =
            RequestLine::parse(&format!(r#"{{"execute":"guest-ping","id":{id}}}"#)).unwrap();
        let line = ReturnLine::new(json!({}), request.reply_to).to_line();
        let line = String::from_utf8(line).unwrap();
        let expected = if id == "null" {
            String::new()
        } else {
            format!(r#","id":{id}"#)
        };
        assert_eq!(line, format!("{{\"return\":{{}}{expected}}}\n"));
    }
}

#[test]
fn a_delimited_sync_starts_with_the_sentinel() {
    assert_eq!(
        delimited_sync_line(-5, ReplyTo::default()),
        b"\xff{\"return\":-5}\n"
    );
}

#[test]
fn a_status_is_read_as_it_was_written() {
    let report = StatusReport {
        tandem_protocol: tandem_wire::PROTOCOL,
        version: "0.1.0".to_owned(),
        now: Time(5),
        status: Status::default(),
    };
    let to = ReplyTo {
        id: Some(Id::from(u64::MAX)),
        ..ReplyTo::default()
    };
    let line = ReturnLine::new(&report, to).to_line();
    let line = std::str::from_utf8(&line).unwrap().trim_end();
    let Ok(FromGuest::Return { value, id, .. }) = FromGuest::parse(line) else {
        panic!("{line}");
    };
    assert_eq!(id, Some(Id::from(u64::MAX)));
    assert_eq!(content::<StatusReport>("tandem-status", &value), Ok(report));
}

#[test]
fn error_codes_survive_the_way() {
    let error = CommandError {
        code: CommandErrorCode::StandbyUnusable,
        message: "eth0 has no carrier".to_owned(),
    };
    let line = ErrorLine {
        error: error.into(),
        id: None,
    }
    .to_line();
    let line = std::str::from_utf8(&line).unwrap().trim_end();
    assert_eq!(
        line,
        r#"{"error":{"class":"GenericError","desc":"eth0 has no carrier","code":"standby-unusable"}}"#
    );
    let Ok(FromGuest::Error { error, .. }) = FromGuest::parse(line) else {
        panic!("{line}");
    };
    assert_eq!(
        error.command_code(),
        Some(CommandErrorCode::StandbyUnusable)
    );
    assert_eq!(error.configure_code(), None);
}

#[test]
fn errors_of_other_agents_are_understood() {
    let line = r#"{"error":{"class":"DeviceNotFound","desc":"no","code":"of-tomorrow","more":1}}"#;
    let Ok(FromGuest::Error { error, .. }) = FromGuest::parse(line) else {
        panic!("{line}");
    };
    assert_eq!(error.class, ErrorClass::GenericError);
    assert_eq!(error.command_code(), None);
}

fn events() -> Vec<Event> {
    let bond = name("bond0");
    vec![
        Event::StateChanged {
            bond: bond.clone(),
            state: BondState::Accelerated,
            traffic: Traffic::Vf,
            reason: "the VF is there".to_owned(),
        },
        Event::ProblemRaised {
            bond: bond.clone(),
            problem: Problem {
                code: ProblemCode::Flapping,
                device: None,
                message: "m".to_owned(),
                remedy: "r".to_owned(),
            },
        },
        Event::ProblemCleared {
            bond: bond.clone(),
            code: ProblemCode::Flapping,
        },
        Event::GeneralProblemRaised {
            problem: Problem {
                code: ProblemCode::ConfigurationRefused,
                device: None,
                message: "m".to_owned(),
                remedy: "r".to_owned(),
            },
        },
        Event::GeneralProblemCleared {
            code: ProblemCode::ConfigurationRefused,
        },
        Event::VfRemoved {
            bond,
            mac: None,
            lead_us: Some(5_000_000),
            warned_by: None,
        },
    ]
}

#[test]
fn events_have_the_shape_of_qmp_and_are_read_as_written() {
    let timestamp = Timestamp {
        seconds: 12,
        microseconds: 34,
    };
    let pushed = events().into_iter().map(Pushed::Bond);
    for event in pushed.chain([Pushed::EventsLost { count: 9 }]) {
        let message = EventMessage { event, timestamp };
        let line = message.to_line();
        let line = std::str::from_utf8(&line).unwrap().trim_end();
        match FromGuest::parse(line) {
            Ok(FromGuest::Event(read)) => assert_eq!(read, message),
            other => panic!("{line}: {other:?}"),
        }
    }
    let message = EventMessage {
        event: Pushed::Bond(events().remove(2)),
        timestamp,
    };
    assert_eq!(
        serde_json::to_value(message).unwrap(),
        json!({
            "event": "problem-cleared",
            "timestamp": { "seconds": 12, "microseconds": 34 },
            "data": { "bond": "bond0", "code": "flapping" },
        })
    );
}

#[test]
fn lines_that_are_neither_reply_nor_event_are_refused() {
    for line in [
        "",
        "{}",
        "[]",
        "[1,null,null,null]",
        r#"{"return":1,"error":{"class":"GenericError","desc":""}}"#,
        r#"{"return":1,"event":"x"}"#,
        r#"{"error":{}}"#,
        r#"{"error":{"class":"GenericError"}}"#,
        r#"{"QMP":{"version":{}}}"#,
    ] {
        assert!(FromGuest::parse(line).is_err(), "{line}");
    }
}

/// JSON that is nearly a request.
fn nearly_request() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        prop::sample::select(Call::NAMES.to_vec()).prop_map(str::to_owned),
        ".{0,12}",
    ];
    let value = prop_oneof![
        Just("{}".to_owned()),
        Just("[[]]".to_owned()),
        Just(r#"{"bond":"b"}"#.to_owned()),
        Just(r#"{"bonds":[{}]}"#.to_owned()),
        any::<f64>().prop_map(|number| number.to_string()),
        "[\\[{\"a:1,}\\]]{0,20}",
    ];
    (name, value, any::<u8>()).prop_map(|(name, value, id)| {
        let name = Value::from(name);
        format!(r#"{{"execute":{name},"arguments":{value},"id":{id}}}"#)
    })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = RequestLine::parse(&text);
        let _ = FromGuest::parse(&text);
    }

    #[test]
    fn what_is_accepted_can_be_written_and_read_again(line in nearly_request()) {
        if let Ok(read) = RequestLine::parse(&line) {
            let request = RequestLine { call: read.call.clone(), id: read.reply_to.id.clone() };
            let again = String::from_utf8(request.to_line()).unwrap();
            prop_assert_eq!(RequestLine::parse(again.trim_end()).unwrap().call, read.call);
        }
    }
}
