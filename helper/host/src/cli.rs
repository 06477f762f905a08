//! The command line.

use clap::{Parser, Subcommand};

use crate::commands::{
    args, carry, configure, exit, migrate, one_step, recover, serve, session, status, watch, xml,
};
use crate::evacuate::{Cause, CauseCode, Outcome, Verdict};
use crate::words;

/// Keeps a guest's connections open while its pass-through NIC (VF) leaves, the VM migrates and another VF arrives
#[derive(Debug, Parser)]
#[command(name = "tandem-host", version, after_help = exit_help())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn exit_help() -> String {
    let lines = exit::MEANINGS.map(|(status, meaning)| format!("\n  {status:<2} {meaning}"));
    format!("Exit status:{}", lines.concat())
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Unplug the VF, migrate, and plug in the destination's VF; roll back if that fails
    Migrate(Box<args::Migrate>),
    /// Say whether `migrate` with the same options could be begun and ended; change nothing
    Check(Box<args::Evacuation>),
    /// Finish or undo a migration that was interrupted
    Recover(args::Recover),
    /// Move the guest's traffic off its VF so that another manager can detach the VF
    Prepare(args::OneStep),
    /// Let the guest use a VF that another manager has attached
    Resume(args::OneStep),
    /// Check, show, set or clear the bonds in a domain's XML
    #[command(subcommand)]
    Xml(xml::Xml),
    /// Send the guest the bonds of its domain's XML
    Configure(configure::Configure),
    /// Show one domain or all: VF, channel, and what the guest reports
    Status(status::StatusArgs),
    /// Print each change of one domain or all; needs `serve`
    Watch(watch::WatchArgs),
    /// One half of a carry, as `migrate --carry` starts it on each host
    CarryHalf(carry::CarryHalf),
    /// Care for all guests of a host: send them their bonds, follow their status, plug in missing VFs
    Serve(serve::Serve),
}

impl Cli {
    /// Runs the command; returns the exit code. What went wrong is on standard error.
    pub async fn run(&self) -> u8 {
        let result = match &self.command {
            Command::Migrate(arguments) => migrate::run(arguments).await,
            Command::Check(arguments) => migrate::check(arguments).await,
            Command::Recover(arguments) => recover::run(arguments).await,
            Command::Prepare(arguments) => one_step::prepare(arguments).await,
            Command::Resume(arguments) => one_step::resume(arguments).await,
            Command::Xml(command) => xml::run(command).await,
            Command::Configure(arguments) => configure::run(arguments).await,
            Command::Status(arguments) => status::run(arguments).await,
            Command::Watch(arguments) => watch::run(arguments).await,
            Command::CarryHalf(arguments) => carry::run(arguments).await,
            Command::Serve(arguments) => serve::run(arguments).await,
        };
        result.unwrap_or_else(|error| {
            let message = format!("{error:#}");
            eprintln!("tandem-host: {}", words::message(&message));
            let cause = Cause::new(CauseCode::NotBegun, message);
            let refused = Outcome::without_run(Verdict::Refused, cause);
            // Its exit code says more: trying again as it is will not help.
            if let Err(error) = session::told(self.wants_report(), &refused) {
                eprintln!("tandem-host: {error:#}");
            }
            exit::FAILED
        })
    }

    /// What the command prints, it prints as a report for programs.
    fn wants_report(&self) -> bool {
        match &self.command {
            Command::Migrate(arguments) => arguments.evacuation.common.json,
            Command::Check(arguments) => arguments.common.json,
            Command::Recover(arguments) => arguments.common.json,
            _ => false,
        }
    }
}
