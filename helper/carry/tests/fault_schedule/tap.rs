//! A tap with its hold, as the kernel's part does it: in front of the tap's queue, with another tap to hold in.

use std::collections::VecDeque;

use tandem_carry::Frame;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Frames are dropped: somebody else gets them.
    Closed,
    Hold,
    /// Frames are held until as many have been given back.
    Drain,
    Pass,
}

/// Frames that a tap's queue takes.
const RING: usize = 500;

#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) mode: Mode,
    /// Held, and whether it came before the guest's first frame.
    pub(crate) held: VecDeque<(Frame, bool)>,
    /// What the hypervisor has yet to read for the guest.
    pub(crate) ring: VecDeque<Frame>,
    /// Nobody gives it anything any more but the network.
    let_go: bool,
    /// Frames that found no room, or nobody.
    pub(crate) lost: u64,
}

impl Tap {
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            mode,
            held: VecDeque::new(),
            ring: VecDeque::new(),
            let_go: false,
            lost: 0,
        }
    }

    /// A frame comes from the network. `in_hand` frames are with the half that has the hold. True if the tap has opened.
    pub(crate) fn arrive(&mut self, frame: Frame, early: bool, in_hand: usize) -> bool {
        let opens = self.opens(in_hand);
        match self.mode {
            Mode::Closed => {}
            Mode::Hold | Mode::Drain => self.held.push_back((frame, early)),
            Mode::Pass => self.inject(frame),
        }
        opens
    }

    /// True if a tap that drains has nothing more to give back; it passes frames from now on.
    pub(crate) fn opens(&mut self, in_hand: usize) -> bool {
        let opens = self.mode == Mode::Drain && in_hand == 0 && self.held.is_empty();
        if opens {
            self.mode = Mode::Pass;
        }
        opens
    }

    pub(crate) fn inject(&mut self, frame: Frame) {
        if self.ring.len() < RING {
            self.ring.push_back(frame);
        } else {
            self.lost += 1;
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.let_go || self.ring.len() < RING
    }

    /// Whoever had the hold is gone, and the hold with it: frames pass, those that were held are lost.
    pub(crate) fn let_go(&mut self) {
        self.mode = Mode::Pass;
        self.let_go = true;
        self.lost += self.held.len() as u64;
        self.held.clear();
    }
}
