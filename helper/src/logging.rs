//! Where log lines go: the journal under systemd, standard error elsewhere.

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use anyhow::{Context, Result};
use tandem_core::status::Event;
use tandem_wire::words::shortened;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::render::event_text;

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

/// Tells what became of a bond: the same words as `tandem status --watch`, with fields for programs.
pub fn event(event: &Event) {
    let text = event_text(event);
    match event {
        Event::StateChanged {
            bond,
            state,
            traffic,
            ..
        } => tracing::info!(%bond, ?state, ?traffic, "{text}"),
        Event::SwitchedOver { bond, switchover } => tracing::info!(
            %bond, from = ?switchover.from, to = ?switchover.to, cause = ?switchover.cause,
            took_us = ?switchover.took_us, "{text}"
        ),
        Event::SwitchoverMeasured { bond, switchover } => {
            tracing::info!(%bond, number = switchover.number, gap = ?switchover.gap, "{text}");
        }
        Event::RemovalExpected {
            bond, vf, stage, ..
        } => tracing::info!(%bond, %vf, ?stage, "{text}"),
        Event::VfRemoved { bond, lead_us, .. } => tracing::info!(%bond, ?lead_us, "{text}"),
        Event::ProblemRaised { bond, problem } => {
            tracing::warn!(%bond, code = ?problem.code, "{text}");
        }
        Event::ProblemCleared { bond, code } => tracing::info!(%bond, ?code, "{text}"),
        Event::GeneralProblemRaised { problem } => {
            tracing::warn!(code = ?problem.code, "{text}");
        }
        Event::GeneralProblemCleared { code } => tracing::info!(?code, "{text}"),
    }
}

/// Longest line about another unit, in characters.
const MAX_LINE: usize = 4_000;

/// Where the journal takes entries with fields (systemd's `JOURNAL_NATIVE_PROTOCOL`).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Warns about another unit: under systemd the line is one of that unit's log too
/// (`OBJECT_SYSTEMD_UNIT=`, systemd.journal-fields(7)), else it goes to standard error.
pub fn about_unit(unit: &str, text: &str) {
    let line = shortened(text, MAX_LINE);
    let entry = format!(
        "MESSAGE={line}\nPRIORITY=4\nSYSLOG_IDENTIFIER=tandem\nOBJECT_SYSTEMD_UNIT={unit}\n"
    );
    let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(entry.as_bytes(), JOURNAL));
    if sent.is_err() {
        eprintln!("tandem: {line}");
    }
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
