//! What all comparisons have in common: what the project says of itself, held against figures, and files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_lab::artifacts::cache;
use tandem_lab::command;

/// Where pages are committed.
const RESULTS: &str = "tests/results";

/// One claim and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) text: String,
    pub(super) holds: bool,
}

impl Claim {
    /// In a line.
    pub(super) fn line(&self) -> String {
        let mark = if self.holds { "ok    " } else { "MISSED" };
        format!("{mark}  {}", self.text)
    }

    /// As an item of a page.
    fn item(&self) -> String {
        let mark = if self.holds { "holds" } else { "**missed**" };
        format!("* {mark}: {}\n", self.text)
    }
}

/// All of them for a page.
pub(super) fn markdown(claims: &[Claim]) -> String {
    claims.iter().map(Claim::item).collect()
}

pub(super) fn json(claims: &[Claim]) -> Value {
    let claims = claims.iter();
    claims
        .map(|claim| json!({ "claim": claim.text, "holds": claim.holds }))
        .collect()
}

/// Fails if one does not hold.
pub(super) fn hold(claims: &[Claim]) -> Result<()> {
    let missed = claims.iter().filter(|claim| !claim.holds).count();
    ensure!(missed == 0, "{missed} claims do not hold in this run");
    Ok(())
}

/// Where this machine's results go.
pub(super) fn folder() -> PathBuf {
    cache::target_folder().join("bench")
}

/// Where pages go that are committed.
pub(super) fn pages() -> PathBuf {
    cache::workspace_folder().join(RESULTS)
}

pub(super) fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    command::progress(&format!("written: {}", path.display()));
    Ok(())
}

/// What an earlier run wrote to [`folder`].
pub(super) fn read(name: &str) -> Result<Value> {
    let path = folder().join(name);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missed_claim_is_a_failure() {
        let claim = |holds| Claim {
            text: "nothing lost".to_owned(),
            holds,
        };
        assert!(hold(&[claim(true)]).is_ok());
        assert!(hold(&[claim(true), claim(false)]).is_err());
        let page = markdown(&[claim(true), claim(false)]);
        assert_eq!(page, "* holds: nothing lost\n* **missed**: nothing lost\n");
    }
}
