use serde_json::{Value, json};

use super::*;

fn record() -> Value {
    let owner = json!({"token": "t", "host": "a\u{202e}\u{1b}[2J", "pid": 1, "started-at": "x"});
    json!({"version": 2, "evacuation": "e", "domain": "g1", "owner": owner, "beat": 1,
        "stage": "degraded", "migration-begun": true, "home": "destination"})
}

fn with(key: &str, value: Value) -> String {
    let mut record = record();
    record[key] = value;
    record.to_string()
}

#[test]
fn a_record_is_of_the_domain_in_which_it_was_found() {
    let text = record().to_string();
    let read = Progress::parse_for(&text, "g1").unwrap();
    assert_eq!(Progress::parse_for(&read.to_text(), "g1"), Ok(read));
    let error = Progress::parse_for(&text, "g2").unwrap_err();
    assert!(matches!(error, ProgressError::OtherDomain { .. }));
    assert!(error.to_string().contains("virsh metadata g2"), "{error}");
}

#[test]
fn other_versions_are_refused_with_what_to_do() {
    let old = Progress::parse_for(&with("version", json!(1)), "g;1").unwrap_err();
    assert!(
        old.to_string().contains("virsh metadata 'g;1' --uri"),
        "{old}"
    );
    let newer = Progress::parse_for(&with("version", json!(6)), "g1");
    assert_eq!(newer, Err(ProgressError::Newer(6)));
}

#[test]
fn records_of_earlier_programs_of_this_version_are_read_whole() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen");
    for version in std::fs::read_dir(folder).unwrap() {
        let version = version.unwrap().path();
        let lines = |name: &str| std::fs::read_to_string(version.join(name)).unwrap();
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        for line in lines("progress.jsonl").lines() {
            let read = Progress::parse_for(line, "g1").unwrap();
            assert_eq!(value(&read.to_text()), value(line));
        }
        for line in lines("record.jsonl").lines() {
            let read = Record::parse_for(line, "g1").unwrap();
            assert_eq!(value(&read.to_text()), value(line));
        }
    }
}

/// What an older program could do, it also reads; all else it leaves as it is, by the version.
#[test]
fn several_devices_are_written_in_a_version_of_their_own() {
    let vf = |function: u8| {
        json!({"identity": {"pci": format!("0000:3b:02.{function}"), "alias": null, "mac": null},
            "guest-mac": null, "device": "<hostdev/>"})
    };
    let text = |version: u32, spec: Value| {
        let mut progress = record();
        progress["version"] = json!(version);
        json!({"progress": progress, "spec": spec}).to_string()
    };
    let common = json!({"domain": "g1", "source-uri": "", "destination-uri": "qemu:///system",
        "agent": "never", "reaches-destination-agent": false, "configure": false, "yes-degraded": false});
    let with = |more: &Value| {
        let mut spec = common.clone();
        let more = more.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(more);
        spec
    };
    let one = with(&json!({"bond": "bond0", "source-vf": vf(1), "destination-vf": null}));
    let read = Record::parse_for(&text(2, one.clone()), "g1").unwrap();
    assert_eq!(read.spec.devices.len(), 1);
    assert_eq!(read.spec.record_version(), 2);
    assert_eq!(serde_json::to_value(&read.spec).unwrap(), one);
    let devices = json!({"devices": [
        {"role": {"vf": {"bond": "bond0"}}, "source": vf(1), "destination": vf(3)},
        {"role": "let-go", "source": vf(2), "destination": null},
    ]});
    let several = with(&devices);
    let read = Record::parse_for(&text(3, several.clone()), "g1").unwrap();
    assert_eq!(read.spec.record_version(), 3);
    assert_eq!(read.spec.bonds(), ["bond0"]);
    assert_eq!(serde_json::to_value(&read.spec).unwrap(), several);
    // Under each of its names, and under no other.
    let renamed = with(&json!({"renamed": "g2", "devices": devices["devices"]}));
    let mut known: Value = serde_json::from_str(&text(4, renamed.clone())).unwrap();
    known["progress"]["renamed"] = json!("g2");
    let known = known.to_string();
    for name in ["g1", "g2"] {
        let read = Record::parse_for(&known, name).unwrap();
        assert_eq!(read.spec.record_version(), 4);
        assert_eq!(read.spec.name(Side::Destination), "g2");
        assert_eq!(serde_json::to_value(&read.spec).unwrap(), renamed);
    }
    assert!(Record::parse_for(&known, "g3").is_err());
    for wrong in [text(2, several.clone()), text(6, several), text(3, renamed)] {
        let error = Record::parse_for(&wrong, "g1").unwrap_err().to_string();
        assert!(error.contains("newer tandem-host"), "{error}");
    }
}

#[test]
fn what_a_newer_program_wrote_is_not_gone_on_with() {
    let owner = json!({"token": "t", "host": "a", "pid": 1, "started-at": "x", "new": 1});
    for (key, value) in [
        ("new", json!(1)),
        ("stage", json!("of-tomorrow")),
        ("home", json!("elsewhere")),
        ("owner", owner),
    ] {
        let error = Progress::parse_for(&with(key, value), "g1").unwrap_err();
        assert!(error.to_string().contains("newer tandem-host"), "{error}");
    }
}

#[test]
fn what_none_of_ours_has_is_refused() {
    for (key, value) in [
        ("beat", json!(u64::MAX)),
        ("evacuation", json!("x".repeat(MAX_WORD_BYTES + 1))),
        ("bond", json!("a/b")),
        ("more-bonds", json!(["bond1"])),
        ("let-go", json!(1)),
        ("lacking", json!(1)),
        ("stage", json!("\u{1b}[2J")),
    ] {
        let error = Progress::parse_for(&with(key, value), "g1").unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'), "{error:?}");
    }
}

#[test]
fn who_drives_it_is_told_without_moving_the_cursor() {
    let read = Progress::parse_for(&record().to_string(), "g1").unwrap();
    let words = read.owner_in_words();
    assert!(!words.contains(['\u{202e}', '\u{1b}']), "{words:?}");
}
