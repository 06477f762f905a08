//! The packages' integration tests, each a suite of its own, found by asking cargo.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tandem_lab::artifacts::cache;

use super::schedule::Lane;
use super::suite::{Suite, Work};

/// The package of the lab, the simulation and the golden scenarios.
const LAB: &str = "tandem-lab";
/// A test whose source says this makes a lab, and so boots virtual machines.
const MAKES_A_LAB: &str = "Lab::";
/// A suite may take this long.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// A test of this name is for those who ask for it: `long_vfio.rs` is the suite `long-vfio`.
const LONG: &str = "long_";
/// Such a suite may take this long.
const LONG_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Suites of the lab that hold neither lost frames nor times against a bound that a busy machine could exceed, in the
/// order they begin: the longest first, so that none is left over at the end. Situations hold on a busy machine too:
/// of 1,000 frames a second through 40 silent unplugs beside a simulation and builds none was lost.
pub(super) const SIDE_BY_SIDE: [&str; 17] = [
    "lab-situations",
    "lab-never-worse",
    "lab-addressing",
    "lab-libvirt-faults",
    "lab-addressing-at-boot",
    "lab-contract",
    "lab-ebpf",
    "lab-faults",
    "lab-full-guest",
    "lab-packaging",
    "lab-smoke",
    "lab-agent-port",
    "lab-real-vf",
    "lab-environment",
    "lab-plain-qemu",
    "lab-executor",
    "lab-readme",
];

/// Those that install what the suite `package` builds.
const PACKAGING: [&str; 2] = ["lab-packaging", "long-first-boot"];

/// Those of them that wait for most of their time: for deadlines, and for what shall not happen.
const WAITING: [&str; 4] = [
    "lab-addressing",
    "lab-libvirt-faults",
    "lab-real-vf",
    "lab-environment",
];

/// A suite for each integration test in cargo's metadata: `lab-NAME` for one that boots virtual machines,
/// `core-NAME` for another of the lab's package, `PACKAGE-NAME` for those of other packages.
pub(super) fn suites(metadata: &Value) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata names no packages")?;
    for package in packages {
        let name = package["name"]
            .as_str()
            .context("a package without a name")?;
        for target in package["targets"].as_array().into_iter().flatten() {
            if target["kind"][0] == "test" {
                let test = target["name"].as_str().context("a test without a name")?;
                let source = target["src_path"]
                    .as_str()
                    .context("a test without a source")?;
                suites.push(suite(name, test, Path::new(source))?);
            }
        }
    }
    suites.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(suites)
}

fn suite(package: &str, test: &str, source: &Path) -> Result<Suite> {
    let is_lab = package == LAB && makes_a_lab(source)?;
    let top = cache::workspace_folder();
    let name = suite_name(package, test, is_lab);
    let is_long = test.starts_with(LONG);
    let lane = match name.as_str() {
        name if WAITING.contains(&name) => Lane::Waiting,
        name if !is_lab || SIDE_BY_SIDE.contains(&name) => Lane::Beside,
        _ => Lane::Alone,
    };
    Ok(Suite {
        lane,
        is_long,
        needs: match name.as_str() {
            name if PACKAGING.contains(&name) => &["build", "release", "fetch", "package"],
            _ if is_lab => &["build", "release", "fetch"],
            _ => &["build"],
        },
        name,
        about: source
            .strip_prefix(&top)
            .unwrap_or(source)
            .display()
            .to_string(),
        limit: if is_long { LONG_LIMIT } else { LIMIT },
        is_lab,
        env: Vec::new(),
        work: Work::Integration(source.to_path_buf()),
    })
}

fn suite_name(package: &str, test: &str, is_lab: bool) -> String {
    if test.starts_with(LONG) {
        return test.replace('_', "-");
    }
    let test = test.replace('_', "-");
    match package.trim_start_matches("tandem-") {
        "lab" if is_lab => format!("lab-{}", test.trim_start_matches("lab-")),
        "lab" => format!("core-{test}"),
        package => format!("{package}-{test}"),
    }
}

/// Looks at the test's source, and at its modules where it has a folder of its own.
fn makes_a_lab(source: &Path) -> Result<bool> {
    let files = if source.ends_with("main.rs") {
        let folder = source.parent().context("a source without a folder")?;
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<PathBuf>>>()?
    } else {
        vec![source.to_path_buf()]
    };
    for file in files.iter().filter(|file| file.is_file()) {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        if text.contains(MAKES_A_LAB) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_where_a_test_is() {
        assert_eq!(suite_name("tandem-lab", "lab_smoke", true), "lab-smoke");
        assert_eq!(
            suite_name("tandem-lab", "full_guest", true),
            "lab-full-guest"
        );
        assert_eq!(suite_name("tandem-lab", "long_vfio", true), "long-vfio");
        assert_eq!(suite_name("tandem-lab", "sim", false), "core-sim");
        assert_eq!(suite_name("tandem-wire", "framing", false), "wire-framing");
    }

    #[test]
    fn a_test_with_a_folder_is_looked_at_whole() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.rs");
        fs::write(&main, "mod faults;\n").unwrap();
        assert!(!makes_a_lab(&main).unwrap());
        fs::write(
            folder.path().join("faults.rs"),
            "let lab = Lab::for_test(\"x\");\n",
        )
        .unwrap();
        assert!(makes_a_lab(&main).unwrap());
    }
}
