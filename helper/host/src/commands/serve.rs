//! `serve`: cares for all domains of a host until it is told to end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::connect::Connect;
use crate::serve::{Options, serve};

/// `tandem-host serve`
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub connect: Connect,
    /// How often every domain is looked at, beside when something happens to it
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    pub interval: u64,
    /// Write metrics to this file, for a collector of text files (`OpenMetrics`)
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// If the hypervisor's events can't be asked for.
pub async fn run(arguments: &Serve) -> Result<u8> {
    let mut terminate = signal(SignalKind::terminate()).context("can't wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't wait for SIGINT")?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let options = Options {
        interval: Duration::from_secs(arguments.interval),
        metrics: arguments.metrics.clone(),
    };
    serve(arguments.connect.open(), options, stop).await?;
    Ok(0)
}
