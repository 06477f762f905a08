//! The keys of the configuration file.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::schema::{Word, description, resolved, words};

/// A table of the file.
#[derive(Debug)]
pub(crate) struct Table {
    /// Its header, as it is written.
    pub(crate) header: &'static str,
    /// What it is.
    pub(crate) about: String,
    /// Its keys: the required ones, then all others in order of their names.
    pub(crate) keys: Vec<Key>,
}

/// A key of a table.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name.
    pub(crate) name: String,
    /// It has to be there.
    pub(crate) required: bool,
    /// The kind of its value: `text`, `number`, …
    pub(crate) kind: String,
    /// The words that it takes, if only these.
    pub(crate) words: Vec<Word>,
    /// Its default, as it is written.
    pub(crate) default: Option<String>,
    /// What it says.
    pub(crate) meaning: String,
}

/// Headers of the file's tables, the type each is read by, and what is said beside the type's own comment.
const TABLES: [(&str, &str, &str); 5] = [
    ("", "", "Before the first table."),
    ("[[bond]]", "FileBond", "One for each bond."),
    ("[bond.timing]", "Timing", "After its bond."),
    ("standby = { … }, vfs = [{ … }]", "PortMatch", ""),
    ("routes = [{ … }]", "FileRoute", ""),
];

/// All tables of the file.
///
/// # Errors
/// If the schema lacks one of them.
pub(crate) fn tables() -> Result<Vec<Table>> {
    let document = tandem_guest::config::schema().to_value();
    let table = |(header, name, more): (&'static str, &str, &str)| {
        let schema = match name {
            "" => &document,
            name => {
                let schema = document.pointer(&format!("/$defs/{name}"));
                schema.with_context(|| format!("the configuration's schema has no {name}"))?
            }
        };
        let about = format!("{} {more}", description(schema));
        Ok(Table {
            header,
            about: about.trim().to_owned(),
            keys: keys(&document, schema)?,
        })
    };
    TABLES.into_iter().map(table).collect()
}

fn keys(document: &Value, schema: &Value) -> Result<Vec<Key>> {
    let properties = schema["properties"]
        .as_object()
        .context("a table has no keys")?;
    let required = schema["required"].as_array();
    let required: Vec<&Value> = required.into_iter().flatten().collect();
    let mut keys: Vec<Key> = properties
        .iter()
        .map(|(name, property)| Key {
            required: required.iter().any(|one| one.as_str() == Some(name)),
            kind: kind(document, property),
            words: words(resolved(document, property)).unwrap_or_default(),
            default: default(property),
            meaning: description(property),
            name: name.clone(),
        })
        .collect();
    keys.sort_by_key(|key| !key.required);
    Ok(keys)
}

/// The kind of a value, in a word or two.
fn kind(document: &Value, property: &Value) -> String {
    let schema = resolved(document, property);
    let name = match &schema["type"] {
        Value::Array(names) => names.iter().find(|name| *name != "null"),
        name => Some(name),
    };
    match name.and_then(Value::as_str) {
        Some("integer") => "number".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("object") => "table".to_owned(),
        Some("array") => format!("list of {}s", kind(document, &schema["items"])),
        Some("string") => "text".to_owned(),
        _ if schema["oneOf"].is_array() => "word".to_owned(),
        _ => "text".to_owned(),
    }
}

/// Nothing for what is empty or has a table of its own.
fn default(property: &Value) -> Option<String> {
    match &property["default"] {
        Value::Null | Value::Object(_) => None,
        Value::Array(values) if values.is_empty() => None,
        Value::String(text) => Some(format!("\"{text}\"")),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_kind_default_and_meaning() {
        let tables = tables().unwrap();
        for table in &tables {
            for key in &table.keys {
                assert!(!key.meaning.is_empty(), "{}: {}", table.header, key.name);
            }
        }
        let key = |header: &str, name: &str| {
            let table = tables.iter().find(|table| table.header == header);
            let mut keys = table.expect("the table").keys.iter();
            keys.find(|key| key.name == name).expect("the key")
        };
        assert!(key("[[bond]]", "vfs").required);
        assert_eq!(key("[[bond]]", "vfs").kind, "list of tables");
        assert_eq!(
            key("[[bond]]", "mac").default.as_deref(),
            Some("\"standby\"")
        );
        assert_eq!(key("[[bond]]", "mac").words.len(), 2);
        assert_eq!(
            key("[bond.timing]", "hold-ms").default.as_deref(),
            Some("1000")
        );
        assert!(!key("[bond.timing]", "hold-ms").required);
    }
}
