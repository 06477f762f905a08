//! Ways in for tests/fuzz to what reads QEMU's words. Built with `--cfg fuzzing` only.

use serde_json::Value;

use super::connection::meaning;
use super::look::{job, pci_devices, state};
use super::qmp::{Unasked, heard};
use crate::hypervisor::{DomainState, EventKind, JobFacts};

/// What was read of one JSON value, taken for the result of each query.
#[derive(Debug)]
pub struct Read {
    /// Names of PCI devices, each with its bridge's.
    pub devices: Vec<(String, Option<String>)>,
    /// Figures of a migration.
    pub job: JobFacts,
    /// The state, if the value is a text.
    pub state: DomainState,
}

/// Events and replies that a connection's bytes hold. `replies` are those that somebody waits for: results of
/// commands 1 to 8.
pub fn conversation(bytes: &[u8]) -> (Vec<EventKind>, Vec<Result<Value, String>>) {
    let (unasked, replies) = heard(bytes, 8);
    let events = unasked.iter().filter_map(|unasked| match unasked {
        Unasked::Event(event) => meaning(event),
        Unasked::Lost => None,
    });
    (events.collect(), replies)
}

/// Takes a value for the result of each query.
pub fn read(value: &Value) -> Read {
    let devices = pci_devices(value).into_iter();
    Read {
        devices: devices
            .map(|device| (device.name.to_owned(), device.bridge.map(str::to_owned)))
            .collect(),
        job: job(value),
        state: state(value.as_str().unwrap_or_default()),
    }
}
