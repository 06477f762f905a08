//! The committed schema is the one that the types give. `UPDATE=1` rewrites it.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tandem_wire::Call;
use tandem_wire::schema::schema;

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schema/channel.schema.json");
    let generated = schema();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} differs from the types; run this test with UPDATE=1 and commit the file",
        path.display()
    );
}

#[test]
fn it_knows_every_command_and_refers_to_nothing_that_is_missing() {
    let document: Value = serde_json::from_str(&schema()).unwrap();
    for name in Call::NAMES {
        let returned = format!("/$defs/return/$defs/{name}");
        assert!(
            document.pointer(&returned).is_some(),
            "{name} returns nothing"
        );
    }
    let commands: BTreeSet<&str> = document["$defs"]["request"]["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variant| variant["properties"]["execute"]["const"].as_str().unwrap())
        .collect();
    assert_eq!(commands, BTreeSet::from(Call::NAMES));
    assert_references(&document, &document);
}

fn assert_references(document: &Value, part: &Value) {
    match part {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            map.values()
                .for_each(|value| assert_references(document, value));
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| assert_references(document, value)),
        _ => {}
    }
}
