//! No source file is longer than a newcomer reads in one sitting, unless it says why.

use std::path::Path;

use anyhow::Result;

use super::Report;
use crate::project;

/// The most lines a source file may have without a reason.
const LIMIT_LINES: usize = 500;
/// What people write and read; not licences, lock files or generated files.
const SOURCES: [&str; 7] = ["md", "py", "rs", "rules", "service", "sh", "toml"];
/// A file over the limit says why in one of its first lines, after these words.
const REASON: &str = "Over 500 lines because ";
/// How far down the reason may stand.
const REASON_WITHIN_LINES: usize = 10;

pub(super) fn check() -> Result<Report> {
    let sources = project::texts(is_source)?;
    let findings = sources
        .iter()
        .filter_map(|(file, text)| finding(file, text));
    Ok(Report {
        looked_at: format!("{} source files", sources.len()),
        findings: findings.collect(),
    })
}

fn is_source(file: &Path) -> bool {
    file.extension()
        .and_then(|name| name.to_str())
        .is_some_and(|name| SOURCES.contains(&name))
}

fn finding(file: &Path, text: &str) -> Option<String> {
    let lines = text.lines().count();
    let reasoned = text
        .lines()
        .take(REASON_WITHIN_LINES)
        .any(|line| line.contains(REASON));
    (lines > LIMIT_LINES && !reasoned).then(|| {
        format!(
            "{}: {lines} lines, over {LIMIT_LINES}: split it by topic, or say `{REASON}…` at its top",
            file.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_found_unless_it_says_why() {
        let file = Path::new("helper/src/x.rs");
        assert!(is_source(file));
        assert!(!is_source(Path::new("Cargo.lock")));
        assert_eq!(finding(file, &"line\n".repeat(500)), None);
        let found = finding(file, &"line\n".repeat(501)).unwrap();
        assert!(found.starts_with("helper/src/x.rs: 501 lines"), "{found}");
        let reasoned = format!("//! {REASON}the table is one.\n{}", "line\n".repeat(501));
        assert_eq!(finding(file, &reasoned), None);
    }
}
