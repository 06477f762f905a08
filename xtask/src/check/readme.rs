//! README.md tells the truth: every command it shows is run by something in this project, every request it
//! shows is one that the guest takes, and every command of the channel and every problem is explained.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tandem_wire::{Call, RequestLine};

use super::Report;
use crate::project;

/// A command of README.md, and what runs it: a file of the project, and words of it that do.
struct Proof {
    command: &'static str,
    file: &'static str,
    words: &'static str,
}

const fn proof(command: &'static str, file: &'static str, words: &'static str) -> Proof {
    Proof {
        command,
        file,
        words,
    }
}

/// Every command that README.md may show, without a leading `sudo`.
const PROOFS: [Proof; 1] = [proof("cargo xtask test", ".ci/run", "cargo xtask test")];

/// The committed schema of the channel, which the types gave.
const SCHEMA: &str = "helper/schema/channel.schema.json";
/// Where the schema lists the kinds of problems.
const PROBLEM_CODES: &str = "/$defs/return/$defs/ProblemCode/oneOf";

pub(super) fn check() -> Result<Report> {
    let readme = project::text("README.md".as_ref())?.context("README.md is not text")?;
    let commands = lines_of(&readme, "sh");
    let requests = lines_of(&readme, "json");
    let mut findings = unexplained(&readme)?;
    findings.extend(requests.iter().filter_map(|request| refused(request)));
    for command in &commands {
        match PROOFS.iter().find(|proof| proof.command == *command) {
            None => findings.push(format!(
                "README.md: `{command}` is run by no test that {} knows",
                file!()
            )),
            Some(proof) => findings.extend(missing(proof)?),
        }
    }
    Ok(Report {
        looked_at: format!(
            "{} commands and {} requests of README.md",
            commands.len(),
            requests.len()
        ),
        findings,
    })
}

fn missing(proof: &Proof) -> Result<Option<String>> {
    let text = project::text(proof.file.as_ref())?.unwrap_or_default();
    Ok((!text.contains(proof.words)).then(|| {
        format!(
            "README.md: `{}` should be run by {}, which has no `{}`",
            proof.command, proof.file, proof.words
        )
    }))
}

/// Why the guest would not take a request, if so.
fn refused(request: &str) -> Option<String> {
    let refusal = RequestLine::parse(request).err()?;
    Some(format!(
        "README.md: the guest does not take `{request}`: {}",
        refusal.error
    ))
}

/// The channel's commands and the kinds of problems that README.md does not name.
fn unexplained(readme: &str) -> Result<Vec<String>> {
    let schema =
        project::text(Path::new(SCHEMA))?.with_context(|| format!("{SCHEMA} is not text"))?;
    let codes = problem_codes(&schema)?;
    let names = Call::NAMES.into_iter().map(str::to_owned).chain(codes);
    Ok(names
        .filter(|name| !readme.contains(&format!("`{name}`")))
        .map(|name| format!("README.md: does not explain `{name}`"))
        .collect())
}

fn problem_codes(schema: &str) -> Result<Vec<String>> {
    let schema: Value = serde_json::from_str(schema).context("the channel's schema is not JSON")?;
    let codes = schema.pointer(PROBLEM_CODES).and_then(Value::as_array);
    let codes = codes.with_context(|| format!("{SCHEMA} has nothing at {PROBLEM_CODES}"))?;
    Ok(codes
        .iter()
        .filter_map(|code| Some(code["const"].as_str()?.to_owned()))
        .collect())
}

/// The lines of the blocks in this language, without comments and a leading `sudo`.
fn lines_of<'a>(markdown: &'a str, language: &str) -> Vec<&'a str> {
    let mut lines = Vec::new();
    let mut in_block = false;
    for line in markdown.lines().map(str::trim) {
        if let Some(marked) = line.strip_prefix("```") {
            in_block = marked == language;
        } else if in_block {
            let line = line.split(" #").next().unwrap_or(line).trim();
            if !line.is_empty() && !line.starts_with('#') {
                lines.push(line.strip_prefix("sudo ").unwrap_or(line));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_from_blocks_of_the_language_only() {
        let text = "```sh\n# a note\nsudo tandem status   # for people\n\ncargo xtask test\n```\n\
                    ```toml\nkey = 1\n```\n```\nls\n```\n";
        assert_eq!(lines_of(text, "sh"), ["tandem status", "cargo xtask test"]);
        assert_eq!(lines_of(text, "toml"), ["key = 1"]);
    }

    #[test]
    fn a_request_that_the_guest_refuses_is_found() {
        assert_eq!(refused(r#"{"execute": "tandem-status"}"#), None);
        assert!(
            refused(r#"{"execute": "tandem-dance"}"#)
                .unwrap()
                .contains("tandem-dance")
        );
    }

    #[test]
    fn a_problem_that_is_not_explained_is_found() {
        let found = unexplained("`guest-ping` and `mac-refused`").unwrap();
        assert!(
            found
                .iter()
                .any(|finding| finding.contains("`mtu-refused`")),
            "{found:?}"
        );
        assert!(
            !found
                .iter()
                .any(|finding| finding.contains("`mac-refused`")),
            "{found:?}"
        );
    }

    #[test]
    fn a_proof_that_is_gone_is_found() {
        assert_eq!(
            missing(&proof("x", ".ci/run", "cargo xtask test")).unwrap(),
            None
        );
        let found = missing(&proof("x", ".ci/run", "no such words"))
            .unwrap()
            .unwrap();
        assert!(found.contains("no such words"));
    }
}
