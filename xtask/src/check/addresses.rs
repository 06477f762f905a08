//! The project names no path of one machine and no package registry, so that it builds anywhere.

use std::path::Path;

use anyhow::Result;

use super::Report;
use crate::project;

/// Folders that exist on one machine only. Written in halves, so that this file does not find itself.
const MACHINE_FOLDERS: [&str; 4] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/fa", "rm/"),
    concat!("/ho", "me/"),
];
/// A path starts at the line's start or after one of these.
const BEFORE_A_PATH: &str = " \t\"'`=(:,[";
/// Words that a registry's or mirror's host name has in it.
const REGISTRY_WORDS: [&str; 8] = [
    "crates",
    "deb",
    "mirror",
    "npm",
    "proxy",
    "pypi",
    "pythonhosted",
    "registry",
];
/// Top-level names that are kept for examples and tests (RFC 2606), and can be nobody's registry.
const RESERVED_NAMES: [&str; 3] = [".test", ".example", ".invalid"];

pub(super) fn check() -> Result<Report> {
    // Cargo writes its lock file, with the one registry that deny.toml allows.
    let texts = project::texts(|file| file != Path::new("Cargo.lock"))?;
    let mut findings = Vec::new();
    for (file, text) in &texts {
        for (index, line) in text.lines().enumerate() {
            findings.extend(
                finding(line).map(|what| format!("{}:{}: {what}", file.display(), index + 1)),
            );
        }
    }
    Ok(Report {
        looked_at: format!("{} text files", texts.len()),
        findings,
    })
}

fn finding(line: &str) -> Option<String> {
    let folder = MACHINE_FOLDERS.iter().find(|folder| {
        line.match_indices(**folder).any(|(at, _)| {
            line[..at]
                .chars()
                .next_back()
                .is_none_or(|before| BEFORE_A_PATH.contains(before))
        })
    });
    if let Some(folder) = folder {
        return Some(format!("a path of one machine ({folder}…)"));
    }
    hosts(line)
        .find(|host| is_registry(host))
        .map(|host| format!("the address of a package registry ({host})"))
}

fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.split("://").skip(1).filter_map(|rest| {
        rest.split(|c: char| !(c.is_ascii_alphanumeric() || "-.".contains(c)))
            .next()
    })
}

fn is_registry(host: &str) -> bool {
    !RESERVED_NAMES
        .iter()
        .any(|reserved| host.ends_with(reserved))
        && REGISTRY_WORDS.iter().any(|word| host.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_paths_are_found_and_others_are_not() {
        for line in [
            concat!("cd /wo", "rk/main"),
            concat!("\"/ro", "ot/.cargo\""),
            concat!("PATH=/ho", "me/me/bin"),
        ] {
            assert!(
                finding(line).unwrap().starts_with("a path of one machine"),
                "{line}"
            );
        }
        for line in [
            "/usr/lib/modules",
            concat!("$TOP/wo", "rk/x"),
            "mount /root",
            "~/.cargo/bin",
        ] {
            assert_eq!(finding(line), None, "{line}");
        }
    }

    #[test]
    fn registries_are_found_and_other_hosts_are_not() {
        for line in [
            concat!("deb https:/", "/deb.debian.org/debian x"),
            concat!("url: http:/", "/mirror.corp:80/p"),
        ] {
            assert!(
                finding(line).unwrap().contains("package registry"),
                "{line}"
            );
        }
        for line in [
            "http://mirror.test/debian",
            "https://docs.kernel.org/x",
            "https://github.com/rust-lang/crates.io-index",
        ] {
            assert_eq!(finding(line), None, "{line}");
        }
    }
}
