//! A record of every input, one JSON object a line, so that what happened in the
//! field can be replayed (`tandem replay`).

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use tandem_core::{Input, Time};

/// A journal stops growing here; the service goes on without it.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Longest line that a replay takes.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry {
    /// When the machine got it.
    pub at: Time,
    /// What it got.
    pub input: Input,
}

/// Writes entries until it is full or the disk refuses.
pub struct Journal {
    file: Option<BufWriter<File>>,
    bytes: u64,
}

impl Journal {
    /// Starts a new journal, or none at all.
    ///
    /// # Errors
    /// The file can't be created.
    pub fn create(path: Option<&Path>) -> Result<Self> {
        let file = path
            .map(|path| {
                File::create(path)
                    .with_context(|| format!("can't create the journal {}", path.display()))
            })
            .transpose()?
            .map(BufWriter::new);
        Ok(Self { file, bytes: 0 })
    }

    /// Adds one input. A journal that can't be written ends with a warning: it
    /// must never hold up the guest's network.
    pub fn record(&mut self, at: Time, input: &Input) {
        let Some(file) = &mut self.file else { return };
        let written = serde_json::to_vec(&Entry {
            at,
            input: input.clone(),
        })
        .map_err(std::io::Error::other)
        .and_then(|mut line| {
            line.push(b'\n');
            file.write_all(&line)?;
            file.flush()?;
            Ok(line.len() as u64)
        });
        match written {
            Ok(bytes) if self.bytes.saturating_add(bytes) <= MAX_BYTES => self.bytes += bytes,
            Ok(_) => {
                tracing::warn!(limit_bytes = MAX_BYTES, "the journal is full and ends here");
                self.file = None;
            }
            Err(error) => {
                tracing::warn!(%error, "the journal can't be written and ends here");
                self.file = None;
            }
        }
    }
}

/// Reads a journal, line by line.
///
/// # Errors
/// The file can't be opened; each item: a line is too long or no entry.
pub fn read(path: &Path) -> Result<impl Iterator<Item = Result<Entry>>> {
    let file =
        File::open(path).with_context(|| format!("can't open the journal {}", path.display()))?;
    let name = path.display().to_string();
    let mut file = BufReader::new(file);
    let mut number = 0_usize;
    Ok(std::iter::from_fn(move || {
        number += 1;
        next_entry(&mut file)
            .map(|entry| entry.with_context(|| format!("{name}:{number}: no entry")))
    }))
}

fn next_entry(file: &mut impl BufRead) -> Option<Result<Entry>> {
    let mut line = Vec::new();
    let limit = MAX_LINE_BYTES as u64 + 1;
    match file.take(limit).read_until(b'\n', &mut line) {
        Ok(0) => None,
        Ok(_) if line.len() > MAX_LINE_BYTES => Some(Err(anyhow!("the line is too long"))),
        Ok(_) => Some(serde_json::from_slice(&line).map_err(anyhow::Error::from)),
        Err(error) => Some(Err(error.into())),
    }
}
