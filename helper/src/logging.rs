//! Where log lines go: the journal under systemd, standard error elsewhere.

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging. `TANDEM_LOG` sets the filter (default `info`).
///
/// # Errors
/// The filter can't be parsed, or logging was started before.
pub fn start() -> Result<()> {
    let directives = std::env::var("TANDEM_LOG").unwrap_or_else(|_| "info".to_string());
    let filter = EnvFilter::try_new(&directives)
        .with_context(|| format!("TANDEM_LOG=`{directives}` is no log filter; try `debug`"))?;
    let registry = tracing_subscriber::registry().with(filter);
    if stderr_is_journal()
        && let Ok(journald) = tracing_journald::layer()
    {
        return registry
            .with(journald)
            .try_init()
            .context("logging was started before");
    }
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    registry
        .with(stderr)
        .try_init()
        .context("logging was started before")
}

/// systemd names the stream it connected to standard error in `JOURNAL_STREAM`
/// (systemd.exec(5)); after a redirection the name no longer fits.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(metadata) = std::fs::metadata("/proc/self/fd/2") else {
        return false;
    };
    stream == format!("{}:{}", metadata.dev(), metadata.ino())
}
