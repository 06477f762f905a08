//! Every command that README.md shows is run by something in this project, so that none goes stale.

use anyhow::{Context, Result};

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

pub(super) fn check() -> Result<Report> {
    let readme = project::text("README.md".as_ref())?.context("README.md is not text")?;
    let commands = commands(&readme);
    let mut findings = Vec::new();
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
        looked_at: format!("{} commands of README.md", commands.len()),
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

/// The commands in the blocks marked `sh`, one a line; comments and `sudo` left out.
fn commands(markdown: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut in_commands = false;
    for line in markdown.lines().map(str::trim) {
        if let Some(language) = line.strip_prefix("```") {
            in_commands = language == "sh";
        } else if in_commands {
            let command = line.split(" #").next().unwrap_or(line).trim();
            if !command.is_empty() && !command.starts_with('#') {
                commands.push(command.strip_prefix("sudo ").unwrap_or(command));
            }
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_from_sh_blocks_only() {
        let text = "```sh\n# a note\nsudo tandem status   # for people\n\ncargo xtask test\n```\n\
                    ```toml\nkey = 1\n```\n```\nls\n```\n";
        assert_eq!(commands(text), ["tandem status", "cargo xtask test"]);
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
