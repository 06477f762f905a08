//! `cargo xtask bench --serve`: what `tandem-host serve` costs a host, with few and with many guests.
//!
//! The service runs in a process of its own over a hypervisor in memory; the guests, which speak the
//! channel's dialect on real sockets, and who watches them are in another one.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use tandem_lab::artifacts::cargo::{Profile, example};
use tandem_lab::command;

use super::machine::Machine;
use super::report::Report;
use super::table::Table;

/// Guests in each run.
const COUNTS: [u32; 2] = [50, 500];
/// Changes of which the cost and the latency are measured.
const CHANGES: u32 = 1000;
/// After the last guest has subscribed, the service has calmed down.
const CALM: Duration = Duration::from_secs(10);

/// What a run showed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Run {
    guests: u32,
    idle_resident_kib: u64,
    peak_resident_kib: u64,
    idle_cpu_s_per_min: f64,
    cpu_s_per_1000_changes: f64,
    latency_median_us: u64,
    latency_p99_us: u64,
    latency_max_us: u64,
}

/// A process that is killed when nobody needs it any more.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures, prints, and writes JSON.
pub(super) fn run(idle: Duration, profile: Profile) -> Result<()> {
    let program = example("tandem-host", "serve_load", profile)?;
    let mut runs = Vec::new();
    for guests in COUNTS {
        command::progress(&format!("{guests} guests"));
        runs.push(measure(&program, guests, idle)?);
    }
    let mut table = Table::new(&[
        "guests",
        "",
        "resident MiB",
        "at its peak",
        "CPU ms an idle minute",
        "CPU s for 1,000 changes",
        "a change is seen after ms (median)",
        "99 %",
        "longest",
    ]);
    table.rows.extend(runs.iter().map(Run::cells));
    let report = Report {
        name: "serve",
        title: "What `tandem-host serve` costs a host",
        about: "Hypervisor and guests are simulated, the guests behind real sockets.".to_owned(),
        machine: Machine::without_guests()?,
        figures: json!(runs),
        table,
        claims: Vec::new(),
        picture: None,
    };
    report.publish(false)
}

fn measure(program: &Path, guests: u32, idle: Duration) -> Result<Run> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let spawn = |role: &str| {
        let mut command = Command::new(program);
        command.arg(role).arg(folder.path()).arg(guests.to_string());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let child = child.with_context(|| format!("cannot run {}", program.display()));
        child.map(Process)
    };
    let mut load = spawn("guests")?;
    let mut input = load.0.stdin.take().context("no standard input")?;
    let mut output = BufReader::new(load.0.stdout.take().context("no standard output")?);
    let service = spawn("serve")?;
    let pid = service.0.id();
    ensure!(
        line(&mut output)? == "subscribed",
        "the guests did not come up"
    );
    // Nothing to wait for: that nothing happens meanwhile is what is measured.
    std::thread::sleep(CALM);
    let idle_resident_kib = memory_kib(pid, "VmRSS")?;
    let before = cpu_ns(pid)?;
    std::thread::sleep(idle);
    let idle_ns = cpu_ns(pid)? - before;
    let before = cpu_ns(pid)?;
    let latency = changes(&mut input, &mut output)?;
    let change_ns = cpu_ns(pid)? - before;
    let microseconds = |key: &str| latency[key].as_u64().with_context(|| format!("no {key}"));
    Ok(Run {
        guests,
        idle_resident_kib,
        peak_resident_kib: memory_kib(pid, "VmHWM")?,
        idle_cpu_s_per_min: idle_ns as f64 / 1e9 * 60.0 / idle.as_secs_f64(),
        cpu_s_per_1000_changes: change_ns as f64 / 1e9 * 1000.0 / f64::from(CHANGES),
        latency_median_us: microseconds("median_us")?,
        latency_p99_us: microseconds("p99_us")?,
        latency_max_us: microseconds("max_us")?,
    })
}

fn changes(input: &mut ChildStdin, output: &mut BufReader<ChildStdout>) -> Result<Value> {
    writeln!(input, "changes {CHANGES}").context("the guests have ended")?;
    let figures = line(output)?;
    serde_json::from_str(&figures).with_context(|| format!("`{figures}` are no figures"))
}

fn line(output: &mut BufReader<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// A size of the process, in KiB.
fn memory_kib(pid: u32, key: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).context(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let size = line.and_then(|rest| rest.split_whitespace().nth(1));
    size.and_then(|size| size.parse().ok())
        .with_context(|| format!("no {key} of process {pid}"))
}

/// Time on a CPU of all threads of the process, in ns.
fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the service has ended")? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        sum += parse_cpu_ns(&text).with_context(|| format!("`{text}` has no CPU time"))?;
    }
    Ok(sum)
}

/// `ON_CPU WAITED SLICES`, the times in ns (Documentation/scheduler/sched-stats.rst, Linux 6.12).
fn parse_cpu_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

impl Run {
    fn cells(&self) -> Vec<String> {
        let ms = |us: u64| format!("{:.1}", us as f64 / 1000.0);
        let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
        vec![
            self.guests.to_string(),
            String::new(),
            mib(self.idle_resident_kib),
            mib(self.peak_resident_kib),
            format!("{:.1}", self.idle_cpu_s_per_min * 1000.0),
            format!("{:.3}", self.cpu_s_per_1000_changes),
            ms(self.latency_median_us),
            ms(self.latency_p99_us),
            ms(self.latency_max_us),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_the_first_number() {
        assert_eq!(parse_cpu_ns("42000 7 3\n"), Some(42000));
        assert_eq!(parse_cpu_ns("\n"), None);
    }
}
