//! What a QEMU says on its monitor, and devices as its arguments.

use serde_json::Value;
use tandem_host::qemu::fuzzing::{conversation, read};
use tandem_host::trust::check_device;

use crate::harmless;
use crate::shown::is_printable;

/// PCI devices that are looked at.
const MAX_DEVICES: usize = 4096;
const MAX_MESSAGE: usize = 2_000;

pub(super) fn run(bytes: &[u8]) {
    let (events, replies) = conversation(bytes);
    let lines = 1 + bytes
        .iter()
        .filter(|byte| matches!(**byte, b'\n' | 0xff))
        .count();
    assert!(events.len() + replies.len() <= lines);
    replies.iter().flatten().for_each(looked_at);
    for line in super::text(bytes).lines() {
        if let Ok(value) = serde_json::from_str::<Value>(line) {
            looked_at(&value);
            looked_at(&value["return"]);
        }
        match check_device(line) {
            Ok(()) => harmless::device(line),
            Err(error) => is_printable(&error.to_string(), MAX_MESSAGE),
        }
    }
}

fn looked_at(value: &Value) {
    let read = read(value);
    assert!(read.devices.len() <= MAX_DEVICES);
    assert!(read.devices.iter().all(|(name, _)| !name.is_empty()));
}
