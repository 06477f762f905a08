//! The JSON schema of the channel, generated from the types.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};
use tandem_core::status::{Answer, Event};

use crate::event::{EVENTS_LOST, LostData, Timestamp};
use crate::message::RequestLine;
use crate::reply::{Configured, Empty, ErrorLine, GuestInfo, ReturnLine, StatusReport};

/// Types of arguments that a request may do without.
const OPTIONAL_ARGUMENTS: [&str; 2] = ["BondArguments", "UnplugArguments"];

/// Requests, replies and events as one JSON schema (draft 2020-12): pretty, with a
/// newline at its end, and the same text for the same types.
///
/// `$defs/return/$defs` holds what each command returns under the command's name.
pub fn schema() -> String {
    let document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tandem's agent channel",
        "description": "One JSON object a line, in the dialect of the QEMU guest agent. \
            Requests go to the guest; replies and, once subscribed to, events come from it.",
        "tandem-protocol": crate::PROTOCOL,
        "anyOf": [
            { "$ref": "#/$defs/request" },
            { "$ref": "#/$defs/event" },
            { "$ref": "#/$defs/error" },
            { "$ref": "#/$defs/return" },
        ],
        "$defs": {
            "request": part("request", Contract::Deserialize, request),
            "event": part("event", Contract::Serialize, event),
            "error": part("error", Contract::Serialize, of::<ErrorLine>),
            "return": part("return", Contract::Serialize, returned),
        },
    });
    let mut text = serde_json::to_string_pretty(&document).expect("a value is JSON");
    text.push('\n');
    text
}

/// A part of the document with its own definitions: what may be left out of a
/// request is always there in what the guest sends.
fn part(
    name: &str,
    contract: Contract,
    schema: impl FnOnce(&mut SchemaGenerator) -> Value,
) -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.contract = contract;
            settings.definitions_path = format!("/$defs/{name}/$defs").into();
        })
        .into_generator();
    let mut schema = schema(&mut generator);
    let definitions = generator.take_definitions(true);
    if !definitions.is_empty() {
        schema["$defs"] = Value::Object(definitions);
    }
    schema
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    T::json_schema(generator).to_value()
}

fn request(generator: &mut SchemaGenerator) -> Value {
    let mut schema = of::<RequestLine>(generator);
    schema["unevaluatedProperties"] = Value::Bool(false);
    for call in schema["oneOf"].as_array_mut().into_iter().flatten() {
        let reference = call["properties"]["arguments"]["$ref"].as_str();
        let name = reference.and_then(|reference| reference.rsplit('/').next());
        if name.is_some_and(|name| OPTIONAL_ARGUMENTS.contains(&name)) {
            call["required"] = json!(["execute"]);
        }
    }
    schema
}

/// Any reply; what a command returns is a definition under the command's name.
fn returned(generator: &mut SchemaGenerator) -> Value {
    let answer = of::<Answer>(generator);
    let empty = of::<Empty>(generator);
    let returns = [
        ("guest-sync", of::<i64>(generator)),
        ("guest-sync-delimited", of::<i64>(generator)),
        ("guest-ping", empty.clone()),
        ("guest-info", of::<GuestInfo>(generator)),
        ("tandem-status", of::<StatusReport>(generator)),
        ("tandem-configure", of::<Configured>(generator)),
        ("tandem-prepare-unplug", answer.clone()),
        ("tandem-resume", answer.clone()),
        ("tandem-announce", answer.clone()),
        ("tandem-failover", answer.clone()),
        ("tandem-failback", answer),
        ("tandem-subscribe", empty.clone()),
        ("tandem-unsubscribe", empty),
    ];
    let names: Vec<Value> = returns
        .iter()
        .map(|(name, _)| json!({ "$ref": format!("#/$defs/return/$defs/{name}") }))
        .collect();
    let definitions = generator.definitions_mut();
    definitions.extend(returns.map(|(name, schema)| (name.to_owned(), schema)));
    let mut schema = of::<ReturnLine<Empty>>(generator);
    schema["properties"]["return"] = json!({
        "description": "What the command returns: the definition of its name.",
        "anyOf": names,
    });
    schema
}

/// The core's `{NAME: DATA}` taken apart into `event` and `data`.
fn event(generator: &mut SchemaGenerator) -> Value {
    let timestamp = generator.subschema_for::<Timestamp>();
    let lost = of::<LostData>(generator);
    let mut kinds = Vec::from([kind(
        EVENTS_LOST,
        "This connection was read too slowly: that many events before the next one are lost.",
        lost,
        &timestamp,
    )]);
    let tagged = of::<Event>(generator);
    for variant in tagged["oneOf"].as_array().into_iter().flatten() {
        let about = variant["description"].as_str().unwrap_or_default();
        let named = variant["properties"].as_object().into_iter().flatten();
        kinds.extend(named.map(|(name, data)| kind(name, about, data.clone(), &timestamp)));
    }
    json!({ "oneOf": kinds })
}

fn kind(name: &str, about: &str, data: Value, timestamp: &Schema) -> Value {
    json!({
        "description": about,
        "type": "object",
        "properties": {
            "event": { "const": name },
            "timestamp": timestamp,
            "data": data,
        },
        "required": ["event", "timestamp", "data"],
    })
}
