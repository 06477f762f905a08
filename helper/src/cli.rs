//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tandem_core::types::{IfName, Mac};

use crate::channel::SOCKET_PATH;
use crate::config;

/// Exit statuses, the same for all commands.
pub mod exit {
    /// It went well.
    pub const OK: u8 = 0;
    /// It failed or was refused; the reason is on standard error.
    pub const FAILED: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// The service does not run.
    pub const NOT_RUNNING: u8 = 3;
    /// The service did not answer in time.
    pub const TIMED_OUT: u8 = 4;
    /// `check` found that Tandem works, with less than it could have.
    pub const DEGRADED: u8 = 5;
    /// `run`, `udev`: the configuration is wrong, so that trying again is of no use (`EX_CONFIG`, sysexits.h).
    pub const CONFIGURATION: u8 = 78;

    /// All of them, with their meanings for `--help`, the manual page and the reference.
    pub const MEANINGS: [(u8, &str); 7] = [
        (OK, "success"),
        (FAILED, "failed or refused; the reason is on standard error"),
        (USAGE, "the command line is wrong"),
        (NOT_RUNNING, "the service does not run"),
        (TIMED_OUT, "the service did not answer in time"),
        (DEGRADED, "check: Tandem works here, with restrictions"),
        (CONFIGURATION, "run, udev: the configuration is wrong"),
    ];
}

fn exit_help() -> String {
    let lines = exit::MEANINGS.map(|(status, meaning)| format!("\n  {status:<2} {meaning}"));
    format!("Exit status:{}", lines.concat())
}

/// Keeps connections open while the pass-through NIC (VF) leaves, the VM migrates and another VF arrives
#[derive(Debug, Parser)]
#[command(name = "tandem", version, after_help = exit_help())]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service
    Run(RunArgs),
    /// Check kernel, permissions and configuration: what works here, what does not, and why
    Check(CheckArgs),
    /// Find the NICs that belong together, and print or write the configuration for them
    Setup(SetupArgs),
    /// Replay a journal of `tandem run --journal` and print the decisions
    Replay(ReplayArgs),
    /// Print an interface's role as udev properties (for udev's rules)
    Udev(UdevArgs),
    /// Ask the running service
    #[command(flatten)]
    Ask(Ask),
}

/// Commands that ask the running service.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Show bonds and ports, which of them carries the traffic, and why
    Status(StatusArgs),
    /// Move the traffic to the standby and keep it there until `failback`
    Failover(BondArgs),
    /// Let the VF carry the traffic again
    Failback(BondArgs),
    /// Move the traffic away from VFs and release them for their unplug
    PrepareUnplug(UnplugArgs),
    /// Use the VF again after `prepare-unplug`
    Resume(BondArgs),
    /// Announce the bond's addresses to the network again
    Announce(BondArgs),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file; conf.d/*.toml beside it is also read
    #[arg(long, value_name = "PATH", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
    /// Record everything the service learns in this file
    #[arg(long, value_name = "PATH")]
    pub journal: Option<PathBuf>,
    /// Socket for the other commands
    #[arg(long, value_name = "PATH", default_value = SOCKET_PATH)]
    pub socket: PathBuf,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Configuration file
    #[arg(long, value_name = "PATH", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
}

/// Arguments of `setup`.
#[derive(Debug, Args)]
pub struct SetupArgs {
    /// Write the configuration file, unless there is one
    #[arg(long, conflicts_with = "dry_run")]
    pub write: bool,
    /// With --write: replace a configuration file that is there
    #[arg(long, requires = "write")]
    pub force: bool,
    /// Say what would become of the network configuration, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The standby, by its present name, where it can't be told
    #[arg(long, value_name = "INTERFACE", requires = "vfs")]
    pub standby: Option<IfName>,
    /// A VF of that standby, by its present name; may be repeated
    #[arg(long = "vf", value_name = "INTERFACE", requires = "standby")]
    pub vfs: Vec<IfName>,
    /// Configuration file
    #[arg(long, value_name = "PATH", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Journal file
    pub journal: PathBuf,
}

/// Arguments of `udev`.
#[derive(Debug, Args)]
pub struct UdevArgs {
    /// Print the properties of this interface
    #[arg(value_name = "INTERFACE", required_unless_present_any = ["refresh", "watch", "initramfs"])]
    pub interface: Option<IfName>,
    /// Have udev reprocess the interfaces whose properties no longer match the configuration
    #[arg(long, conflicts_with = "interface")]
    pub refresh: bool,
    /// Give NICs back to their network manager if the service makes no bond of them
    #[arg(long, conflicts_with_all = ["interface", "refresh"])]
    pub watch: bool,
    /// Print rules of udev for an initramfs, in which no VF is to be configured
    #[arg(long, conflicts_with_all = ["interface", "refresh", "watch"])]
    pub initramfs: bool,
    /// Configuration file
    #[arg(long, value_name = "PATH", default_value = config::DEFAULT_PATH)]
    pub config: PathBuf,
}

/// How to reach the service.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// The service's socket
    #[arg(long, value_name = "PATH", default_value = SOCKET_PATH)]
    pub socket: PathBuf,
    /// How long to wait for an answer
    #[arg(long = "timeout", value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub limit: Duration,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON; with --watch one object a line
    #[arg(long)]
    pub json: bool,
    /// Keep running and print each event
    #[arg(long)]
    pub watch: bool,
    /// How to reach the service.
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// Arguments of commands about a bond.
#[derive(Debug, Args)]
pub struct BondArgs {
    /// The bond; optional if there is only one
    pub bond: Option<IfName>,
    /// How to reach the service.
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// Arguments of `prepare-unplug`.
#[derive(Debug, Args)]
pub struct UnplugArgs {
    /// The bond; optional if there is only one
    pub bond: Option<IfName>,
    /// The VF, by permanent MAC; by default all that are present
    #[arg(long, value_name = "MAC")]
    pub vf: Option<Mac>,
    /// How to reach the service.
    #[command(flatten)]
    pub service: ServiceArgs,
}

/// From one second to one day.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("write whole seconds from 1 to 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// Whoever may name a NIC names it `--refresh`, say.
    #[test]
    fn a_nics_name_is_no_option_of_udevs_program() {
        let rules = include_str!("../../udev-rules/10-tandem-unmanaged.rules");
        let mut programs = rules.split("IMPORT{program}=\"/usr/bin/").skip(1);
        let program = programs.next().unwrap().split_once('"').unwrap().0;
        assert!(programs.next().is_none());
        let line = program.replace("$name", "--refresh");
        let Command::Udev(named) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("not the command for udev");
        };
        assert!(!named.refresh && named.interface.is_some());
    }

    #[test]
    fn bonds_and_macs_are_checked_here() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("tandem failover bond0").is_ok());
        assert!(parse("tandem failover").is_ok());
        assert!(parse("tandem failover a/b").is_err());
        assert!(parse("tandem prepare-unplug --vf 52:54:00:00:00:01 bond0").is_ok());
        assert!(parse("tandem prepare-unplug --vf 52:54").is_err());
        assert!(parse("tandem status --timeout 0").is_err());
        assert!(parse("tandem status --timeout 5 --watch --json").is_ok());
        assert!(parse("tandem udev").is_err());
        assert!(parse("tandem setup --standby eth0 --vf eth1 --vf eth2 --write --force").is_ok());
        for wrong in [
            "--standby eth0",
            "--vf eth1",
            "--force",
            "--write --dry-run",
        ] {
            assert!(parse(&format!("tandem setup {wrong}")).is_err(), "{wrong}");
        }
        let error = parse("tandem fly").unwrap_err();
        assert_eq!(error.exit_code(), i32::from(exit::USAGE));
    }
}
