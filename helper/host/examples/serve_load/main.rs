//! A load for `tandem-host serve`, for `cargo xtask bench --serve`: the service itself over a
//! hypervisor in memory in one process, simulated guests and somebody who watches in another.
//!
//! `serve_load serve FOLDER COUNT` serves until SIGTERM. `serve_load guests FOLDER COUNT` prints
//! `subscribed` once all guests are, then takes lines on standard input: `changes COUNT` has so many
//! guests change, and prints how long each change took to be seen, as JSON.

mod guests;
mod host;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tandem_host::daemon::{Options, serve};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [role, folder, count] = words.as_slice() else {
        bail!("serve_load serve|guests FOLDER COUNT");
    };
    let folder = PathBuf::from(folder);
    let count: usize = count.parse().context("COUNT")?;
    // As `tandem-host` itself has it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match role.as_str() {
        "serve" => runtime.block_on(serve_all(folder, count)),
        "guests" => guests::run(&runtime, folder, count),
        other => bail!("no role `{other}`"),
    }
}

async fn serve_all(folder: PathBuf, count: usize) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let options = Options {
        socket: Some(folder.join("serve.sock")),
        metrics: Some(folder.join("tandem.prom")),
        ..Options::default()
    };
    let host = Arc::new(host::Simulated::new(&folder, count));
    serve(host, options, async move {
        terminate.recv().await;
    })
    .await?;
    Ok(())
}

/// The name of a guest and of its socket.
fn name(number: usize) -> String {
    format!("g{number:04}")
}
