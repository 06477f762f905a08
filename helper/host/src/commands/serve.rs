//! `serve`: cares for all domains of a host until it is told to end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::connect::Connect;
use crate::daemon::{Options, Sources, serve};
use crate::execute::default_records_folder;
use crate::files::default_folder;
use crate::trust::{ReplugFile, default_file};
use crate::words::message;

/// `tandem-host serve`
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub connect: Connect,
    /// How often to ask hypervisor and guests for changes that went unnoticed
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    pub interval: u64,
    /// Write `OpenMetrics` to this file, for `node_exporter`'s collector of text files
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// Answer `GET /metrics` on this loopback address, such as 127.0.0.1:9469
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Leave domains that arrived without their VF to `tandem-host recover`
    #[arg(long)]
    pub no_replug: bool,
    /// Folder of lock files
    #[arg(long, default_value_os_t = default_folder(), value_name = "FOLDER")]
    pub state_dir: PathBuf,
    /// Where this host keeps its own records of evacuations; nobody else may write there
    #[arg(long, default_value_os_t = default_records_folder(), value_name = "FOLDER")]
    pub records_dir: PathBuf,
    /// From which networks a VF may be plugged in where this host has no record of its own
    #[arg(long, default_value_os_t = default_file(), value_name = "FILE")]
    pub replug_file: PathBuf,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// If the hypervisor's events can't be asked for, or socket or port can't be had.
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
        listen: arguments.listen,
        socket: Some(arguments.connect.serve_socket.clone()),
        state: arguments.state_dir.clone(),
        replug: (!arguments.no_replug).then(|| Sources {
            records: arguments.records_dir.clone(),
            file: arguments.replug_file.clone(),
        }),
    };
    if let Some(Err(error)) = options.replug.as_ref().map(|it| ReplugFile::read(&it.file)) {
        // It is read anew at each attempt, so that it can be mended meanwhile.
        tracing::warn!("no VF is plugged in by it: {}", message(&error.to_string()));
    }
    serve(arguments.connect.open(), options, stop).await?;
    Ok(0)
}
