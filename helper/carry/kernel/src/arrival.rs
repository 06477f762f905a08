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
/// How often a queue is emptied before an answer that comes in time: [`tandem_ebpf::CARRY_LEASE_NS`].
const TRIES: usize = 3;
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
    /// It was given back.
    #[error("the hypervisor takes too long to say whether the guest has arrived")]
    TooSlow,
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
        // And whether all frames were kept until the answer, since the last one.
        let mut is_coming = |tap: &mut Self| {
            let is_late = tap.beat()?;
            let comes = is_incoming();
            let has_lapsed = tap.beat()? || is_late;
            // Its first frame tells, too.
            Ok::<_, io::Error>((comes && tap.announced()?.is_none(), !has_lapsed))
        };
        let mut copy = copy;
        let mut queue = VecDeque::new();
        let (mut comes, _) = is_coming(&mut tap)?;
        for _ in 0..TRIES {
            if !comes {
                break;
            }
            if let Some(copy) = copy.as_deref_mut() {
                queue.extend(copy.take_all(most_bytes)?);
            }
            let kept_all;
            (comes, kept_all) = is_coming(&mut tap)?;
            // Those that were not kept are in the queue.
            if comes && kept_all {
                tap.close()?;
                let emptied = queue.len() as u64;
                return Ok(Closed { tap, emptied });
            }
        }
        tap.give_back(queue)?;
        match comes {
            true => Err(NotClosed::TooSlow),
            false => Err(NotClosed::HasArrived),
        }
    }

    /// Gives the guest what was in its queue, then what was held, and lets go of the tap.
    fn give_back(mut self, mut frames: VecDeque<Frame>) -> io::Result<()> {
        let begun = Instant::now();
        let mut drains = false;
        loop {
            self.beat()?;
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
