//! The binary `tandem-host`. No logic of its own.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tandem_host::cli::Cli;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => ExitCode::from(runtime.block_on(cli.run())),
        Err(error) => {
            eprintln!("tandem-host: no runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
