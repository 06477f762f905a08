//! What the figures were taken on: they compare with each other, not with another machine's.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tandem_lab::artifacts::qemu;
use tandem_lab::qemu::{Accelerator, accel};
use tandem_lab::{Kernel, command};

const LIMIT: Duration = Duration::from_secs(30);

/// The machine, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) date: String,
    pub(super) processors: String,
    pub(super) memory: String,
    pub(super) kernel: String,
    pub(super) guest_kernel: String,
    pub(super) qemu: String,
    pub(super) accelerator: &'static str,
}

impl Machine {
    pub(super) fn look() -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let memory = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let qemu = said(qemu::program()?, &["--version"])?;
        Ok(Self {
            date: said("date", &["--utc", "+%Y-%m-%d"])?,
            processors: processors_of(&processors),
            memory: memory_of(&memory),
            kernel: format!("Linux {}", said("uname", &["-r"])?),
            guest_kernel: format!("Linux {}", Kernel::from_environment()?.files()?.release),
            qemu: qemu.lines().next().unwrap_or_default().to_owned(),
            accelerator: match accel::detect()? {
                Accelerator::Tcg => "QEMU's own emulation (TCG): slow, and times are long",
                Accelerator::Kvm => "KVM",
            },
        })
    }

    /// Names and values.
    pub(super) fn facts(&self) -> [(&'static str, &str); 7] {
        [
            ("Date", &self.date),
            ("Processors", &self.processors),
            ("Memory", &self.memory),
            ("Kernel", &self.kernel),
            ("Guests' kernel", &self.guest_kernel),
            ("QEMU", &self.qemu),
            ("Guests run by", self.accelerator),
        ]
    }

    pub(super) fn json(&self) -> Value {
        let facts = self
            .facts()
            .map(|(name, value)| (name.to_owned(), json!(value)));
        Value::Object(facts.into_iter().collect())
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
}
