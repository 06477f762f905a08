//! The command line of Tandem in the guest. No logic of its own.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tandem_guest::check::{self, Level};
use tandem_guest::cli::{CheckArgs, Cli, Command, RunArgs, UdevArgs, exit};
use tandem_guest::config::ConfigError;
use tandem_guest::nic_watch;
use tandem_guest::{ask, heap, initramfs, logging, replay, run, setup, udev_marks};

fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Run(arguments) => reported(serve(arguments).map(|()| exit::OK)),
        Command::Check(arguments) => reported(report(&arguments)),
        Command::Setup(arguments) => reported(setup::setup(&arguments)),
        Command::Replay(arguments) => reported(
            replay::replay(&arguments.journal, &mut std::io::stdout().lock()).map(|()| exit::OK),
        ),
        Command::Udev(arguments) => reported(mark(&arguments).map(|()| exit::OK)),
        Command::Ask(question) => ask::ask(question),
    };
    ExitCode::from(code)
}

fn reported(result: Result<u8>) -> u8 {
    result.unwrap_or_else(|error| {
        eprintln!("tandem: {error:#}");
        if error.is::<ConfigError>() {
            exit::CONFIGURATION
        } else {
            exit::FAILED
        }
    })
}

fn serve(arguments: RunArgs) -> Result<()> {
    heap::share_one_heap();
    logging::start()?;
    let options = run::Options {
        config: arguments.config,
        journal: arguments.journal,
        socket: arguments.socket,
    };
    // One thread: the service waits, it doesn't compute. Others only for what may block in the
    // kernel, well within `TasksMax=` of tandem.service.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .build()
        .context("can't start the event loop")?;
    let result = runtime.block_on(run::run(options));
    // A request that a driver holds up in the kernel must not hold up the end.
    runtime.shutdown_background();
    result
}

fn mark(arguments: &UdevArgs) -> Result<()> {
    if arguments.watch {
        return nic_watch::watch(&arguments.config);
    }
    let lines = match &arguments.interface {
        Some(interface) => udev_marks::properties(interface, &arguments.config)?,
        None if arguments.initramfs => initramfs::rules(&arguments.config)?,
        None => udev_marks::refresh(&arguments.config)?,
    };
    for line in lines {
        println!("{line}");
    }
    Ok(())
}

fn report(arguments: &CheckArgs) -> Result<u8> {
    let system = check::System::this().context("can't look at this system")?;
    let report = check::check(&system, &arguments.config);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", check::render(&report));
    }
    Ok(match report.level {
        Level::Ok => exit::OK,
        Level::Degraded => exit::DEGRADED,
        Level::Fatal => exit::FAILED,
    })
}
