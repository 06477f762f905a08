//! Which native frame is the copy of a carried one.

use alloc::collections::BTreeMap;
use core::cmp::Ordering;

use crate::frame::Frame;

/// Carried frames that may have come natively too, with how many of each. By all their bytes and not by a hash: to
/// take one frame for another would lose it, and whoever sends them could arrange that.
#[derive(Debug, Default)]
pub(crate) struct Twins {
    counts: BTreeMap<Key, u32>,
    bytes: usize,
}

impl Twins {
    /// How many bytes are remembered.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many different frames are remembered.
    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    /// A carried frame.
    pub(crate) fn add(&mut self, frame: &Frame) {
        let count = self.counts.entry(Key(frame.clone())).or_insert(0);
        if *count == 0 {
            self.bytes += frame.bytes().len();
        }
        *count += 1;
    }

    /// True if the native frame is the copy of a carried one, each of which has one copy.
    pub(crate) fn take(&mut self, frame: &Frame) -> bool {
        let key = Key(frame.clone());
        let Some(count) = self.counts.get_mut(&key) else {
            return false;
        };
        *count -= 1;
        if *count == 0
            && let Some((key, _)) = self.counts.remove_entry(&key)
        {
            self.bytes -= key.0.bytes().len();
        }
        true
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A frame by its Ethernet bytes: the hosts may have its checksum or segmentation done in different places.
#[derive(Debug)]
struct Key(Frame);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.ethernet().cmp(other.0.ethernet())
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::MIN_FRAME_BYTES;

    fn frame(first: u8, last: u8) -> Frame {
        let mut bytes = [0; MIN_FRAME_BYTES];
        bytes[0] = first;
        bytes[MIN_FRAME_BYTES - 1] = last;
        Frame::new(&bytes).unwrap()
    }

    #[test]
    fn two_equal_frames_have_two_copies_and_no_third() {
        let mut twins = Twins::default();
        twins.add(&frame(0, 1));
        twins.add(&frame(0, 1));
        assert_eq!((twins.len(), twins.bytes()), (1, MIN_FRAME_BYTES));
        assert!(!twins.take(&frame(0, 2)));
        assert!(twins.take(&frame(0, 1)));
        assert!(twins.take(&frame(0, 1)));
        assert!(!twins.take(&frame(0, 1)));
        assert_eq!((twins.len(), twins.bytes()), (0, 0));
    }

    #[test]
    fn the_header_is_not_compared() {
        let mut twins = Twins::default();
        twins.add(&frame(1, 1));
        assert!(twins.take(&frame(0, 1)));
    }
}
