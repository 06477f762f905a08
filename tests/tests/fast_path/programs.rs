//! The example program in the guest (`helper/examples/fast_path.rs`), and what it is told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tandem_lab::agent::{Agent, Background};
use tandem_lab::{Lab, Vm};

use crate::{LIMIT, STEP};

/// Where the program is in the guest.
pub(crate) const PROGRAM: &str = "/usr/bin/fast_path";
const FIFO: &str = "/tmp/commands";
const LOG: &str = "/tmp/fast_path.log";
/// aya reads all of the kernel's types twice, and the guest is emulated.
const START_LIMIT: Duration = Duration::from_secs(180);
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// The example program in the guest, as the service has the programs.
pub(crate) struct FastPaths {
    agent: Agent,
    process: Background,
}

impl FastPaths {
    pub(crate) fn start(vm: &Vm) -> Result<Self> {
        let agent = vm.agent().clone();
        agent.sh(&format!("mkfifo {FIFO}"))?;
        let process = agent.spawn(&[PROGRAM, FIFO], &[("RUST_LOG", "info")], LOG)?;
        let fast_paths = Self { agent, process };
        fast_paths.await_line("ready", START_LIMIT, |line| line == "ready")?;
        for program in ["port_ingress", "port_egress", "bond_egress"] {
            let wanted = format!("program {program} ready");
            fast_paths.await_line(&wanted, LIMIT, |line| line == wanted)?;
        }
        Ok(fast_paths)
    }

    /// The fast path's threads have the priorities that the limits of the service's unit allow
    /// (`SCHED_FIFO`, and 1 and 2; proc(5), `/proc/pid/stat`, fields 40 and 41).
    pub(crate) fn has_real_time_threads(&self, vm: &Vm) -> Result<()> {
        let found = vm.sh("for task in /proc/$(pidof fast_path)/task/*; do \
             echo $(cat $task/comm) $(sed 's/.*) //' $task/stat | cut -d' ' -f38-39); done")?;
        for wanted in ["tandem-fastpath 2 1", "tandem-repeat 1 1"] {
            ensure!(found.lines().any(|line| line == wanted), "{found}");
        }
        Ok(())
    }

    pub(crate) fn await_line(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        self.agent.await_lines(LOG, what, limit, |lines| {
            lines.iter().rev().find(|line| wanted(line)).cloned()
        })
    }

    /// Waits for the line that is the `count`th to contain this text.
    pub(crate) fn await_nth_line(
        &self,
        count: usize,
        text: &str,
        limit: Duration,
    ) -> Result<String> {
        self.agent.await_lines(
            LOG,
            &format!("line {count} with `{text}`"),
            limit,
            |lines| {
                let mut wanted = lines.iter().filter(|line| line.contains(text));
                wanted.nth(count - 1).cloned()
            },
        )
    }

    /// Gives a command and waits for its answer.
    pub(crate) fn command(&self, command: &str) -> Result<String> {
        let start = format!("done {command}: ");
        let answers = |lines: &[String]| -> Vec<String> {
            let answers = lines.iter().filter_map(|line| line.strip_prefix(&start));
            answers.map(str::to_owned).collect()
        };
        let before = answers(&self.agent.lines(LOG)?).len();
        self.agent.sh(&format!("echo '{command}' >{FIFO}"))?;
        self.agent
            .await_lines(LOG, &format!("an answer to `{command}`"), LIMIT, |lines| {
                let mut answers = answers(lines);
                answers.pop().filter(|_| answers.len() >= before)
            })
    }

    pub(crate) fn frames(&self, port: &str) -> Result<Frames> {
        let answer = self.command(&format!("frames {port}"))?;
        let field = |name: &str| {
            let value = answer.split(' ').find_map(|word| word.strip_prefix(name));
            let value = value.with_context(|| format!("no {name} in `{answer}`"))?;
            Ok::<u64, anyhow::Error>(value.parse()?)
        };
        Ok(Frames {
            rx: field("rx=")?,
            tx: field("tx=")?,
            rx_stamps: (field("rx_first=")?, field("rx_last=")?),
            tx_stamps: (field("tx_first=")?, field("tx_last=")?),
            duplicates: field("duplicates=")?,
        })
    }

    /// Lets the client look for a station that is not there, by broadcast, until a port has kept that
    /// away from the stack.
    pub(crate) fn await_duplicates(&self, lab: &Lab, port: &str, station: u8) -> Result<()> {
        let address = format!("10.77.0.{station}");
        let client = lab.client()?.namespace();
        client.ip(&["neigh", "replace", &address, "dev", "eth0", "use"])?;
        let deadline = Instant::now() + LIMIT;
        while self.frames(port)?.duplicates == 0 {
            ensure!(
                Instant::now() < deadline,
                "no duplicate was kept away on {port}"
            );
            std::thread::sleep(STEP);
        }
        Ok(())
    }

    /// Keeps all of user space's part from running: thread and commands.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.agent.signal(self.process, SIGSTOP)
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        self.agent.signal(self.process, SIGCONT)
    }
}

#[derive(Debug)]
pub(crate) struct Frames {
    pub(crate) rx: u64,
    pub(crate) tx: u64,
    pub(crate) rx_stamps: (u64, u64),
    pub(crate) tx_stamps: (u64, u64),
    pub(crate) duplicates: u64,
}
