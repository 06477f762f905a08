//! Closes a tap for a guest that has yet to come. One that has come gets what its tap was kept from meanwhile.

use std::collections::VecDeque;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tandem_carry::Frame;

use crate::copy::TapCopy;
use crate::error::KernelError;
use crate::guarded::Guarded;
use crate::hold::Mode;

/// A guest that runs takes what it is given back within this time, or it is lost.
const GIVES: Duration = Duration::from_secs(2);
/// Between two looks at a full queue.
const LOOK: Duration = Duration::from_millis(1);

/// A tap that is closed.
#[derive(Debug)]
pub struct Closed {
    /// It, with its hold.
    pub tap: Guarded,
    /// How many frames were in its queue, and were taken out: they came before the tap was held, and to the source too.
    pub emptied: u64,
}

/// A tap that is open.
#[derive(Debug, thiserror::Error)]
pub enum NotClosed {
    /// It can't be guarded.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// What was held can't be dropped, or given back.
    #[error("the tap's frames can't be read or given back: {0}")]
    Io(#[from] io::Error),
    /// It was given back.
    #[error("the guest had arrived before the half stood ready")]
    HasArrived,
}

impl Guarded {
    /// Closes the tap of this name, and empties its queue through `copy`, if the guest is still coming in: `is_incoming` asks the
    /// hypervisor, and may take its time. Until it has answered for the second time all frames are kept, those of the queue
    /// up to so many bytes; if the guest has come they go to it, in order, and the tap is left open.
    ///
    /// # Errors
    /// The kernel refuses it, or the guest has come.
    pub fn close_before_arrival(
        device: &str,
        copy: Option<&mut TapCopy>,
        most_bytes: usize,
        mut is_incoming: impl FnMut() -> bool,
    ) -> Result<Closed, NotClosed> {
        let mut tap = Self::new(device, Mode::Hold)?;
        let mut is_coming = |tap: &mut Self| {
            // Its first frame tells, too.
            Ok::<_, io::Error>(is_incoming() && tap.announced()?.is_none())
        };
        let mut queue = VecDeque::new();
        if is_coming(&mut tap)? {
            queue = copy.map_or_else(|| Ok(VecDeque::new()), |copy| copy.take_all(most_bytes))?;
            if is_coming(&mut tap)? {
                tap.close()?;
                let emptied = queue.len() as u64;
                return Ok(Closed { tap, emptied });
            }
        }
        tap.give_back(queue)?;
        Err(NotClosed::HasArrived)
    }

    /// Gives the guest what was in its queue, then what was held, and lets go of the tap.
    fn give_back(mut self, mut frames: VecDeque<Frame>) -> io::Result<()> {
        let begun = Instant::now();
        let mut drains = false;
        loop {
            let now_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            while self.has_room()?
                && let Some(frame) = frames.pop_front()
            {
                self.inject(frame)?;
            }
            // Not before that, as frames pass once those that were held are given.
            if frames.is_empty() && !drains {
                drains = true;
                self.drain(now_ms)?;
            }
            while let Some((frame, _)) = self.read(now_ms)? {
                frames.push_back(frame);
            }
            let opens = self.settle(frames.len(), now_ms)?;
            if drains && opens && frames.is_empty() {
                return Ok(());
            }
            if begun.elapsed() >= GIVES {
                return Err(io::Error::other("the guest does not take its frames"));
            }
            if frames.is_empty() || !self.has_room()? {
                sleep(LOOK);
            }
        }
    }
}
