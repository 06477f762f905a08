//! Ways in for tests/fuzz to what a half, or whoever started it, says. Built with `--cfg fuzzing` only.

use super::chunk::{Chunk, Chunks};
use super::total::total;
use super::words::{FromHalf, ToHalf};

/// What was read of one end's bytes.
#[derive(Debug, Default)]
pub struct Read {
    /// Bytes of the halves' stream.
    pub stream: Vec<u8>,
    /// Words to a half or of one, as they are shown.
    pub words: Vec<String>,
    /// It ended with what is no chunk.
    pub broken: bool,
}

/// Reads bytes in parts of this many.
pub fn read(bytes: &[u8], part: usize) -> Read {
    let mut chunks = Chunks::default();
    let mut read = Read::default();
    for mut rest in bytes.chunks(part.max(1)) {
        loop {
            match chunks.next(&mut rest) {
                Ok(Some(Chunk::Stream(bytes))) => read.stream.extend(bytes),
                Ok(Some(Chunk::Word(word))) => {
                    let to: Result<ToHalf, _> = serde_json::from_slice(&word);
                    let from: Result<FromHalf, _> = serde_json::from_slice(&word);
                    read.words.extend(to.ok().map(|word| format!("{word:?}")));
                    if let Ok(FromHalf::Ended(report)) = &from {
                        let told = total(None, [Some(report.clone()), Some(report.clone())]);
                        read.words.push(format!("{told:?}"));
                    }
                    read.words.extend(from.ok().map(|word| format!("{word:?}")));
                }
                Ok(None) => break,
                Err(_) => {
                    read.broken = true;
                    return read;
                }
            }
        }
    }
    read
}
