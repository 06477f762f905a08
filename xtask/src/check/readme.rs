//! README.md tells the truth: every command it shows is run by something in this project, every request it
//! shows is one that the guest takes, and every command of the channel and every problem is explained.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tandem_core::policy::Timing;
use tandem_lab::full_guest::install;
use tandem_lab::{readme, tandem};
use tandem_wire::{Call, RequestLine};

use super::Report;
use crate::project;

/// How a command that installs a file begins.
const INSTALL: &str = "install -D ";

/// Commands of README.md, and what runs them: a file of the project, and words of it that do.
struct Proof {
    /// The whole command, or its beginning if it ends with a space.
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

/// Runs the commands of README.md's installation in a guest.
const NEVER_WORSE: &str = "tests/tests/never_worse/main.rs";
const RUNS_INSTALLATION: &str = "plain.install_as_the_readme_says()?";

/// Every command that README.md may show, without a leading `sudo`. Those that install are held against the
/// lab's own list instead.
const PROOFS: [Proof; 11] = [
    proof("cargo xtask test", ".ci/run", "cargo xtask test"),
    proof(
        "cargo xtask demo",
        "xtask/src/test/suites.rs",
        "&[\"demo\"]",
    ),
    proof(
        "cargo build --release --package tandem-guest --bin tandem",
        "xtask/src/test/suites.rs",
        "build --release --package tandem-guest --bin tandem",
    ),
    proof("tandem ", "tests/tests/readme.rs", "readme::commands"),
    proof(
        "tandem-host prepare DOMAIN",
        "tests/tests/libvirt_faults/guest.rs",
        "one_step(\"prepare\", &world.home)",
    ),
    proof(
        "tandem-host resume DOMAIN",
        "tests/tests/libvirt_faults/guest.rs",
        "one_step(\"resume\", &world.home)",
    ),
    proof(
        "install -m 755 helper/host/hooks/qemu /etc/libvirt/hooks/qemu.d/tandem",
        "tests/src/libvirt/daemon.rs",
        "helper/host/hooks/qemu",
    ),
    proof(
        "systemd-sysusers tandem.conf",
        NEVER_WORSE,
        RUNS_INSTALLATION,
    ),
    proof("systemctl daemon-reload", NEVER_WORSE, RUNS_INSTALLATION),
    proof("udevadm control --reload", NEVER_WORSE, RUNS_INSTALLATION),
    proof(
        "systemctl enable tandem.service",
        NEVER_WORSE,
        RUNS_INSTALLATION,
    ),
];

/// Other pages whose commands are run.
const PAGES: [&str; 1] = ["helper/host/docs/other-managers.md"];
/// The committed schema of the channel, which the types gave.
const SCHEMA: &str = "helper/schema/channel.schema.json";
/// Where the schema lists the kinds of problems.
const PROBLEM_CODES: &str = "/$defs/return/$defs/ProblemCode/oneOf";

pub(super) fn check() -> Result<Report> {
    let readme = readme::text()?;
    let commands = readme::commands(&readme);
    let requests: Vec<String> = readme::blocks(&readme, "json")
        .iter()
        .flat_map(|block| block.lines())
        .map(str::to_owned)
        .collect();
    let mut findings = unexplained(&readme)?;
    findings.extend(requests.iter().filter_map(|request| refused(request)));
    findings.extend(other_defaults(&readme)?);
    let (installs, mut others): (Vec<_>, Vec<_>) = commands
        .into_iter()
        .partition(|command| command.starts_with(INSTALL));
    findings.extend(other_installs(&installs));
    for page in PAGES {
        let text = project::text(page.as_ref())?.with_context(|| format!("{page} is no text"))?;
        others.extend(readme::commands(&text));
    }
    for command in &others {
        findings.extend(unproven(command)?);
    }
    Ok(Report {
        looked_at: format!(
            "{} commands and {} requests of README.md and {}",
            installs.len() + others.len(),
            requests.len(),
            PAGES.join(", ")
        ),
        findings,
    })
}

/// Why nothing shows that a command works, if so.
fn unproven(command: &str) -> Result<Option<String>> {
    match PROOFS.iter().find(|proof| proof.is_of(command)) {
        Some(proof) => missing(proof),
        None => Ok(Some(format!(
            "`{command}` is run by no test that {} knows",
            file!()
        ))),
    }
}

impl Proof {
    fn is_of(&self, command: &str) -> bool {
        command == self.command || self.command.ends_with(' ') && command.starts_with(self.command)
    }
}

/// Files that README.md installs and the lab's full guest does not, or the other way round.
fn other_installs(commands: &[String]) -> Vec<String> {
    let file = |(from, to): &(&str, &str)| format!("{INSTALL}-m 644 {from} {to}");
    let mut wanted: Vec<String> = install::FILES.iter().map(file).collect();
    wanted.push(format!(
        "{INSTALL}-m 755 target/release/tandem {}",
        tandem::PROGRAM
    ));
    let shown: Vec<&String> = commands
        .iter()
        .filter(|command| command.starts_with(INSTALL))
        .collect();
    let lacking = wanted.iter().filter(|command| !shown.contains(command));
    let lacking =
        lacking.map(|command| format!("README.md: lacks `{command}`, which the full guest has"));
    let unknown = shown.iter().filter(|command| !wanted.contains(command));
    let unknown =
        unknown.map(|command| format!("README.md: `{command}` is not what the full guest has"));
    lacking.chain(unknown).collect()
}

/// Times and counts whose default README.md does not show.
fn other_defaults(readme: &str) -> Result<Vec<String>> {
    let Value::Object(defaults) = serde_json::to_value(Timing::default())? else {
        bail!("the timing is not a table");
    };
    let lines = defaults
        .iter()
        .map(|(key, value)| format!("{key} = {value}"));
    Ok(lines
        .filter(|line| {
            !readme
                .lines()
                .any(|shown| shown.split('#').next().unwrap_or("").trim() == line)
        })
        .map(|line| format!("README.md: does not show the default `{line}`"))
        .collect())
}

fn missing(proof: &Proof) -> Result<Option<String>> {
    let text = project::text(proof.file.as_ref())?.unwrap_or_default();
    Ok((!text.contains(proof.words)).then(|| {
        format!(
            "`{}` should be run by {}, which has no `{}`",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_default_is_found() {
        let found = other_defaults("  hold-ms = 1000   # a note\nminimum-hold-ms = 3\n").unwrap();
        assert!(
            !found.iter().any(|finding| finding.contains("`hold-ms")),
            "{found:?}"
        );
        assert!(
            found
                .iter()
                .any(|finding| finding.contains("`settle-ms = ")),
            "{found:?}"
        );
    }

    #[test]
    fn another_installation_is_found() {
        let found = other_installs(&["install -D -m 644 x /usr/x".to_owned()]);
        assert!(
            found
                .iter()
                .any(|finding| finding.contains("lacks `install -D -m 755 target/release/tandem"))
        );
        assert!(
            found
                .iter()
                .any(|finding| finding.contains("-m 644 x /usr/x` is not"))
        );
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
    fn a_command_that_nothing_runs_is_found() {
        assert_eq!(unproven("cargo xtask test").unwrap(), None);
        assert_eq!(unproven("tandem-host resume DOMAIN").unwrap(), None);
        let found = unproven("tandem-host dance DOMAIN").unwrap().unwrap();
        assert!(found.contains("dance"), "{found}");
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
