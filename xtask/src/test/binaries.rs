//! The test programs that one `cargo test --no-run` built, as it named them.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::Value;

/// A test program of this workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binary {
    /// Its main source file.
    pub(super) source: PathBuf,
    /// Whether it is an integration test (a file in a package's `tests/`), else a library's or program's own tests.
    pub(super) is_integration: bool,
    /// The package's folder, where its tests run.
    pub(super) folder: PathBuf,
    /// The program.
    pub(super) executable: PathBuf,
}

/// Reads cargo's `--message-format=json`.
pub(super) fn parse(messages: &str) -> Result<Vec<Binary>> {
    let binaries: Vec<_> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| {
            message["reason"] == "compiler-artifact" && message["profile"]["test"] == true
        })
        .filter_map(|message| binary(&message))
        .collect();
    if binaries.is_empty() {
        bail!("cargo named no test program");
    }
    Ok(binaries)
}

fn binary(message: &Value) -> Option<Binary> {
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    Some(Binary {
        source: PathBuf::from(message["target"]["src_path"].as_str()?),
        is_integration: message["target"]["kind"][0] == "test",
        folder: manifest.parent()?.to_path_buf(),
        executable: PathBuf::from(message["executable"].as_str()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_programs_are_taken() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/p/core/Cargo.toml","target":{"src_path":"/p/core/src/lib.rs","kind":["lib"]},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/p/core/Cargo.toml","target":{"src_path":"/p/core/src/lib.rs","kind":["lib"]},"profile":{"test":true},"executable":"/t/tandem_core-1"}
{"reason":"compiler-artifact","manifest_path":"/p/core/Cargo.toml","target":{"src_path":"/p/core/tests/sim.rs","kind":["test"]},"profile":{"test":true},"executable":"/t/simulation-1"}
{"reason":"build-finished","success":true}"#;
        let found = parse(messages).unwrap();
        let kinds: Vec<_> = found.iter().map(|binary| binary.is_integration).collect();
        assert_eq!(kinds, [false, true]);
        assert_eq!(found[1].source, PathBuf::from("/p/core/tests/sim.rs"));
        assert_eq!(found[1].folder, PathBuf::from("/p/core"));
        assert!(parse("{}").is_err());
    }
}
