//! The licences of the libraries that a program contains: most ask that their text comes along.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tandem_lab::command;

use crate::project;

const QUERY_LIMIT: Duration = Duration::from_secs(120);
/// How the names of such files begin, in lower case.
const NAMES: [&str; 5] = ["licen", "copying", "copyright", "notice", "unlicense"];
const RULE: &str =
    "\n--------------------------------------------------------------------------------\n";

/// A text for people: each library with its licence, then each text once.
pub(super) fn notices(crate_name: &str) -> Result<String> {
    let mut text = String::from("The program contains these libraries.\n\n");
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for library in libraries(crate_name)? {
        writeln!(text, "{}: {}", library.title, library.licence)?;
        for file in licence_files(&library.folder)? {
            let words =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let words = String::from_utf8_lossy(&words).trim().to_owned();
            let titles = texts.entry(words).or_default();
            titles.insert(library.title.clone());
        }
    }
    for (words, titles) in texts {
        let titles = Vec::from_iter(titles).join(", ");
        write!(text, "{RULE}{titles}:\n\n{words}\n")?;
    }
    Ok(text)
}

struct Library {
    /// Name and version.
    title: String,
    licence: String,
    folder: PathBuf,
}

/// What is linked in, directly or not, from other projects.
fn libraries(crate_name: &str) -> Result<Vec<Library>> {
    let cargo = |arguments: &[&str]| {
        let mut ask = project::cargo();
        ask.args(arguments).arg("--locked");
        Ok::<_, anyhow::Error>(command::run(&mut ask, QUERY_LIMIT)?.stdout)
    };
    let tree = cargo(&[
        "tree",
        "--package",
        crate_name,
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--no-dedupe",
    ])?;
    let linked: BTreeSet<String> = tree.lines().filter_map(title).collect();
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1"])?)
        .context("cargo metadata did not print JSON")?;
    let packages = metadata["packages"].as_array();
    let packages = packages.context("cargo metadata names no packages")?;
    let of_others = packages
        .iter()
        .filter(|package| !package["source"].is_null());
    let found: BTreeMap<String, Library> = of_others
        .filter_map(library)
        .map(|library| (library.title.clone(), library))
        .filter(|(title, _)| linked.contains(title))
        .collect();
    Ok(found.into_values().collect())
}

/// `NAME VERSION`, from a line such as `NAME vVERSION (FOLDER)`.
fn title(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let (name, version) = (words.next()?, words.next()?);
    Some(format!("{name} {}", version.strip_prefix('v')?))
}

fn library(package: &Value) -> Option<Library> {
    let word = |key: &str| package[key].as_str();
    Some(Library {
        title: format!("{} {}", word("name")?, word("version")?),
        licence: word("license").unwrap_or("see its text").to_owned(),
        folder: Path::new(word("manifest_path")?).parent()?.to_owned(),
    })
}

fn licence_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let is_licence = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_lowercase();
        path.is_file() && NAMES.iter().any(|begin| name.starts_with(begin))
    };
    let paths = entries.iter().map(fs::DirEntry::path);
    let mut files: Vec<_> = paths.filter(is_licence).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_contains_is_named_with_its_licence() {
        let notices = notices("tandem-guest").unwrap();
        assert!(
            notices.contains("\naya 0.14.0: MIT OR Apache-2.0\n"),
            "{notices}"
        );
        assert!(notices.contains("Permission is hereby granted"));
        // For tests or other systems only, and not another's.
        assert!(!notices.contains("\nproptest "));
        assert!(!notices.contains("\nwindows-sys "));
        assert!(!notices.contains("\ntandem-core "));
    }
}
