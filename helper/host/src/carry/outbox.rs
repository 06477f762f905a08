//! What a half says, on its way to whoever started it. The stream waits until it is taken; a word never does, nor who says it:
//! as long as a half is held up, so are the guest's frames.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::chunk::Chunk;
use super::words::{FromHalf, to_chunk};

/// Chunks of the stream that wait.
const MAX_STREAM: usize = 64;
/// Words that wait; a half has far fewer to say, and more are not kept for one who takes none.
const MAX_WORDS: usize = 64;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    words: VecDeque<Chunk>,
    stream: VecDeque<Chunk>,
    /// Nothing comes after that.
    is_closed: bool,
    /// Nobody takes anything any more.
    is_over: bool,
}

impl Outbox {
    /// Says a word, before all that waits of the stream. One who does not listen any more is noticed by the end of its own words.
    pub(super) fn tell(&self, word: &FromHalf) {
        let mut waiting = self.waiting();
        if waiting.words.len() < MAX_WORDS {
            waiting.words.push_back(to_chunk(word));
        }
        self.changed.notify_all();
    }

    /// Hands on a piece of the stream once there is room; false if nobody takes it any more.
    pub(super) fn hand_on(&self, piece: Vec<u8>) -> bool {
        let waiting = self.waiting();
        let full = |waiting: &mut Waiting| waiting.stream.len() >= MAX_STREAM && !waiting.is_over;
        let mut waiting = self
            .changed
            .wait_while(waiting, full)
            .unwrap_or_else(PoisonError::into_inner);
        if !waiting.is_over {
            waiting.stream.push_back(Chunk::Stream(piece));
        }
        self.changed.notify_all();
        !waiting.is_over
    }

    /// Nothing comes after that.
    pub(super) fn close(&self) {
        self.waiting().is_closed = true;
        self.changed.notify_all();
    }

    /// Writes all of it, until it is closed or nobody takes it any more.
    pub(super) fn write_all(&self, mut output: impl Write) {
        while let Some(chunk) = self.next() {
            let written = output.write_all(&chunk.to_bytes());
            if written.and_then(|()| output.flush()).is_err() {
                self.waiting().is_over = true;
                self.changed.notify_all();
                return;
            }
        }
    }

    fn next(&self) -> Option<Chunk> {
        let is_idle = |waiting: &mut Waiting| {
            waiting.words.is_empty() && waiting.stream.is_empty() && !waiting.is_closed
        };
        let mut waiting = self
            .changed
            .wait_while(self.waiting(), is_idle)
            .unwrap_or_else(PoisonError::into_inner);
        let word = waiting.words.pop_front();
        let next = word.or_else(|| waiting.stream.pop_front());
        self.changed.notify_all();
        next
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Longer than a busy machine takes to begin a thread.
    const LIMIT: Duration = Duration::from_secs(20);

    /// More than all queues have room for, to one who takes nothing.
    #[test]
    fn a_word_waits_for_nobody_who_takes_no_stream() {
        let outbox = Arc::new(Outbox::default());
        let (handed, counts) = channel();
        let stream = Arc::clone(&outbox);
        thread::spawn(move || {
            while stream.hand_on(vec![7; 1024]) {
                let _ = handed.send(());
            }
        });
        for _ in 0..MAX_STREAM {
            counts.recv_timeout(LIMIT).unwrap();
        }
        let (said, done) = channel();
        let words = Arc::clone(&outbox);
        thread::spawn(move || {
            for _ in 0..2 * MAX_WORDS {
                words.tell(&FromHalf::StopGuest);
            }
            let _ = said.send(());
        });
        done.recv_timeout(LIMIT).expect("it was said at once");
        assert_eq!(outbox.next(), Some(to_chunk(&FromHalf::StopGuest)));
        assert!(counts.try_recv().is_err(), "nothing has been taken of it");
    }

    #[test]
    fn all_is_written_before_the_end() {
        let outbox = Outbox::default();
        assert!(outbox.hand_on(vec![1]) && outbox.hand_on(Vec::new()));
        outbox.tell(&FromHalf::Ready);
        outbox.close();
        let mut written = Vec::new();
        outbox.write_all(&mut written);
        let wanted = [
            to_chunk(&FromHalf::Ready),
            Chunk::Stream(vec![1]),
            Chunk::Stream(Vec::new()),
        ];
        let wanted: Vec<u8> = wanted.iter().flat_map(Chunk::to_bytes).collect();
        assert_eq!(written, wanted);
    }

    #[test]
    fn one_who_takes_nothing_any_more_keeps_nobody_waiting() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let outbox = Outbox::default();
        outbox.tell(&FromHalf::Ready);
        outbox.write_all(Gone);
        assert!((0..2 * MAX_STREAM).all(|_| !outbox.hand_on(vec![1])));
    }
}
