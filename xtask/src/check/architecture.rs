//! ARCHITECTURE.md and docs/trust.md name only what is there: each path in backticks exists, and each test stands in
//! its file.

use std::path::Path;

use anyhow::{Context, Result};
use tandem_lab::artifacts::cache;

use super::Report;
use crate::project;

const DOCUMENTS: [&str; 2] = ["ARCHITECTURE.md", "docs/trust.md"];
/// Words in backticks that begin so are paths of the project.
const TOPS: [&str; 9] = [
    "docs/",
    "helper/",
    "helper-ebpf/",
    "tests/",
    "xtask/",
    "packaging/",
    "udev-rules/",
    ".ci/",
    ".cargo/",
];

pub(super) fn check() -> Result<Report> {
    let (mut count, mut findings) = (0, Vec::new());
    for document in DOCUMENTS {
        let text =
            project::text(document.as_ref())?.with_context(|| format!("{document} is not text"))?;
        for name in names(&text) {
            count += 1;
            findings.extend(missing(name)?.map(|why| format!("{document}: `{name}`: {why}")));
        }
    }
    Ok(Report {
        looked_at: format!("{count} names of {}", DOCUMENTS.join(" and ")),
        findings,
    })
}

/// What stands in backticks and is a path: `FILE`, `FOLDER/`, or `FILE::TEST`.
fn names(text: &str) -> Vec<&str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|name| TOPS.iter().any(|top| name.starts_with(top)))
        .collect()
}

fn missing(name: &str) -> Result<Option<&'static str>> {
    let (path, test) = name
        .split_once("::")
        .map_or((name, None), |(path, test)| (path, Some(test)));
    if !cache::workspace_folder().join(path).exists() {
        return Ok(Some("does not exist"));
    }
    let Some(test) = test else { return Ok(None) };
    let text = project::text(Path::new(path))?.unwrap_or_default();
    Ok((!text.contains(&format!("fn {test}("))).then_some("no such test stands there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_tests_are_told_from_other_words() {
        let text = "see `helper/core/` and `cargo`, or `tests/tests/sim.rs::a_test`\n";
        assert_eq!(names(text), ["helper/core/", "tests/tests/sim.rs::a_test"]);
    }

    #[test]
    fn what_is_not_there_is_found() {
        assert_eq!(missing("xtask/src/").unwrap(), None);
        assert_eq!(
            missing("xtask/src/check/architecture.rs::what_is_not_there_is_found").unwrap(),
            None
        );
        assert_eq!(
            missing("xtask/src/nowhere.rs").unwrap(),
            Some("does not exist")
        );
        let gone = missing("xtask/src/main.rs::a_test_of_old").unwrap();
        assert_eq!(gone, Some("no such test stands there"));
    }
}
