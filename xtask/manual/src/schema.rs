//! What JSON schemas say of enumerations and structures.

use anyhow::{Context, Result};
use schemars::{JsonSchema, schema_for};
use serde_json::Value;

/// A word of an enumeration, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// As it is written.
    pub(crate) word: String,
    /// In one line.
    pub(crate) meaning: String,
}

/// The words of an enumeration whose values are all explained.
pub(crate) fn words(schema: &Value) -> Option<Vec<Word>> {
    let values = schema["oneOf"].as_array()?;
    let word = |value: &Value| {
        Some(Word {
            word: value["const"].as_str()?.to_owned(),
            meaning: description(value),
        })
    };
    values.iter().map(word).collect()
}

/// What the types' comments say, in one line.
pub(crate) fn description(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // A link of rustdoc's is a word here.
    text.replace("[`", "`").replace("`]", "`")
}

/// The definition that a schema refers to, or the schema itself; `None` among others stands for what may be left out.
pub(crate) fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let some = schema["anyOf"].as_array().and_then(|any| {
        let mut some = any.iter().filter(|one| one["type"] != "null");
        some.next()
    });
    if let Some(some) = some {
        return resolved(document, some);
    }
    let pointer = schema["$ref"]
        .as_str()
        .and_then(|one| one.strip_prefix('#'));
    let target = pointer.and_then(|pointer| document.pointer(pointer));
    target.map_or(schema, |target| resolved(document, target))
}

/// The words of an enumeration.
///
/// # Errors
/// If a word of it is not explained.
pub(crate) fn words_of<T: JsonSchema>() -> Result<Vec<Word>> {
    let found = words(&schema_for!(T).to_value());
    found.with_context(|| format!("{} has words without a meaning", T::schema_name()))
}

/// A command of the channel.
#[derive(Debug)]
pub(crate) struct Request {
    /// Its name.
    pub(crate) name: String,
    /// Its arguments' names.
    pub(crate) arguments: Vec<String>,
    /// What it does.
    pub(crate) meaning: String,
}

/// Every command of the channel.
///
/// # Errors
/// If the schema is not as expected.
pub(crate) fn requests() -> Result<Vec<Request>> {
    let document = tandem_wire::schema::schema();
    let document: Value =
        serde_json::from_str(&document).context("the channel's schema is not JSON")?;
    let requests = document.pointer("/$defs/request/oneOf");
    let requests = requests.and_then(Value::as_array);
    let requests = requests.context("the channel's schema has no requests")?;
    let request = |one: &Value| {
        let properties = &one["properties"];
        let arguments = resolved(&document, &properties["arguments"]);
        let names = arguments["properties"].as_object();
        Some(Request {
            name: properties["execute"]["const"].as_str()?.to_owned(),
            arguments: names
                .into_iter()
                .flat_map(|map| map.keys().cloned())
                .collect(),
            meaning: description(one),
        })
    };
    let requests: Option<Vec<_>> = requests.iter().map(request).collect();
    requests.context("a request has no name")
}
