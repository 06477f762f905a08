//! What the figures were taken on: they compare with each other, not with another machine's.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tandem_lab::artifacts::qemu::{self, Starter};
use tandem_lab::qemu::{Accelerator, accel};
use tandem_lab::{Kernel, command};

use crate::project;

const LIMIT: Duration = Duration::from_secs(30);

/// The machine, in words: names and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Machine {
    facts: Vec<(String, String)>,
}

impl Machine {
    /// This one, with what its guests run on.
    pub(super) fn look() -> Result<Self> {
        let qemu = said(qemu::program(Starter::Lab)?, &["--version"])?;
        let mut machine = Self::without_guests()?;
        machine.add(
            "Guests' kernel",
            &format!("Linux {}", Kernel::from_environment()?.files()?.release),
        );
        machine.add("QEMU", qemu.lines().next().unwrap_or_default());
        machine.add(
            "Guests run by",
            match accel::detect()? {
                Accelerator::Tcg => "QEMU's own emulation (TCG): slow, and times are long",
                Accelerator::Kvm => "KVM",
            },
        );
        Ok(machine)
    }

    /// This one, for what is measured on itself.
    pub(super) fn without_guests() -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let memory = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let mut machine = Self::default();
        machine.add("Date", &said("date", &["--utc", "+%Y-%m-%d"])?);
        machine.add("Commit", &commit());
        machine.add("Processors", &processors_of(&processors));
        machine.add("Memory", &memory_of(&memory));
        machine.add("Kernel", &format!("Linux {}", said("uname", &["-r"])?));
        Ok(machine)
    }

    fn add(&mut self, name: &str, value: &str) {
        self.facts.push((name.to_owned(), value.to_owned()));
    }

    /// As lines of a terminal.
    pub(super) fn text(&self) -> String {
        let lines = self.facts.iter();
        lines
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect()
    }

    /// As a table of a page.
    pub(super) fn markdown(&self) -> String {
        let rows: String = self
            .facts
            .iter()
            .map(|(name, value)| format!("| {name} | {value} |\n"))
            .collect();
        format!("| | |\n| --- | --- |\n{rows}")
    }

    pub(super) fn json(&self) -> Value {
        json!(self.facts)
    }
}

/// What was measured; a source archive has none.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = command::run(project::command("git").args(arguments), LIMIT).ok()?;
        Some(output.stdout.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    match changed.as_deref() {
        Some("") => commit,
        _ => format!("{commit}, with changes"),
    }
}

fn said(program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<String> {
    let output = command::run(Command::new(program).args(arguments), LIMIT)?;
    Ok(output.stdout.trim().to_owned())
}

fn processors_of(cpuinfo: &str) -> String {
    let models: Vec<_> = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']))
        .collect();
    match models.first() {
        Some(model) => format!("{} × {model}", models.len()),
        None => "unknown".to_owned(),
    }
}

fn memory_of(meminfo: &str) -> String {
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or("unknown".to_owned(), |kib| {
        format!("{:.0} GiB", kib as f64 / f64::from(1 << 20))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read_from_proc() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: A CPU\n\nprocessor\t: 1\nmodel name\t: A CPU\n";
        assert_eq!(processors_of(cpuinfo), "2 × A CPU");
        assert_eq!(processors_of(""), "unknown");
        assert_eq!(
            memory_of("MemTotal:       24648704 kB\nMemFree: 1 kB\n"),
            "24 GiB"
        );
    }

    #[test]
    fn a_machine_is_told() {
        let mut machine = Machine::default();
        machine.add("Memory", "24 GiB");
        assert!(machine.markdown().ends_with("| Memory | 24 GiB |\n"));
        assert_eq!(machine.text(), "Memory: 24 GiB\n");
    }
}
