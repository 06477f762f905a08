//! `cargo xtask ebpf`: builds the kernel programs with the project's stable Rust, and proves that the
//! committed object is what the source gives.
//!
//! Stable Rust builds for the kernel's virtual machine when it is told to compile `core` too
//! (`-Z build-std`, unlocked by `RUSTC_BOOTSTRAP=1`) and when bpf-linker uses the compiler's own LLVM.

mod tools;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tandem_lab::artifacts::cache;
use tandem_lab::{command, process};

use crate::project;
use tools::Tools;

/// The committed object, relative to the top folder.
const COMMITTED: &str = "helper-ebpf/tandem.bpf.o";
const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "ebpf";
/// A first build compiles `core` and the macros: about a minute on two cores.
const BUILD_LIMIT: Duration = Duration::from_secs(900);

/// Settings of the profile, kept out of Cargo.toml: nothing else is built with it.
const PROFILE_SETTINGS: [&str; 7] = [
    "inherits=\"release\"",
    "opt-level=3",
    "debug=0",
    "strip=\"none\"",
    "lto=false",
    "panic=\"abort\"",
    "codegen-units=1",
];

/// What `cargo xtask ebpf` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Change nothing: fail if the committed object is not what the source gives
    #[arg(long)]
    check: bool,
}

/// Builds the object, and writes or compares it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let tools = Tools::prepare()?;
    let build = Build::new(&tools)?;
    if options.check {
        build.cargo(&["clippy"], &["--", "-D", "warnings"])?;
    }
    build.cargo(&["build"], &[])?;
    let path = build.object();
    let built =
        fs::read(&path).with_context(|| format!("cargo left no object at {}", path.display()))?;
    build.names_no_place_of_this_machine(&built)?;
    let committed_path = cache::workspace_folder().join(COMMITTED);
    if options.check {
        let committed = fs::read(&committed_path)
            .with_context(|| format!("{COMMITTED} cannot be read; run `cargo xtask ebpf`"))?;
        compare(&committed, &built, &path)?;
        println!(
            "{COMMITTED} is what its source gives ({} bytes)",
            built.len()
        );
    } else if fs::read(&committed_path).is_ok_and(|committed| committed == built) {
        println!("{COMMITTED} is unchanged ({} bytes)", built.len());
    } else {
        fs::write(&committed_path, &built).with_context(|| format!("cannot write {COMMITTED}"))?;
        println!("{COMMITTED} is new ({} bytes): commit it", built.len());
    }
    Ok(())
}

/// One way of calling cargo, the same for every machine.
struct Build {
    target_folder: PathBuf,
    /// Places of this machine and what stands for them in the object.
    remapped: Vec<(PathBuf, &'static str)>,
    environment: Vec<(&'static str, OsString)>,
}

impl Build {
    fn new(tools: &Tools) -> Result<Self> {
        let target_folder = cache::target_folder().join("ebpf");
        let cargo_home = match std::env::var_os("CARGO_HOME") {
            Some(path) => PathBuf::from(path),
            None => std::env::home_dir()
                .context("neither CARGO_HOME nor a home folder is known")?
                .join(".cargo"),
        };
        // The last that matches wins: the target folder may lie in the workspace.
        let remapped = vec![
            (cache::workspace_folder(), "/tandem"),
            (target_folder.clone(), "/target"),
            (cargo_home, "/cargo"),
            (tools.library.clone(), "/rust/library"),
        ];
        let mut flags = OsString::new();
        for (place, name) in &remapped {
            if !flags.is_empty() {
                flags.push("\x1f");
            }
            flags.push("--remap-path-prefix=");
            flags.push(place);
            flags.push("=");
            flags.push(name);
        }
        let environment = vec![
            ("RUSTC_BOOTSTRAP", "1".into()),
            ("__CARGO_TESTS_ONLY_SRC_ROOT", tools.library.clone().into()),
            (
                "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER",
                tools.bpf_linker.clone().into(),
            ),
            // Outranks RUSTFLAGS and every configuration file.
            ("CARGO_ENCODED_RUSTFLAGS", flags),
        ];
        Ok(Self {
            target_folder,
            remapped,
            environment,
        })
    }

    /// Where cargo leaves the object.
    fn object(&self) -> PathBuf {
        self.target_folder
            .join(TARGET)
            .join(PROFILE)
            .join("tandem-ebpf")
    }

    /// Runs a cargo command on the programs, its progress visible.
    fn cargo(&self, subcommand: &[&str], last: &[&str]) -> Result<()> {
        let mut cargo = project::cargo();
        cargo.args(subcommand).args([
            "--locked",
            "--package=tandem-ebpf",
            "--bin=tandem-ebpf",
            "--features=programs",
            "--target",
            TARGET,
            "--profile",
            PROFILE,
            "-Zbuild-std=core",
        ]);
        cargo.arg("--target-dir").arg(&self.target_folder);
        for setting in PROFILE_SETTINGS {
            cargo
                .arg("--config")
                .arg(format!("profile.{PROFILE}.{setting}"));
        }
        cargo.args(last);
        for (name, value) in &self.environment {
            cargo.env(name, value);
        }
        run_shown(&mut cargo, BUILD_LIMIT)
    }

    fn names_no_place_of_this_machine(&self, object: &[u8]) -> Result<()> {
        for (place, _) in &self.remapped {
            let place = place.to_string_lossy();
            ensure!(
                !contains(object, place.as_bytes()),
                "the object names {place}, so it would differ on another machine"
            );
        }
        Ok(())
    }
}

/// Runs a command that shows its own progress.
fn run_shown(shown: &mut Command, limit: Duration) -> Result<()> {
    let name = shown.get_program().to_string_lossy().into_owned();
    let arguments: Vec<_> = shown
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    let line = format!("{name} {}", arguments.join(" "));
    let mut child = shown
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    match process::wait_deadline(&mut child, limit)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("`{line}` failed ({status})"),
        None => bail!("`{line}` did not end within {} s", limit.as_secs()),
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    !wanted.is_empty() && bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Fails unless both are the same, byte for byte.
fn compare(committed: &[u8], built: &[u8], built_path: &Path) -> Result<()> {
    if committed == built {
        return Ok(());
    }
    let same = committed
        .iter()
        .zip(built)
        .take_while(|(a, b)| a == b)
        .count();
    bail!(
        "{COMMITTED} is not what its source gives: {} bytes are committed, {} were built, and they differ \
         from byte {same} on. Run `cargo xtask ebpf` and commit the file. What was built is in {}",
        committed.len(),
        built.len(),
        built_path.display()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named_with_its_place_and_remedy() {
        compare(b"same", b"same", Path::new("x")).unwrap();
        for (committed, built, at) in [("abcd", "abXd", 2), ("ab", "abc", 2), ("", "a", 0)] {
            let error = compare(committed.as_bytes(), built.as_bytes(), Path::new("x"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(&format!("from byte {at} on")), "{error}");
            assert!(error.contains("cargo xtask ebpf"), "{error}");
        }
    }

    #[test]
    fn places_are_found_anywhere_in_the_object() {
        assert!(contains(b"\0/some/x/src\0", b"/some/x"));
        assert!(!contains(b"/some/y", b"/some/x"));
        assert!(!contains(b"/some", b""));
    }
}
