//! One suite: what it runs, and how its output becomes counts.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tandem_lab::Kernel;
use tandem_lab::artifacts::cargo::BUILT_VARIABLE;

use super::binaries::{self, Binary};
use super::libtest;
use super::outcome::Outcome;
use super::process::{End, Ran, Watch};
use super::schedule::Lane;

/// A failed suite shows at most this many of its last lines.
const TAIL_LINES: usize = 60;

/// A suite, as `--list` names it.
#[derive(Debug)]
pub(super) struct Suite {
    /// Its name on the command line and in the summary.
    pub(super) name: String,
    /// What it checks, in one line.
    pub(super) about: String,
    /// It may take this long.
    pub(super) limit: Duration,
    /// The suites that must have passed before.
    pub(super) needs: &'static [&'static str],
    /// Whether it boots virtual machines.
    pub(super) is_lab: bool,
    /// What else may run meanwhile.
    pub(super) lane: Lane,
    /// Whether it takes so long that it runs only where it is asked for.
    pub(super) is_long: bool,
    /// Environment variables for what it runs.
    pub(super) env: Vec<(&'static str, &'static str)>,
    /// What it runs.
    pub(super) work: Work,
}

/// What a suite runs.
#[derive(Debug)]
pub(super) enum Work {
    /// A command whose success is one check passed.
    Check(Command),
    /// A command that runs tests and prints libtest's closing lines.
    Tests(Command),
    /// A command that builds all test programs and names them on its standard output; one check.
    Build(Command),
    /// A command that builds other programs and names them on its standard output; one check.
    Programs(Command),
    /// Every library's and program's own tests.
    Units,
    /// The integration test of this source file.
    Integration(PathBuf),
}

/// A run over several suites.
#[derive(Debug)]
pub(super) struct Run {
    logs: PathBuf,
    deadline: Instant,
    kernel: Option<Kernel>,
    watch: Watch,
    /// Known once they are built.
    binaries: OnceLock<Vec<Binary>>,
    /// Where cargo named what it has built in this run: what comes later takes it from there.
    built: Mutex<Vec<PathBuf>>,
}

impl Run {
    /// A run that keeps its output in the folder `logs`, ends at `deadline`, and has guests use `kernel`.
    pub(super) fn new(logs: PathBuf, deadline: Instant, kernel: Option<Kernel>) -> Result<Self> {
        Ok(Self {
            logs,
            deadline,
            kernel,
            watch: Watch::new()?,
            binaries: OnceLock::new(),
            built: Mutex::default(),
        })
    }

    /// Where all of a suite's output goes.
    pub(super) fn log_path(&self, suite: &Suite) -> PathBuf {
        self.logs.join(format!("{}.log", suite.name))
    }

    /// All of a suite's output.
    pub(super) fn log(&self, suite: &Suite) -> String {
        read(&self.log_path(suite))
    }

    /// The last lines of a suite's output.
    pub(super) fn tail(&self, suite: &Suite) -> String {
        let log = read(&self.log_path(suite));
        let lines: Vec<_> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        shown
            .iter()
            .map(|line| format!("    | {line}"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Why no further suite is run, if so.
    pub(super) fn stopped(&self) -> Option<&'static str> {
        if self.watch.is_interrupted() {
            Some("interrupted")
        } else if Instant::now() >= self.deadline {
            Some("the time for the whole run is over")
        } else {
            None
        }
    }

    /// Runs one suite to its end.
    pub(super) fn suite(&self, suite: &Suite) -> Outcome {
        let started = Instant::now();
        let outcome = self
            .work(suite)
            .unwrap_or_else(|error| Outcome::broken(format!("{error:#}")));
        Outcome {
            elapsed: started.elapsed(),
            ..outcome
        }
    }

    fn work(&self, suite: &Suite) -> Result<Outcome> {
        let path = self.log_path(suite);
        let log =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        match &suite.work {
            Work::Check(command) => Ok(check(self.command(suite, command, &log, None)?)),
            Work::Tests(command) => {
                let ran = self.command(suite, command, &log, None)?;
                Ok(tests(ran, &read(&path)))
            }
            Work::Build(command) => {
                let (outcome, messages) = self.build(suite, command, &log)?;
                if outcome.failed == 0 {
                    let known = self.binaries.set(binaries::parse(&read(&messages))?);
                    ensure!(known.is_ok(), "the test programs were built twice");
                }
                Ok(outcome)
            }
            Work::Programs(command) => Ok(self.build(suite, command, &log)?.0),
            Work::Units => self.programs(suite, &log, |binary| !binary.is_integration),
            Work::Integration(source) => {
                self.programs(suite, &log, |binary| binary.source == *source)
            }
        }
    }

    /// Builds; gives also where cargo named what it has built.
    fn build(&self, suite: &Suite, command: &Command, log: &File) -> Result<(Outcome, PathBuf)> {
        let messages = self.logs.join(format!("{}.json", suite.name));
        let stdout = File::create(&messages)
            .with_context(|| format!("cannot create {}", messages.display()))?;
        let outcome = check(self.command(suite, command, log, Some(stdout))?);
        if outcome.failed == 0 {
            self.built().push(messages.clone());
        }
        Ok((outcome, messages))
    }

    fn built(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the test programs that `belongs` picks, all of them even if one fails.
    fn programs(
        &self,
        suite: &Suite,
        log: &File,
        belongs: impl Fn(&Binary) -> bool,
    ) -> Result<Outcome> {
        let mut total = Outcome::default();
        let known = self.binaries.get().into_iter().flatten();
        for binary in known.filter(|binary| belongs(binary)) {
            let before = log.metadata().context("cannot tell a log's length")?.len();
            let mut program = Command::new(&binary.executable);
            program
                .current_dir(&binary.folder)
                .env("CARGO_MANIFEST_DIR", &binary.folder);
            // Also of tests that passed: one that skipped itself says so there.
            program.arg("--show-output");
            // In CI a test that cannot run here has failed.
            if std::env::var("CI").is_ok_and(|value| value == "true") {
                program.env("LAB_REQUIRE", "all");
            }
            if suite.is_lab {
                program.arg("--test-threads=1");
            }
            let ran = self.command(suite, &program, log, None)?;
            let text = read(&self.log_path(suite));
            let outcome = tests(ran, text.get(usize::try_from(before)?..).unwrap_or(&text));
            total.add(&outcome);
            total.reason = total.reason.or(outcome.reason);
        }
        if total.passed + total.failed + total.skipped == 0 && total.deferred.is_empty() {
            return Ok(Outcome::broken("it ran no test".to_owned()));
        }
        Ok(total)
    }

    fn command(
        &self,
        suite: &Suite,
        command: &Command,
        mut log: &File,
        stdout: Option<File>,
    ) -> Result<Ran> {
        let shown = shown(command);
        writeln!(log, "$ {shown}").context("cannot write a suite's log")?;
        let deadline = self.deadline.min(Instant::now() + suite.limit);
        let path = self.log_path(suite);
        let mut command = again(command);
        // A failed test's reason is in its message; a back trace of each error would bury it.
        command.env("RUST_BACKTRACE", "0");
        command.envs(suite.env.iter().copied());
        command.env(
            BUILT_VARIABLE,
            std::env::join_paths(self.built().iter())
                .context("the project lies in a folder with a colon in its name")?,
        );
        if let Some(kernel) = self.kernel {
            command.env("LAB_KERNEL_VERSION", kernel.version());
        }
        self.watch.run(
            &mut command,
            log,
            stdout,
            deadline,
            || match libtest::current(&read(&path)) {
                Some(test) => format!("{}: {test}", suite.name),
                None => suite.name.clone(),
            },
        )
    }
}

fn check(ran: Ran) -> Outcome {
    let outcome = match failure(&ran.end) {
        None => Outcome {
            passed: 1,
            ..Outcome::default()
        },
        Some(reason) => Outcome::broken(reason),
    };
    Outcome {
        cpu: ran.cpu,
        ..outcome
    }
}

fn tests(ran: Ran, log: &str) -> Outcome {
    let mut outcome = libtest::count(log);
    outcome.cpu = ran.cpu;
    outcome.reason = failure(&ran.end);
    if outcome.reason.is_some() && outcome.failed == 0 {
        outcome.failed = 1;
    }
    outcome
}

fn failure(end: &End) -> Option<String> {
    match end {
        End::Exited(status) if status.success() => None,
        End::Exited(status) => Some(status.to_string()),
        End::TimedOut => Some("stopped at its deadline".to_owned()),
        End::Interrupted => Some("interrupted".to_owned()),
    }
}

/// A log is read as far as it is text.
fn read(path: &Path) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// The same command once more: the standard library's cannot be cloned.
fn again(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        copy.current_dir(folder);
    }
    copy.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    copy
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_in(folder: &Path) -> Run {
        let watch = Watch::new().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        Run {
            logs: folder.to_path_buf(),
            deadline,
            kernel: None,
            watch,
            binaries: OnceLock::new(),
            built: Mutex::default(),
        }
    }

    fn shell(script: &str, limit: Duration, work: fn(Command) -> Work) -> Suite {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Suite {
            name: "sample".to_owned(),
            about: String::new(),
            limit,
            needs: &[],
            is_lab: false,
            lane: Lane::Beside,
            is_long: false,
            env: Vec::new(),
            work: work(command),
        }
    }

    #[test]
    fn a_check_passes_or_fails_with_its_output_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let run = run_in(folder.path());
        let limit = Duration::from_secs(30);
        let passed = run.suite(&shell("echo fine", limit, Work::Check));
        assert_eq!((passed.passed, passed.failed, passed.reason), (1, 0, None));
        let suite = shell("echo one; echo two >&2; exit 3", limit, Work::Check);
        let failed = run.suite(&suite);
        assert_eq!((failed.passed, failed.failed), (0, 1));
        assert_eq!(failed.reason.as_deref(), Some("exit status: 3"));
        assert!(run.tail(&suite).ends_with("    | one\n    | two"));
    }

    #[test]
    fn the_kernel_that_was_asked_for_is_every_suites() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = run_in(folder.path());
        run.kernel = Some(Kernel::V6_1);
        let script = "echo kernel $LAB_KERNEL_VERSION";
        let suite = shell(script, Duration::from_secs(30), Work::Check);
        assert_eq!(run.suite(&suite).failed, 0);
        assert!(run.log(&suite).ends_with("kernel 6.1\n"));
    }

    #[test]
    fn a_suite_that_hangs_is_stopped_and_failed() {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo 'test first ... ok'; exec sleep 3600";
        let outcome =
            run_in(folder.path()).suite(&shell(script, Duration::from_millis(300), Work::Tests));
        assert_eq!((outcome.passed, outcome.failed), (1, 1));
        assert_eq!(outcome.reason.as_deref(), Some("stopped at its deadline"));
    }

    #[test]
    fn a_test_program_that_dies_without_a_word_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; kill -9 $$";
        let outcome =
            run_in(folder.path()).suite(&shell(script, Duration::from_secs(30), Work::Tests));
        assert_eq!((outcome.passed, outcome.failed), (2, 1));
    }

    #[test]
    fn a_suite_without_a_single_test_fails() {
        let folder = tempfile::tempdir().unwrap();
        let mut suite = shell("", Duration::from_secs(30), Work::Check);
        suite.work = Work::Units;
        let outcome = run_in(folder.path()).suite(&suite);
        assert_eq!(outcome.reason.as_deref(), Some("it ran no test"));
        assert_eq!(outcome.failed, 1);
    }
}
