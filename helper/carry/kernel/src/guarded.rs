//! One guest's tap with its hold, and the count of what is still held.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use tandem_carry::{Frame, Mac};

use crate::error::KernelError;
use crate::hold::{Hold, Mode};
use crate::hold_tap::HoldTap;
use crate::inject::{Injected, Injector};
use crate::tap_queue::TapQueue;

/// For so long nothing has come out of the hold although frames are missing: its queue was full, and they are lost. A
/// frame is on its way into that queue for microseconds. In ms.
const MISSING_MS: u64 = 20;

/// So often the programs are told that this process works, in ms.
const BEAT_MS: u64 = tandem_ebpf::CARRY_BEAT_NS / 1_000_000;

/// A guest's tap, what holds frames in front of it, and what gives them back.
#[derive(Debug)]
pub struct Guarded {
    hold: Option<Hold>,
    tap: HoldTap,
    injector: Injector,
    queue: TapQueue,
    draining: bool,
    /// Frames read out of the hold, and those that its queue has lost.
    read: u64,
    lost: u64,
    last_read_ms: u64,
    early: Option<u64>,
    given: u64,
    /// Found the tap's queue full.
    stuck: Option<Frame>,
    /// Frames that the tap does not take, however empty its queue is.
    refused: u64,
}

impl Guarded {
    /// The tap of this name, with a hold in front of it.
    ///
    /// # Errors
    /// If the kernel refuses a part of it; nothing is left then.
    pub fn new(device: &str, mode: Mode) -> Result<Self, KernelError> {
        let tap = HoldTap::new()?;
        let injector = Injector::new(device)?;
        let queue = TapQueue::new(device)?;
        let call = KernelError::call("following the offloads", device);
        tap.follow(injector.offloads()).map_err(call)?;
        let hold = Hold::attach(device, &tap, mode)?;
        Ok(Self {
            hold: Some(hold),
            tap,
            injector,
            queue,
            draining: false,
            read: 0,
            lost: 0,
            last_read_ms: 0,
            early: None,
            given: 0,
            stuck: None,
            refused: 0,
        })
    }

    /// A MAC that nobody else has, and that is not held: what comes back from it is passed over.
    pub(crate) const fn own_mac(&self) -> Mac {
        self.tap.own_mac()
    }

    /// Frames that are lost here: the hold's queue was full, or the tap does not take them.
    pub const fn lost(&self) -> u64 {
        self.lost + self.refused
    }

    /// Of these, those that the tap does not take.
    pub(crate) const fn refused(&self) -> u64 {
        self.refused
    }

    /// The next held frame, and whether it came before the guest's own first one.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub(crate) fn read(&mut self, now_ms: u64) -> io::Result<Option<(Frame, bool)>> {
        let Some(frame) = self.tap.read()? else {
            return Ok(None);
        };
        self.read += 1;
        self.last_read_ms = now_ms;
        let early = self
            .announced()?
            .is_none_or(|early| self.read + self.lost <= early);
        Ok(Some((frame, early)))
    }

    /// How many frames had been held when the guest's first one left, once it has.
    pub(crate) fn announced(&mut self) -> io::Result<Option<u64>> {
        if self.early.is_none()
            && let Some(hold) = &self.hold
        {
            self.early = hold.early().map_err(io::Error::other)?;
            if self.early.is_some() {
                // Its driver has said by now what it takes.
                self.tap.follow(self.injector.offloads())?;
            }
        }
        Ok(self.early)
    }

    /// How many frames are in the tap's queue, that the guest's process has not read; 0 if there is no tap any more. Asked now
    /// and then from the start, as only the least of what was seen tells what was in the queue then.
    pub(crate) fn in_queue(&mut self) -> u64 {
        let (Some(hold), Ok(gone)) = (&self.hold, self.queue.gone()) else {
            return 0;
        };
        hold.passed()
            .map_or(0, |passed| self.queue.holds(passed, gone))
    }

    /// How many frames found that queue full since it was last seen empty.
    pub(crate) fn overflown(&self) -> u64 {
        self.queue.overflown()
    }

    /// Holds from now on.
    pub(crate) fn hold(&mut self) -> io::Result<()> {
        self.draining = false;
        self.tap.follow(self.injector.offloads())?;
        self.set_mode(Mode::Hold)
    }

    /// Opens once everything that was held is given back.
    pub(crate) fn drain(&mut self, now_ms: u64) -> io::Result<()> {
        self.draining = true;
        self.last_read_ms = now_ms;
        self.set_mode(Mode::Drain)
    }

    /// Whoever gives the frames back works. Due at least every [`BEAT_MS`] while there is a hold. True if that comes so late that
    /// frames may have passed the hold.
    pub(crate) fn beat(&mut self) -> io::Result<bool> {
        match &mut self.hold {
            Some(hold) => hold.beat().map_err(io::Error::other),
            None => Ok(false),
        }
    }

    /// How soon the next one is due, in ms.
    pub(crate) fn beats_in_ms(&self) -> Option<u64> {
        self.hold.as_ref().map(|_| BEAT_MS)
    }

    /// Takes the hold off.
    pub(crate) fn detach(&mut self) {
        self.hold = None;
    }

    /// True if there is room for another frame: none waits for the tap's queue.
    pub(crate) fn has_room(&mut self) -> io::Result<bool> {
        match self.stuck.take() {
            Some(frame) => self.inject(frame).map(|()| self.stuck.is_none()),
            None => Ok(true),
        }
    }

    /// Gives a frame to the tap, now or once its queue has room: [`Self::has_room`]. Who sends frames may send any: one that
    /// the tap does not take is lost alone.
    pub(crate) fn inject(&mut self, frame: Frame) -> io::Result<()> {
        match self.injector.inject(&frame)? {
            Injected::Done => {}
            Injected::Full => self.stuck = Some(frame),
            Injected::Refused => self.refused += 1,
        }
        Ok(())
    }

    /// Frames still with the half: `pending` of them. True if the tap has just opened.
    pub(crate) fn settle(&mut self, pending: usize, now_ms: u64) -> io::Result<bool> {
        let pending = pending as u64 + u64::from(self.stuck.is_some());
        let Some(hold) = &mut self.hold else {
            return Ok(false);
        };
        let held = hold.held().map_err(io::Error::other)?;
        let missing = held.saturating_sub(self.read + self.lost);
        if self.draining && pending == 0 && missing > 0 && now_ms >= self.last_read_ms + MISSING_MS
        {
            self.lost += missing;
        }
        let given = (self.read + self.lost)
            .saturating_sub(pending)
            .max(self.given);
        if given != self.given {
            self.given = given;
            hold.set_given(given).map_err(io::Error::other)?;
        }
        let opens = self.draining && given == held;
        self.draining &= !opens;
        Ok(opens)
    }

    /// True if a turn is due soon without an event: a full queue does not tell when it has room.
    pub(crate) fn is_busy(&self) -> bool {
        self.stuck.is_some() || self.draining
    }

    /// Drops frames for the guest from now on, and what was held of them.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.set_mode(Mode::Closed)?;
        while self.read(0)?.is_some() {}
        self.settle(0, 0).map(drop)
    }

    fn set_mode(&mut self, mode: Mode) -> io::Result<()> {
        match &mut self.hold {
            Some(hold) => hold.set_mode(mode).map_err(io::Error::other),
            None => Ok(()),
        }
    }
}

impl AsFd for Guarded {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}
