//! `docs/reference.md`.

use anyhow::Result;
use schemars::JsonSchema;
use tandem_core::status::{BondState, CommandErrorCode, Held, ProblemCode, SwitchoverCause};

use crate::commands;
use crate::keys::{self, Key};
use crate::markdown::{code, table};
use crate::schema::{self, words_of};

const HEAD: &str = "\
# Reference

<!-- Over 500 lines because it is generated whole, and searched rather than read. -->

Written by `cargo xtask reference` from the types; not to be edited. The same is in the manual pages `tandem(8)`,
`tandem-host(8)` and `tandem.toml(5)`, which `cargo xtask man` writes.

* [Configuration file](#configuration-file)
* [tandem](#tandem), [exit codes of tandem](#exit-codes-of-tandem)
* [tandem-host](#tandem-host), [exit codes of tandem-host](#exit-codes-of-tandem-host)
* [Problems](#problems), [states](#states), [why a port is not in use](#why-a-port-is-not-in-use),
  [causes of a switchover](#causes-of-a-switchover)
* [Channel commands](#channel-commands), [errors of commands](#errors-of-commands)
* [Metrics](#metrics)

";

/// The whole page.
///
/// # Errors
/// If the types say less than the page tells.
pub(crate) fn text() -> Result<String> {
    let guest = program(&commands::guest(), &tandem_guest::cli::exit::MEANINGS);
    let host = program(&commands::host(), &tandem_host::commands::exit::MEANINGS);
    let parts = [
        HEAD.to_owned(),
        configuration()?,
        guest,
        host,
        problems()?,
        words::<BondState>("States", "`state` of a bond.")?,
        words::<Held>(
            "Why a port is not in use",
            "`held` of a port that is present.",
        )?,
        words::<SwitchoverCause>("Causes of a switchover", "`cause`, and a label of metrics.")?,
        requests()?,
        words::<CommandErrorCode>(
            "Errors of commands",
            "`code` of an error, where a command was understood and cannot be carried out.",
        )?,
        metrics(),
    ];
    Ok(format!("{}\n", parts.concat().trim_end()))
}

fn configuration() -> Result<String> {
    let mut text = "## Configuration file\n\n`/etc/tandem/tandem.toml`, then `/etc/tandem/conf.d/*.toml` in order of \
        their names. An unknown key is an error. [A whole file](guide.md#configure).\n\n"
        .to_owned();
    for one in keys::tables()? {
        if !one.header.is_empty() {
            text.push_str(&format!("### `{}`\n\n", one.header));
        }
        if !one.about.is_empty() {
            text.push_str(&format!("{}\n\n", one.about));
        }
        let rows: Vec<_> = one.keys.iter().map(key).collect();
        text.push_str(&table(&["key", "value", "default", "meaning"], &rows));
    }
    Ok(text)
}

fn key(key: &Key) -> Vec<String> {
    let words = key
        .words
        .iter()
        .map(|word| code(&format!("\"{}\"", word.word)));
    let value = match key.words.len() {
        0 => key.kind.clone(),
        _ => words.collect::<Vec<_>>().join(", "),
    };
    let default = match (&key.default, key.required) {
        (_, true) => "required".to_owned(),
        (Some(default), false) => code(default),
        (None, false) => "–".to_owned(),
    };
    let words = key.words.iter();
    let words = words.map(|one| format!("<br>{}: {}", code(&one.word), one.meaning));
    let meaning = format!("{}{}", key.meaning, words.collect::<String>());
    vec![code(&key.name), value, default, meaning]
}

fn program(command: &clap::Command, exits: &[(u8, &str)]) -> String {
    let program = command.get_name();
    let mut text = format!("## {program}\n\n{}.\n\n", commands::about(command));
    for command in commands::leaves(command) {
        let name = commands::name(&command);
        text.push_str(&format!(
            "### `{name}`\n\n{}.\n\n",
            commands::about(&command)
        ));
        text.push_str(&format!("```text\n{}\n```\n\n", commands::usage(&command)));
        let rows: Vec<_> = commands::arguments(&command)
            .into_iter()
            .map(|one| {
                let default = one.default.map_or("–".to_owned(), |value| code(&value));
                vec![code(&one.written), default, one.help]
            })
            .collect();
        text.push_str(&table(&["argument", "default", "meaning"], &rows));
    }
    text.push_str(&format!("## Exit codes of {program}\n\n"));
    let rows: Vec<_> = exits
        .iter()
        .map(|(status, meaning)| vec![status.to_string(), (*meaning).to_owned()])
        .collect();
    text + &table(&["code", "means"], &rows)
}

fn problems() -> Result<String> {
    let mut rows = Vec::new();
    for one in words_of::<ProblemCode>()? {
        let kind: ProblemCode = serde_json::from_value(one.word.clone().into())?;
        rows.push(vec![code(&one.word), one.meaning, kind.remedy().to_owned()]);
    }
    let table = table(&["problem", "meaning", "usual remedy"], &rows);
    Ok(format!(
        "## Problems\n\n`tandem status` names each with what happened and a remedy, more exact than here where more is \
         known.\n\n{table}"
    ))
}

fn words<T: JsonSchema>(heading: &str, about: &str) -> Result<String> {
    let words = words_of::<T>()?.into_iter();
    let rows: Vec<_> = words
        .map(|one| vec![code(&one.word), one.meaning])
        .collect();
    let table = table(&["word", "meaning"], &rows);
    Ok(format!("## {heading}\n\n{about}\n\n{table}"))
}

fn requests() -> Result<String> {
    let rows: Vec<_> = schema::requests()?
        .into_iter()
        .map(|one| {
            let arguments: Vec<_> = one.arguments.iter().map(|name| code(name)).collect();
            vec![code(&one.name), arguments.join(", "), one.meaning]
        })
        .collect();
    let table = table(&["command", "arguments", "does"], &rows);
    Ok(format!(
        "## Channel commands\n\nOne JSON object a line, in the dialect of the QEMU guest agent. [Schema of requests, \
         replies and events](../helper/schema/channel.schema.json).\n\n{table}"
    ))
}

fn metrics() -> String {
    let rows: Vec<_> = tandem_host::daemon::metrics()
        .iter()
        .map(|one| {
            let suffix = if one.kind == "counter" { "_total" } else { "" };
            let name = code(&format!("{}{suffix}", one.name));
            vec![
                name,
                one.kind.to_owned(),
                one.labels.to_owned(),
                one.help.to_owned(),
            ]
        })
        .collect();
    let table = table(&["metric", "kind", "labels", "meaning"], &rows);
    format!("## Metrics\n\nOf `tandem-host serve`, in OpenMetrics.\n\n{table}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_reference_is_that_of_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == text().unwrap(),
            "docs/reference.md differs from the types; run `cargo xtask reference` and commit the file"
        );
    }
}
