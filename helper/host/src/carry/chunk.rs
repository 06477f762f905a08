//! Two kinds of bytes over one pair of standard streams: the halves' stream to each other, and words between this program
//! and a half. A byte that says which, the length in four bytes with the highest first, and that. What is read was
//! written by another process, maybe on another host, and is taken for hostile.

/// The most bytes of one chunk, without what goes before them.
pub(super) const MAX_BYTES: usize = 64 * 1024;
const HEAD_BYTES: usize = 5;
const STREAM: u8 = 1;
const WORD: u8 = 2;

/// A piece of what passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chunk {
    /// Of the halves' stream; empty at its end.
    Stream(Vec<u8>),
    /// A word, as JSON.
    Word(Vec<u8>),
}

/// Bytes that are no chunk. Nothing after them can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what comes from the other end is no carry's")]
pub(super) struct NoChunk;

impl Chunk {
    /// Its bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Stream(body) => (STREAM, body),
            Self::Word(body) => (WORD, body),
        };
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.push(kind);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }
}

/// Cuts bytes into chunks. Holds at most one.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    held: Vec<u8>,
    broken: bool,
}

impl Chunks {
    /// Takes bytes from the front of `input` up to the end of the next chunk. `None` once all bytes are taken.
    ///
    /// # Errors
    /// At the first bytes that are no chunk, and ever after.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Chunk>, NoChunk> {
        let next = if self.broken {
            Err(NoChunk)
        } else {
            self.read(input)
        };
        if next.is_err() {
            self.broken = true;
            self.held = Vec::new();
            *input = &[];
        }
        next
    }

    fn read(&mut self, input: &mut &[u8]) -> Result<Option<Chunk>, NoChunk> {
        self.fill(HEAD_BYTES, input);
        let Some(&[kind, a, b, c, d]) = self.held.get(..HEAD_BYTES) else {
            return Ok(None);
        };
        let body = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(|_| NoChunk)?;
        if body > MAX_BYTES || !matches!(kind, STREAM | WORD) {
            return Err(NoChunk);
        }
        self.fill(HEAD_BYTES + body, input);
        if self.held.len() < HEAD_BYTES + body {
            return Ok(None);
        }
        let body = self.held.split_off(HEAD_BYTES);
        self.held.clear();
        Ok(Some(match kind {
            STREAM => Chunk::Stream(body),
            _ => Chunk::Word(body),
        }))
    }

    fn fill(&mut self, to_bytes: usize, input: &mut &[u8]) {
        let missing = to_bytes.saturating_sub(self.held.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.held.extend_from_slice(taken);
        *input = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_out_as_they_went_in_however_they_are_cut() {
        let chunks = [
            Chunk::Stream(vec![7; MAX_BYTES]),
            Chunk::Word(b"{}".to_vec()),
            Chunk::Stream(Vec::new()),
        ];
        let bytes: Vec<u8> = chunks.iter().flat_map(Chunk::to_bytes).collect();
        for size in [1, 3, 1000, bytes.len()] {
            let mut reader = Chunks::default();
            let mut read = Vec::new();
            for mut part in bytes.chunks(size) {
                while let Some(chunk) = reader.next(&mut part).unwrap() {
                    read.push(chunk);
                }
            }
            assert_eq!(read, chunks, "in parts of {size}");
        }
    }

    #[test]
    fn what_is_no_chunk_ends_it() {
        for bytes in [[3, 0, 0, 0, 0], [STREAM, 0, 1, 0, 1]] {
            let mut reader = Chunks::default();
            let mut rest = &bytes[..];
            assert_eq!(reader.next(&mut rest), Err(NoChunk));
            let mut good = &Chunk::Word(Vec::new()).to_bytes()[..];
            assert_eq!(reader.next(&mut good), Err(NoChunk));
        }
    }
}
