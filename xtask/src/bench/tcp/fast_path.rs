//! The programs in the guest's namespace: `helper/examples/fast_path.rs`, which uses the service's own code.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tandem_lab::Lab;
use tandem_lab::artifacts::cargo::{self, Profile};
use tandem_lab::net::Namespace;
use tandem_lab::process::{self, ProcessHandle};

use super::{BOND, STANDBY};

/// aya reads all of the kernel's types twice.
const START_LIMIT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(20);
/// `BPF_PROG_TYPE_SCHED_CLS` of include/uapi/linux/bpf.h.
const SCHED_CLS: u64 = 3;
/// Lines that may wait; the program says one for each command.
const QUEUE: usize = 256;

/// What the programs do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Without,
    Armed,
    Counting,
}

impl State {
    pub(super) const ALL: [Self; 3] = [Self::Without, Self::Armed, Self::Counting];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Without => "without",
            Self::Armed => "armed",
            Self::Counting => "counting",
        }
    }

    fn command(self) -> String {
        // No device of that name ever leaves.
        let armed_vf = format!("vf={BOND} device=none standby={STANDBY} mac=02:7a:6e:64:6d:01");
        match self {
            Self::Without => format!("forget {BOND}"),
            Self::Armed => format!("apply {BOND} watch={STANDBY} {armed_vf}"),
            Self::Counting => format!("apply {BOND} watch={BOND},{STANDBY} {armed_vf}"),
        }
    }
}

/// What the kernel has counted for the programs on frames.
pub(super) struct RunTime {
    pub(super) ns: u64,
    pub(super) runs: u64,
}

/// The running example.
pub(super) struct FastPaths {
    child: Child,
    fifo: PathBuf,
    lines: Receiver<String>,
}

impl FastPaths {
    /// Starts it; with `statistics` the kernel takes the programs' time for as long as it runs.
    pub(super) fn start(lab: &Lab, guest: &Namespace, statistics: bool) -> Result<Self> {
        let program = cargo::example("tandem-guest", "fast_path", Profile::Dev)?;
        let fifo = lab.folder().join(format!("commands-{statistics}"));
        if !fifo.exists() {
            rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU)
                .context("cannot make a FIFO")?;
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", guest.name()]);
        if statistics {
            command.args(["env", "FAST_PATH_STATISTICS=1"]);
        }
        command.arg(program).arg(&fifo);
        let mut child = process::spawn_bound(command)?;
        let stdout = child.stdout.take().context("the output is not piped")?;
        let (sender, lines) = sync_channel(QUEUE);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut fast_paths = Self { child, fifo, lines };
        let said = fast_paths.await_line(START_LIMIT, |line| line == "ready")?;
        for program in ["port_ingress", "port_egress", "bond_egress"] {
            let ready = format!("program {program} ready");
            ensure!(
                said.contains(&ready),
                "this machine's kernel does not take the programs: {}",
                said.join("; ")
            );
        }
        Ok(fast_paths)
    }

    /// Attaches what belongs to a state, and nothing else.
    pub(super) fn set(&mut self, state: State) -> Result<()> {
        let command = state.command();
        let mut fifo = fs::OpenOptions::new().write(true).open(&self.fifo)?;
        writeln!(fifo, "{command}")?;
        let start = format!("done {command}: ");
        let said = self.await_line(LIMIT, |line| line.starts_with(&start))?;
        let answer = said.last().map_or("", String::as_str);
        let wanted = match state {
            State::Without => "forgotten",
            State::Armed | State::Counting => "armed: true, missing: []",
        };
        ensure!(answer.contains(wanted), "{answer}");
        Ok(())
    }

    /// All lines up to the one that is wanted.
    fn await_line(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>> {
        let deadline = Instant::now() + limit;
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = wanted(&line);
                    said.push(line);
                    if found {
                        return Ok(said);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no answer within {limit:?}: {}", said.join("; "))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the program ended: {}", said.join("; "))
                }
            }
        }
    }

    /// `run_time_ns` and `run_cnt` of the programs' file descriptors (`bpf_prog_show_fdinfo`,
    /// kernel/bpf/syscall.c, 6.18).
    pub(super) fn run_time(&self) -> Result<RunTime> {
        let folder = format!("/proc/{}/fdinfo", self.child.id());
        let mut programs: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
            // A descriptor that was closed meanwhile is none of a program.
            let Ok(text) = fs::read_to_string(entry?.path()) else {
                continue;
            };
            if let Some((id, run_time)) = parse_run_time(&text) {
                programs.insert(id, run_time);
            }
        }
        ensure!(!programs.is_empty(), "the process holds no programs");
        Ok(programs
            .values()
            .fold(RunTime { ns: 0, runs: 0 }, |sum, (ns, runs)| RunTime {
                ns: sum.ns + ns,
                runs: sum.runs + runs,
            }))
    }
}

impl Drop for FastPaths {
    fn drop(&mut self) {
        if let Ok(handle) = ProcessHandle::of(&self.child) {
            handle.kill();
        }
        let _ = self.child.wait();
    }
}

/// The program's id, nanoseconds and runs, if it is one on frames.
fn parse_run_time(text: &str) -> Option<(u64, (u64, u64))> {
    let field = |name: &str| -> Option<u64> {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().parse().ok()
    };
    let numbers = (field("run_time_ns:")?, field("run_cnt:")?);
    (field("prog_type:") == Some(SCHED_CLS)).then_some((field("prog_id:")?, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_time_is_read_from_programs_on_frames_only() {
        let text = |kind| {
            format!(
                "pos:\t0\nflags:\t02000002\nprog_type:\t{kind}\nprog_jited:\t1\nprog_id:\t17\n\
                 run_time_ns:\t4200\nrun_cnt:\t20\n"
            )
        };
        assert_eq!(parse_run_time(&text(3)), Some((17, (4200, 20))));
        assert_eq!(parse_run_time(&text(26)), None);
        assert_eq!(
            parse_run_time("pos:\t0\nlink_type:\t11\nprog_id:\t17\n"),
            None
        );
    }
}
