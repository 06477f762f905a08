//! `cargo xtask findings`: what reviews of the project's security found, and its tests. Each test passes on
//! the project as it is, and fails on a copy in which that one mending is taken out again.

mod second;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tandem_lab::artifacts::{Cache, cache, cargo};
use tandem_lab::command::{self, Finished};

use self::second::SECOND;
use self::table::{Edit, FIRST, Finding};
use crate::{fuzz, project};

/// A build of one package's tests, of everything at first, and one test; for those in a guest also one of what runs there. Of a
/// machine that has much else to do this gets a small part.
const LIMIT: Duration = Duration::from_secs(3 * 3600);
/// What the test program prints of one test that was run.
const PASSED: &str = "test result: ok. 1 passed";
const FAILED: &str = "test result: FAILED. 0 passed; 1 failed";

/// What `cargo xtask findings` takes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Findings such as C2; without any, all
    #[arg(value_name = "FINDING")]
    wanted: Vec<String>,
    /// Try what the fuzzer's corpora find once all these mendings are taken out at once, and no test
    #[arg(long)]
    fuzz: bool,
}

fn findings() -> impl Iterator<Item = &'static Finding> {
    FIRST.iter().chain(SECOND)
}

/// Tries each finding's test with and without its mending, and prints a line for each.
///
/// # Errors
/// A test fails, or passes without what it is there for.
pub(crate) fn run(options: &Options) -> Result<()> {
    let known: BTreeSet<&str> = findings().map(|finding| finding.id).collect();
    for id in &options.wanted {
        ensure!(
            known.contains(id.as_str()),
            "no finding is called `{id}`; there are {known:?}"
        );
    }
    let wanted = |finding: &&Finding| {
        options.wanted.is_empty() || options.wanted.iter().any(|id| id == finding.id)
    };
    let copy = Copy::make()?;
    let wanted: Vec<&Finding> = findings().filter(wanted).collect();
    if options.fuzz {
        return fuzzed(&copy, &wanted);
    }
    // One build a package for these, and one a finding for what follows.
    let mut passed = BTreeMap::new();
    for finding in &wanted {
        if !passed.contains_key(finding.test) {
            let tested = copy.test(finding)?;
            let passes = tested.stdout.contains(PASSED);
            if !passes {
                print!("{}{}", tested.stdout, tested.stderr);
            }
            passed.insert(finding.test, passes);
        }
    }
    let mut unproven = Vec::new();
    for finding in wanted {
        let verdict = match (passed[finding.test], copy.fails_without(finding)?) {
            (true, true) => PROVEN,
            (false, _) => "DOES NOT PASS",
            (true, false) => "DOES NOT FAIL AS IT SHOULD WITHOUT THE MENDING",
        };
        println!("{:3} {} {verdict}", finding.id, finding.test);
        if verdict != PROVEN {
            unproven.push(finding.id);
        }
    }
    match unproven.as_slice() {
        [] => Ok(()),
        unproven => bail!("not shown: {}", unproven.join(", ")),
    }
}

/// Tries the corpora's inputs with and without the mendings that they are there for.
fn fuzzed(copy: &Copy, wanted: &[&Finding]) -> Result<()> {
    let wanted = wanted.iter().filter(|one| !one.found_by.is_empty());
    let edits: Vec<&Edit> = wanted.clone().flat_map(|one| one.edits).collect();
    let with = copy.replay(wanted.clone())?;
    let without = copy.without(&edits, || copy.replay(wanted.clone()))?;
    let mut unproven = Vec::new();
    for finding in wanted {
        for input in finding.found_by {
            let (before, after) = (&with[input.name], &without[input.name]);
            let finds = !after.status.success() && after.stderr.contains(input.says);
            let verdict = match (before.status.success(), finds) {
                (true, true) => "found without the mending, and not with it",
                (false, _) => "FOUND WITH THE MENDING",
                (true, false) => "NOT FOUND WITHOUT THE MENDING",
            };
            println!("{:3} {} {verdict}", finding.id, input.name);
            if !(before.status.success() && finds) {
                print!("{}{}", before.stderr, after.stderr);
                unproven.push(finding.id);
            }
        }
    }
    ensure!(unproven.is_empty(), "not found: {}", unproven.join(", "));
    Ok(())
}

const PROVEN: &str = "passes, and fails without the mending";

/// A copy of the project's files, with a build folder of its own.
struct Copy {
    top: PathBuf,
    build: PathBuf,
}

impl Copy {
    /// Brings the copy up to date; what is the same keeps its time, so that little is built again.
    fn make() -> Result<Self> {
        let folder = cache::target_folder().join("findings");
        let copy = Self {
            top: folder.join("project"),
            build: folder.join("build"),
        };
        for file in project::files()? {
            let bytes = fs::read(cache::workspace_folder().join(&file))
                .with_context(|| format!("cannot read {}", file.display()))?;
            copy.write(&file, &bytes)?;
        }
        Ok(copy)
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> Result<()> {
        let path = self.top.join(file);
        if fs::read(&path).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        let written = path.parent().map_or(Ok(()), fs::create_dir_all);
        written
            .and_then(|()| fs::write(&path, bytes))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// What becomes of the inputs by which these are found.
    fn replay<'a>(
        &self,
        findings: impl Iterator<Item = &'a &'a Finding>,
    ) -> Result<BTreeMap<&'static str, Finished>> {
        // Not where the project's own is built: cargo takes both for the same, and one for the other if it is newer.
        let folder = self.build.join("fuzz");
        let build = || fuzz::build(&self.top, &folder);
        let program = command::step("building what is fuzzed", None, build)?;
        let mut ended = BTreeMap::new();
        for input in findings.flat_map(|finding| finding.found_by) {
            let found = self.build.join("found");
            ended.insert(input.name, fuzz::replay(&program, input.name, &found)?);
        }
        Ok(ended)
    }

    /// Does that while these mendings are taken out.
    fn without<T>(&self, edits: &[&Edit], then: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut mended = Vec::new();
        for edit in edits {
            let file = self.top.join(edit.file);
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let without = text.replacen(edit.mended, edit.taken_out, 1);
            self.write(edit.file.as_ref(), without.as_bytes())?;
            mended.push((edit.file, text));
        }
        let result = then();
        for (file, text) in mended.into_iter().rev() {
            self.write(file.as_ref(), text.as_bytes())?;
        }
        result
    }

    /// Whether its test fails, and is no test that can't be built, once what it is for is taken out.
    fn fails_without(&self, finding: &Finding) -> Result<bool> {
        let edits: Vec<&Edit> = finding.edits.iter().collect();
        let tested = self.without(&edits, || self.test(finding))?;
        let failed = tested.stdout.contains(FAILED) && tested.stdout.contains(finding.says);
        if !failed {
            print!("{}{}", tested.stdout, tested.stderr);
        }
        Ok(failed)
    }

    fn test(&self, finding: &Finding) -> Result<Finished> {
        let mut test = project::cargo();
        test.current_dir(&self.top)
            .env("CARGO_TARGET_DIR", &self.build)
            // Guests boot what this copy's programs are; what they boot from is the same.
            .env_remove(cargo::BUILT_VARIABLE)
            .env("LAB_CACHE", Cache::open()?.root())
            .env("LAB_REQUIRE", "all")
            .args(["test", "--quiet", "--package", finding.package])
            .args(finding.of)
            .args(["--", "--exact", finding.test]);
        command::run_any(&mut test, LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_is_there() {
        let is_source = |file: &Path| file.extension().is_some_and(|kind| kind == "rs");
        let texts = project::texts(is_source).unwrap();
        for finding in findings() {
            let name = finding.test.rsplit("::").next().unwrap();
            let head = format!("fn {name}() {{");
            let is_there = texts.iter().any(|(_, text)| text.contains(&head));
            assert!(is_there, "{}: no test {}", finding.id, finding.test);
        }
    }

    #[test]
    fn each_mending_is_where_the_table_says() {
        for finding in findings() {
            assert!(!finding.edits.is_empty(), "{}", finding.id);
            for edit in finding.edits {
                let text = project::text(edit.file.as_ref()).unwrap().unwrap();
                let count = text.matches(edit.mended).count();
                assert_eq!(count, 1, "{}: {}: {}", finding.id, edit.file, edit.mended);
                assert_ne!(edit.mended, edit.taken_out);
            }
            for input in finding.found_by {
                let file = Path::new("tests/fuzz/corpus").join(input.name);
                assert!(project::text(&file).unwrap().is_some(), "{}", input.name);
            }
        }
    }
}
