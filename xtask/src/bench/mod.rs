//! `cargo xtask bench`: what the service costs an idle guest, and what 500 guests cost their host; with
//! `--evacuation`, Tandem beside the systems it is compared with.

mod evacuation;
mod growth;
mod idle;
mod serve;
mod tcp;

use std::time::Duration;

use anyhow::Result;
use tandem_lab::artifacts::cargo::Profile;

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Watch the idle service for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    idle_s: u64,
    /// Measure the idle guest service only
    #[arg(long, conflicts_with_all = ["evacuation", "serve", "growth", "tcp"])]
    idle: bool,
    /// Evacuate guests of all systems, side by side, instead
    #[arg(long)]
    evacuation: bool,
    /// Measure `tandem-host serve` with 50 and with 500 simulated guests instead
    #[arg(long, conflicts_with = "evacuation")]
    serve: bool,
    /// With --serve: a debug build, to see that it works; its CPU figures say little
    #[arg(long, requires = "serve")]
    debug_build: bool,
    /// Measure how the guest service's costs grow with the guest instead
    #[arg(long, conflicts_with_all = ["evacuation", "serve"])]
    growth: bool,
    /// With --growth: along this axis only
    #[arg(long, value_enum, requires = "growth")]
    axis: Option<growth::Axis>,
    /// Measure what the hand-over programs cost TCP instead
    #[arg(long, conflicts_with_all = ["evacuation", "serve", "growth"])]
    tcp: bool,
    /// Rounds of each state with --tcp
    #[arg(long, value_name = "NUMBER", requires = "tcp")]
    tcp_rounds: Option<usize>,
    #[command(flatten)]
    comparison: evacuation::Comparison,
}

/// Measures, prints, writes JSON, and fails if a figure is over its limit.
pub(crate) fn run(options: &Options) -> Result<()> {
    let idle = Duration::from_secs(options.idle_s);
    if options.evacuation {
        evacuation::run(&options.comparison, idle)
    } else if options.serve {
        let debug = options.debug_build;
        serve::run(
            idle,
            if debug {
                Profile::Dev
            } else {
                Profile::Release
            },
        )
    } else if options.growth {
        growth::run(options.axis)
    } else if options.tcp {
        tcp::run(options.tcp_rounds)
    } else {
        let guest = idle::run(idle);
        if options.idle {
            return guest;
        }
        guest.and(serve::run(idle, Profile::Release))
    }
}
