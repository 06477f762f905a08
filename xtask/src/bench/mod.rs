//! `cargo xtask bench`: what the service costs an idle guest, and what 500 guests cost their host; or one of the
//! comparisons and measurements that its options name.

mod armed;
mod boot;
mod carry_costs;
mod costs;
mod evacuation;
mod growth;
mod idle;
mod instructions;
mod machine;
mod report;
mod serve;
mod spread;
mod table;
mod tcp;
mod watch;

use std::time::Duration;

use anyhow::Result;
use tandem_lab::artifacts::cargo::Profile;

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
#[group(id = "what", multiple = false)]
pub(crate) struct What {
    /// Measure the idle guest service only
    #[arg(long)]
    idle: bool,
    /// Evacuate guests of all systems, side by side
    #[arg(long, group = "moves")]
    evacuation: bool,
    /// Evacuate guests with their frames carried and without, side by side
    #[arg(long, group = "moves")]
    carried: bool,
    /// Measure what the halves of a carry cost this machine
    #[arg(long)]
    carry_costs: bool,
    /// Measure what each system's service costs a guest
    #[arg(long)]
    costs: bool,
    /// Measure `tandem-host serve` with 50 and with 500 simulated guests
    #[arg(long)]
    serve: bool,
    /// Measure how the guest service's costs grow with the guest
    #[arg(long)]
    growth: bool,
    /// Measure what the fast-path programs cost TCP
    #[arg(long)]
    tcp: bool,
    /// Unplug VFs of guests whose clock counts instructions
    #[arg(long)]
    instructions: bool,
    /// Boot guests with Tandem and without it, side by side
    #[arg(long)]
    boot: bool,
    /// Measure how long it takes until a VF is armed
    #[arg(long)]
    armed: bool,
    /// Measure what it costs to watch the path of a VF that carries frames
    #[arg(long)]
    watch: bool,
}

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    what: What,
    /// Watch an idle service for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    idle_s: u64,
    /// With --serve: a debug build, to see that it works; its CPU figures say little
    #[arg(long, requires = "serve")]
    debug_build: bool,
    /// Rounds of each state with --tcp
    #[arg(long, value_name = "NUMBER", requires = "tcp")]
    tcp_rounds: Option<usize>,
    /// With --idle, --evacuation, --carried, --carry-costs, --costs, --growth, --tcp, --instructions, --boot, --armed or --watch: also write the page in tests/results
    #[arg(long)]
    write_results: bool,
    #[command(flatten)]
    comparison: evacuation::Comparison,
    #[command(flatten)]
    costs: costs::CostsOptions,
    #[command(flatten)]
    growth: growth::GrowthOptions,
    #[command(flatten)]
    instructions: instructions::InstructionsOptions,
    #[command(flatten)]
    boot: boot::BootOptions,
    #[command(flatten)]
    armed: armed::ArmedOptions,
}

/// Measures, prints, writes JSON, and fails if a figure is over its limit.
pub(crate) fn run(options: &Options) -> Result<()> {
    let idle = Duration::from_secs(options.idle_s);
    let page = options.write_results;
    let what = &options.what;
    if what.evacuation {
        evacuation::run(&options.comparison, &evacuation::EVACUATION, page)
    } else if what.carried {
        evacuation::run(&options.comparison, &evacuation::CARRIED, page)
    } else if what.carry_costs {
        carry_costs::run(page)
    } else if what.costs {
        costs::run(&options.costs, idle, page)
    } else if what.serve {
        let debug = options.debug_build;
        serve::run(
            idle,
            if debug {
                Profile::Dev
            } else {
                Profile::Release
            },
        )
    } else if what.growth {
        growth::run(&options.growth, page)
    } else if what.tcp {
        tcp::run(options.tcp_rounds, page)
    } else if what.instructions {
        instructions::run(&options.instructions, page)
    } else if what.boot {
        boot::run(&options.boot, page)
    } else if what.armed {
        armed::run(&options.armed, page)
    } else if what.watch {
        watch::run(page)
    } else {
        let guest = idle::run(idle, page);
        if what.idle {
            return guest;
        }
        guest.and(serve::run(idle, Profile::Release))
    }
}
