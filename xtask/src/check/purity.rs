//! The core and the carry decide without I/O and without a clock, and the wire format is bytes in, bytes out:
//! all are `no_std`, and depend on nothing that could do more (invariant 1 of ARCHITECTURE.md).

use std::time::Duration;

use anyhow::{Context, Result};
use tandem_lab::command;

use super::Report;
use crate::project;

const TREE_LIMIT: Duration = Duration::from_secs(120);

/// A package that must stay pure.
struct Pure {
    package: &'static str,
    folder: &'static str,
    /// What may be in its tree of normal dependencies, itself left out. Derive macros run in the compiler only.
    allowed: &'static [&'static str],
    /// Its dependencies may use `std`.
    std_below: bool,
}

const DERIVES: [&str; 8] = [
    "proc-macro2",
    "quote",
    "serde",
    "serde_core",
    "serde_derive",
    "syn",
    "thiserror",
    "unicode-ident",
];

const PURE: [Pure; 3] = [
    Pure {
        package: "tandem-core",
        folder: "helper/core",
        allowed: &["thiserror-impl"],
        std_below: false,
    },
    Pure {
        package: "tandem-wire",
        folder: "helper/wire",
        allowed: &[
            "tandem-core",
            "thiserror-impl",
            "serde_ignored",
            "serde_json",
            "itoa",
            "memchr",
            "zmij",
        ],
        // serde_json's reader of raw values.
        std_below: true,
    },
    Pure {
        package: "tandem-carry",
        folder: "helper/carry",
        allowed: &["thiserror-impl"],
        std_below: false,
    },
];

pub(super) fn check() -> Result<Report> {
    let mut findings = Vec::new();
    for pure in PURE {
        let lib = format!("{}/src/lib.rs", pure.folder);
        let text = project::text(lib.as_ref())?.with_context(|| format!("{lib} is not text"))?;
        findings.extend(source_findings(&lib, &text));
        findings.extend(tree_findings(&pure, &tree(pure.package)?));
    }
    let names: Vec<_> = PURE.iter().map(|pure| pure.package).collect();
    Ok(Report {
        looked_at: names.join(" and "),
        findings,
    })
}

/// The package's tree of normal dependencies, as it is built for the guest: a line for each with its features
/// after a tab.
fn tree(package: &str) -> Result<String> {
    let mut tree = project::cargo();
    tree.args([
        "tree",
        "--package",
        package,
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}\t{f}",
    ]);
    Ok(command::run(&mut tree, TREE_LIMIT)?.stdout)
}

fn source_findings(file: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if !text.lines().any(|line| line.trim() == "#![no_std]") {
        findings.push(format!("{file}: has no `#![no_std]`"));
    }
    let unless_test = text
        .lines()
        .zip(text.lines().skip(1))
        .any(|(before, line)| {
            line.trim() == "extern crate std;" && !before.trim().starts_with("#[cfg(test)]")
        });
    if unless_test {
        findings.push(format!("{file}: takes `std` back in outside of tests"));
    }
    findings
}

fn tree_findings(pure: &Pure, tree: &str) -> Vec<String> {
    let mut names: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    names.sort_unstable();
    names.dedup();
    let unlisted = names
        .into_iter()
        .filter(|name| {
            *name != pure.package && !DERIVES.contains(name) && !pure.allowed.contains(name)
        })
        .map(|name| {
            format!(
                "{}: depends on `{name}`, which is not on the list in {}",
                pure.package,
                file!()
            )
        });
    let with_std = tree.lines().filter(|line| {
        let features = line.split('\t').nth(1).unwrap_or_default();
        features.split([',', ' ']).any(|feature| feature == "std")
    });
    let with_std = with_std.filter(|_| !pure.std_below).map(|line| {
        let name = line.split_whitespace().next().unwrap_or_default();
        format!("{}: `{name}` brings `std` with it", pure.package)
    });
    unlisted.chain(with_std).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_off_the_list_is_found() {
        let clean = "tandem-core v0.1.0 (/x)\nserde v1.0.229\nserde_core v1.0.229 (*)\n";
        assert_eq!(tree_findings(&PURE[0], clean), Vec::<String>::new());
        let found = tree_findings(
            &PURE[0],
            "tandem-core v0.1.0\ntokio v1.54.1\ntokio v1.54.1 (*)\n",
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("`tokio`"));
    }

    #[test]
    fn std_below_the_core_is_found() {
        let tree =
            "tandem-core v0.1.0 (/x)\t\nserde v1.0.229\talloc,std\nsyn v3.0.10\tdefault (*)\n";
        let found = tree_findings(&PURE[0], tree);
        assert_eq!(found, ["tandem-core: `serde` brings `std` with it"]);
        assert!(tree_findings(&PURE[1], tree).is_empty());
    }

    #[test]
    fn std_outside_of_tests_is_found() {
        assert_eq!(
            source_findings("lib.rs", "#![no_std]\n#[cfg(test)]\nextern crate std;\n").len(),
            0
        );
        assert_eq!(
            source_findings("lib.rs", "#![no_std]\nextern crate std;\n").len(),
            1
        );
        assert_eq!(source_findings("lib.rs", "mod x;\n").len(), 1);
    }
}
