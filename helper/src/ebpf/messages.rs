//! Messages of the kernel programs, passed on to `tracing`.

use log::{Level, Log, Metadata, Record};
use tracing::level_filters::LevelFilter;

/// A `log` logger that writes `tracing` events.
pub(super) struct Tracing;

impl Log for Tracing {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let program = record.target();
        let message = record.args();
        match record.level() {
            Level::Error => tracing::error!(program, "eBPF: {message}"),
            Level::Warn => tracing::warn!(program, "eBPF: {message}"),
            Level::Info => tracing::info!(program, "eBPF: {message}"),
            Level::Debug => tracing::debug!(program, "eBPF: {message}"),
            Level::Trace => tracing::trace!(program, "eBPF: {message}"),
        }
    }

    fn flush(&self) {}
}

/// The level up to which the programs write messages, in aya-log's numbers: what
/// nobody would see is not even written.
pub(super) fn kernel_level() -> u8 {
    let current = LevelFilter::current();
    [
        (LevelFilter::TRACE, aya_log::Level::Trace),
        (LevelFilter::DEBUG, aya_log::Level::Debug),
        (LevelFilter::INFO, aya_log::Level::Info),
        (LevelFilter::WARN, aya_log::Level::Warn),
        (LevelFilter::ERROR, aya_log::Level::Error),
    ]
    .into_iter()
    .find(|(filter, _)| current >= *filter)
    .map_or(0, |(_, level)| level as u8)
}
