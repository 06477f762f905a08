//! The JSON schema of the channel, generated from the types.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};
use tandem_core::input::Request;
use tandem_core::status::{Answer, Event};

use crate::event::{EVENTS_LOST, LostData, Timestamp};
use crate::message::{COMMAND_PREFIX, RequestLine};
use crate::reply::{Configured, Empty, ErrorLine, GuestInfo, ReturnLine, StatusReport};

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
        "tandem-protocol": crate::protocol::PROTOCOL,
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

/// The core's `{NAME: ARGUMENTS}` taken apart into `execute` and `arguments`.
fn request(generator: &mut SchemaGenerator) -> Value {
    let mut schema = of::<RequestLine>(generator);
    schema["unevaluatedProperties"] = Value::Bool(false);
    let commands = named_variants(of::<Request>(generator)).map(|(name, about, arguments)| {
        json!({
            "description": about,
            "type": "object",
            "properties": {
                "execute": { "const": format!("{COMMAND_PREFIX}{name}"), "type": "string" },
                "arguments": arguments,
            },
            "required": ["execute"],
        })
    });
    // Their names tell all of them apart, which the generator does not see.
    let mut calls = schema["anyOf"].take();
    if let Some(calls) = calls.as_array_mut() {
        for call in calls.iter_mut() {
            if call["properties"]["execute"]["const"] == "guest-info" {
                // Its arguments may be left out.
                call["required"] = json!(["execute"]);
            }
        }
        calls.extend(commands);
    }
    schema["oneOf"] = calls;
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("anyOf");
    }
    schema
}

/// Name, description and content of each variant of an enumeration that is written as `{NAME: CONTENT}`.
fn named_variants(mut tagged: Value) -> impl Iterator<Item = (String, Value, Value)> {
    let variants = tagged["oneOf"].take();
    let variants = variants.as_array().cloned().unwrap_or_default();
    variants.into_iter().flat_map(|variant| {
        let named = variant["properties"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        let about = variant["description"].clone();
        named
            .into_iter()
            .map(move |(name, content)| (name, about.clone(), content))
    })
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
    let about =
        "This connection was read too slowly: that many events before the next one are lost.";
    let mut kinds = Vec::from([kind(EVENTS_LOST, &about.into(), lost, &timestamp)]);
    let named = named_variants(of::<Event>(generator));
    kinds.extend(named.map(|(name, about, data)| kind(&name, &about, data, &timestamp)));
    json!({ "oneOf": kinds })
}

fn kind(name: &str, about: &Value, data: Value, timestamp: &Schema) -> Value {
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
