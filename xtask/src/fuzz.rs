//! `cargo xtask fuzz`: hostile bytes for every parser, by the targets of tests/fuzz.
//!
//! libFuzzer needs the compiler's coverage passes and `--cfg fuzzing`, which are flags of a stable compiler.
//! cargo-fuzz would set the same flags, for a program a target and with sanitizers of a nightly one; there is
//! no C in what is fuzzed, so none is of use. So it is not needed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tandem_lab::artifacts::cache;
use tandem_lab::command::{self, Finished};

use crate::project;

/// Each target's inputs, in a folder of its name.
const CORPUS: &str = "tests/fuzz/corpus";
/// What libFuzzer needs to see where an input leads (`cargo fuzz run --sanitizer none`, 0.13).
const FLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    "-Dwarnings",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
const BUILD_LIMIT: Duration = Duration::from_secs(3 * 3600);
const QUERY_LIMIT: Duration = Duration::from_secs(60);
/// For what is in the corpora, besides the time that is asked for.
const REPLAY: Duration = Duration::from_secs(300);
/// An input that takes so many seconds hangs; targets bound the processor's time themselves, far below. On a machine that has
/// much else to do, that time takes many times as long.
const HANG_S: u32 = 240;
const MEMORY_MB: u32 = 1024;
/// Lines of a failed target's output that are shown, of at most so many characters each.
const SHOWN: (usize, usize) = (40, 400);

/// What `cargo xtask fuzz` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Folders of tests/fuzz/corpus; without any, all one after the other
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each is tried; 0: only what is in its corpus
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Try only this file, such as one that a find was written to
    #[arg(long, value_name = "FILE", requires = "targets")]
    input: Option<PathBuf>,
}

/// Builds the targets and runs those that are asked for; an error if one finds something.
pub(crate) fn run(options: &Options) -> Result<()> {
    let known = targets()?;
    for target in &options.targets {
        let names = known.join(", ");
        ensure!(
            known.contains(target),
            "no target is called `{target}`; there are {names}"
        );
    }
    let wanted = if options.targets.is_empty() {
        &known
    } else {
        &options.targets
    };
    let build = || build(&cache::workspace_folder(), &folder());
    let program = command::step("building what is fuzzed", None, build)?;
    let mut failed = Vec::new();
    for target in wanted {
        if !try_one(&program, target, options)? {
            failed.push(target.as_str());
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        failed => bail!("found something: {}", failed.join(", ")),
    }
}

/// All targets, by their corpora.
fn targets() -> Result<Vec<String>> {
    let folder = cache::workspace_folder().join(CORPUS);
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {CORPUS}"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Where all of this is kept; the build and what was found are worth keeping over runs.
pub(crate) fn folder() -> PathBuf {
    cache::target_folder().join("fuzz")
}

/// Builds the targets of the project in `top`, into the folder `build`.
pub(crate) fn build(top: &Path, build: &Path) -> Result<PathBuf> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let said = command::run(project::command(&rustc).arg("-vV"), QUERY_LIMIT)?.stdout;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say for which machine it builds")?;
    let mut cargo = project::cargo();
    cargo
        .current_dir(top)
        .args([
            "build",
            "--quiet",
            "--package",
            "tandem-fuzz",
            "--profile",
            "fuzz",
        ])
        // Named, so that build scripts and macros get no flags.
        .args(["--target", host])
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .env("CARGO_TARGET_DIR", build);
    command::run(&mut cargo, BUILD_LIMIT)?;
    Ok(build.join(host).join("fuzz/tandem-fuzz"))
}

/// What becomes of one input of the corpora, `TARGET/NAME`; what is found is written to the folder `found`.
pub(crate) fn replay(program: &Path, input: &str, found: &Path) -> Result<Finished> {
    let (target, _) = input.split_once('/').context("an input is TARGET/NAME")?;
    fs::create_dir_all(found).with_context(|| format!("cannot make {}", found.display()))?;
    let mut run = fuzzer(program, target, found)?;
    run.arg(cache::workspace_folder().join(CORPUS).join(input));
    command::run_any(&mut run, REPLAY)
}

/// A run of one target.
fn fuzzer(program: &Path, target: &str, found: &Path) -> Result<Command> {
    let mut run = project::command(program.to_str().context("the target folder is not UTF-8")?);
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(found.join(""));
    run.env("TANDEM_FUZZ_TARGET", target)
        .env("RUST_BACKTRACE", "0")
        .arg(prefix)
        .args([
            format!("-timeout={HANG_S}"),
            format!("-rss_limit_mb={MEMORY_MB}"),
        ]);
    Ok(run)
}

/// Runs one target; true if it found nothing.
fn try_one(program: &Path, target: &str, options: &Options) -> Result<bool> {
    let found = folder().join("found").join(target);
    let own = folder().join("corpus").join(target);
    for folder in [&found, &own] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut run = fuzzer(program, target, &found)?;
    match &options.input {
        Some(input) => {
            run.arg(fs::canonicalize(input).with_context(|| format!("{}", input.display()))?)
        }
        None => corpora(&mut run, &own, target, options.seconds),
    };
    let limit = Duration::from_secs(options.seconds.into()) + REPLAY;
    let ended = command::run_any(&mut run, limit)?;
    if ended.status.success() {
        println!("{target:8} {}", summary(&ended));
        return Ok(true);
    }
    println!("{target:8} FOUND SOMETHING");
    for line in last_lines(&ended.stderr) {
        println!("    | {line}");
    }
    println!(
        "    once more: cargo xtask fuzz {target} --input {}",
        artifact(&ended, &found).display()
    );
    Ok(false)
}

/// What is new goes into the first folder.
fn corpora<'a>(run: &'a mut Command, own: &Path, target: &str, seconds: u32) -> &'a mut Command {
    run.arg(own)
        .arg(cache::workspace_folder().join(CORPUS).join(target));
    match seconds {
        0 => run.arg("-runs=0"),
        seconds => run.arg(format!("-max_total_time={seconds}")),
    }
}

/// Executions and coverage, of libFuzzer's words.
fn summary(ended: &Finished) -> String {
    let lines = || ended.stderr.lines().rev();
    let word_behind = |line: &str, name: &str| {
        let mut words = line.split_whitespace();
        words.by_ref().find(|word| *word == name)?;
        words.next().map(str::to_owned)
    };
    let runs = lines().find_map(|line| {
        line.strip_prefix("Done ")?
            .split(' ')
            .next()
            .map(str::to_owned)
    });
    let coverage = lines().find_map(|line| word_behind(line, "cov:"));
    let unknown = || "?".to_owned();
    let runs = runs.unwrap_or_else(unknown);
    format!(
        "{runs} executions, {} places reached",
        coverage.unwrap_or_else(unknown)
    )
}

fn last_lines(text: &str) -> Vec<String> {
    let (most, width) = SHOWN;
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("0x"))
        .collect();
    let shown = lines[lines.len().saturating_sub(most)..].iter();
    shown
        .map(|line| line.chars().take(width).collect())
        .collect()
}

/// The file that libFuzzer wrote the input to.
fn artifact(ended: &Finished, found: &Path) -> PathBuf {
    let mut words = ended.stderr.lines().rev();
    let path = words.find_map(|line| {
        line.split_once("Test unit written to ")
            .map(|(_, path)| path)
    });
    path.map_or_else(|| found.to_owned(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_a_corpus_and_no_other_has() {
        let sources = cache::workspace_folder().join("tests/fuzz/src/targets");
        let sources = fs::read_dir(sources).unwrap();
        let stems = sources.map(|entry| entry.unwrap().path().with_extension(""));
        let stems = stems.map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
        let mut stems: Vec<String> = stems.filter(|name| name != "mod").collect();
        stems.sort();
        assert_eq!(stems, targets().unwrap());
        for target in stems {
            let corpus = cache::workspace_folder().join(CORPUS).join(target);
            let bytes = fs::read_dir(corpus)
                .unwrap()
                .map(|file| file.unwrap().metadata().unwrap().len());
            let bytes: u64 = bytes.sum();
            assert!((1..200 * 1024).contains(&bytes), "{bytes} bytes");
        }
    }

    #[test]
    fn libfuzzers_words_are_understood() {
        let stderr = "#7\tINITED cov: 1326 ft: 1361 corp: 6/1393b\n#512\tDONE   cov: 1400 ft: 1461\n\
                      Done 512 runs in 6 second(s)\n";
        let ended = Finished {
            status: Default::default(),
            stdout: String::new(),
            stderr: stderr.to_owned(),
        };
        assert_eq!(summary(&ended), "512 executions, 1400 places reached");
        let ended = Finished {
            stderr: "==1== ERROR\nartifact_prefix='/a/'; Test unit written to /a/crash-1\n"
                .to_owned(),
            ..ended
        };
        assert_eq!(artifact(&ended, Path::new("/a")), Path::new("/a/crash-1"));
    }
}
