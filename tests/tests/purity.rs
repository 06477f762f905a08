//! The core is pure: `no_std` in every line. What it may depend on is checked by `cargo xtask check purity`.

use std::path::{Path, PathBuf};

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
