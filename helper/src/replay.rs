//! `tandem replay`: what the machine decides, given a journal of the field.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use tandem_core::{Machine, Output, Time};

use crate::journal;

/// Feeds each entry to a new machine and writes its decisions. Where a decision
/// differs from the field's, the entries that follow tell the field's story.
///
/// # Errors
/// The journal can't be read, or the output not written.
pub fn replay(path: &Path, out: &mut impl Write) -> Result<()> {
    let mut machine: Option<Machine> = None;
    let mut start = Time::default();
    for entry in journal::read(path)? {
        let entry = entry?;
        let machine = machine.get_or_insert_with(|| {
            start = entry.at;
            Machine::new(entry.at)
        });
        machine.handle(entry.at, entry.input);
        while let Some(output) = machine.next_output() {
            let at_ms = entry.at.since_ms(start);
            let line = match &output {
                Output::Act(action) => format!("  -> {}", serde_json::to_string(&action.kind)?),
                Output::Reply { .. } => format!("  -> {}", serde_json::to_string(&output)?),
                Output::Notify(event) => format!("     {}", serde_json::to_string(event)?),
            };
            writeln!(out, "{at_ms:>9} ms{line}").context("can't write")?;
        }
    }
    if let Some(machine) = machine {
        writeln!(out, "{}", serde_json::to_string_pretty(machine.status())?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;
    use tandem_core::input::{Input, Source};

    #[test]
    fn decisions_follow_from_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::create(Some(&path)).unwrap();
        journal.record(Time(1_000), &Input::Lost(Source::Links));
        journal.record(Time(2_000_000), &Input::Tick);
        drop(journal);
        let mut out = Vec::new();
        replay(&path, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("observe") && text.contains("\"generation\""),
            "{text}"
        );
    }

    #[test]
    fn a_damaged_journal_names_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        std::fs::write(&path, "{\"at\":1,\"input\":\"tick\"}\n{\n").unwrap();
        let error = replay(&path, &mut Vec::new()).unwrap_err();
        assert!(format!("{error:#}").contains("journal:2"), "{error:#}");
    }
}
