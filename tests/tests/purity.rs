//! The core is pure: `no_std`, no dependency that could do I/O or read a clock.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Everything that the core may depend on; the last only for `cargo xtask`.
const ALLOWED: [(&str, bool); 3] = [("schemars", true), ("serde", false), ("thiserror", false)];

#[test]
fn core_depends_on_nothing_that_could_do_io() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let core = packages.iter().find(|one| one["name"] == "tandem-core");
    let core = core.expect("tandem-core is in the workspace");
    let dependencies = core["dependencies"].as_array().expect("dependencies");
    let mut found: Vec<(String, bool)> = Vec::new();
    for dependency in dependencies.iter().filter(|one| one["kind"].is_null()) {
        let name = dependency["name"].as_str().expect("a name").to_string();
        let optional = dependency["optional"] == true;
        let defaults = dependency["uses_default_features"] == true;
        assert!(
            optional || !defaults,
            "{name} brings its default features, std among them"
        );
        found.push((name, optional));
    }
    found.sort();
    let allowed = ALLOWED.map(|(name, optional)| (name.to_string(), optional));
    assert_eq!(found, allowed);
}

#[test]
fn core_is_no_std_in_every_line() {
    let folder = root().join("helper/core/src");
    let library = read(&folder.join("lib.rs"));
    assert!(library.lines().any(|line| line == "#![no_std]"));
    let mut files = 0;
    for path in rust_files(&folder) {
        files += 1;
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in ["std::", "extern crate std", "println!", "unsafe "] {
                let place = format!("{}:{}: {line}", path.display(), number + 1);
                assert!(!code.contains(word), "{place}");
            }
        }
    }
    assert!(files > 10, "only {files} files were looked at");
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("a workspace around it").into()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}

fn read(path: &Path) -> String {
    match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}
