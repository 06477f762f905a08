//! README.md and the pages of `docs/` tell the truth: every command they show is run by something in this
//! project, every request they show is one that the guest takes, every link leads somewhere, and every command
//! of the channel and every problem is explained. That `docs/reference.md` is what the types give, and that
//! every option exists, is held by `xtask/manual/`.

mod figures;
mod links;
mod proofs;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tandem_core::policy::Timing;
use tandem_lab::full_guest::install;
use tandem_lab::readme::{self, Page};
use tandem_lab::tandem;
use tandem_wire::{Call, RequestLine};

use super::Report;
use crate::project;

/// How a command that installs a file of the guest begins.
const INSTALL: &str = "install -D ";
/// A first page is read to its end.
const README_LINES: usize = 150;
/// The page that explains every command of the channel and every problem.
const REFERENCE: &str = "docs/reference.md";
/// The page that shows a whole configuration file.
const GUIDE: &str = "docs/guide.md";
/// The committed schema of the channel, which the types gave.
const SCHEMA: &str = "helper/schema/channel.schema.json";
/// Where the schema lists the kinds of problems.
const PROBLEM_CODES: &str = "/$defs/return/$defs/ProblemCode/oneOf";

pub(super) fn check() -> Result<Report> {
    let pages = readme::pages()?;
    let first = page(&pages, readme::FIRST)?;
    let mut findings = too_long(first);
    findings.extend(unexplained(page(&pages, REFERENCE)?)?);
    findings.extend(other_defaults(page(&pages, GUIDE)?)?);
    let mut results = String::new();
    for page in figures::RESULTS {
        results += &project::text(page.as_ref())?.context("the results are not text")?;
    }
    findings.extend(figures::others(first, &results));
    let mut installs = Vec::new();
    let (mut commands, mut requests) = (0, 0);
    for page in &pages {
        findings.extend(links::broken(page)?);
        for command in readme::commands(&page.text) {
            commands += 1;
            if command.starts_with(INSTALL) {
                installs.push(command);
            } else {
                findings.extend(proofs::unproven(&command)?);
            }
        }
        let blocks = readme::blocks(&page.text, "json");
        for request in blocks.iter().flat_map(|block| block.lines()) {
            requests += 1;
            findings.extend(refused(&page.name, request));
        }
    }
    findings.extend(other_installs(&installs));
    let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
    Ok(Report {
        looked_at: format!(
            "{commands} commands and {requests} requests of {}",
            names.join(", ")
        ),
        findings,
    })
}

fn page<'a>(pages: &'a [Page], name: &str) -> Result<&'a str> {
    let page = pages.iter().find(|page| page.name == name);
    Ok(&page.with_context(|| format!("there is no {name}"))?.text)
}

fn too_long(readme: &str) -> Vec<String> {
    let lines = readme.lines().count();
    let too_long = lines > README_LINES;
    let finding =
        || format!("README.md: {lines} lines, over {README_LINES}: the rest is for docs/");
    too_long.then(finding).into_iter().collect()
}

/// Files that the guide installs by hand and the lab's full guest does not, or the other way round.
fn other_installs(commands: &[String]) -> Vec<String> {
    let file = |(from, to): &(&str, &str)| format!("{INSTALL}-m 644 {from} {to}");
    let mut wanted: Vec<String> = install::FILES.iter().map(file).collect();
    wanted.push(format!(
        "{INSTALL}-m 755 target/release/tandem {}",
        tandem::PROGRAM
    ));
    let lacking = wanted.iter().filter(|command| !commands.contains(command));
    let lacking =
        lacking.map(|command| format!("{GUIDE}: lacks `{command}`, which the full guest has"));
    let unknown = commands.iter().filter(|command| !wanted.contains(command));
    let unknown =
        unknown.map(|command| format!("{GUIDE}: `{command}` is not what the full guest has"));
    lacking.chain(unknown).collect()
}

/// Times and counts whose default the guide does not show.
fn other_defaults(guide: &str) -> Result<Vec<String>> {
    let Value::Object(defaults) = serde_json::to_value(Timing::default())? else {
        bail!("the timing is not a table");
    };
    let lines = defaults
        .iter()
        .map(|(key, value)| format!("{key} = {value}"));
    Ok(lines
        .filter(|line| {
            !guide
                .lines()
                .any(|shown| shown.split('#').next().unwrap_or("").trim() == line)
        })
        .map(|line| format!("{GUIDE}: does not show the default `{line}`"))
        .collect())
}

/// Why the guest would not take a request, if so.
fn refused(page: &str, request: &str) -> Option<String> {
    let why = match RequestLine::parse(request) {
        Err(refusal) => refusal.error.to_string(),
        Ok(received) if received.reply_to.ignored.is_empty() => return None,
        Ok(received) => format!("it passes over {}", received.reply_to.ignored.join(", ")),
    };
    Some(format!(
        "{page}: the guest does not take `{request}`: {why}"
    ))
}

/// The channel's commands and the kinds of problems that the reference does not name.
fn unexplained(reference: &str) -> Result<Vec<String>> {
    let schema =
        project::text(Path::new(SCHEMA))?.with_context(|| format!("{SCHEMA} is not text"))?;
    let codes = problem_codes(&schema)?;
    let names = Call::NAMES.into_iter().map(str::to_owned).chain(codes);
    Ok(names
        .filter(|name| !reference.contains(&format!("`{name}`")))
        .map(|name| {
            format!("{REFERENCE}: does not explain `{name}`; `cargo xtask reference` writes it")
        })
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
    fn a_first_page_that_is_too_long_is_found() {
        assert_eq!(too_long(&"line\n".repeat(150)), Vec::<String>::new());
        assert_eq!(too_long(&"line\n".repeat(151)).len(), 1);
    }

    #[test]
    fn a_request_that_the_guest_refuses_is_found() {
        assert_eq!(refused("a page", r#"{"execute": "tandem-status"}"#), None);
        assert!(
            refused("a page", r#"{"execute": "tandem-dance"}"#)
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
}
