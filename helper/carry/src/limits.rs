//! How much, and how long.

/// A guest's own MACs that a source is told at most.
pub const MAX_OWN_MACS: usize = 16;

/// How long the source waits for the answer whether the guest stands still, in ms: frames are held meanwhile.
pub const ANSWER_MS: u64 = 2_000;

/// The bounds of one half. What exceeds them is counted, never silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Frames that are kept at most. The destination also remembers as many of the carried ones for as long as the
    /// network may bring the same natively.
    pub frames: usize,
    /// Bytes of them, in the same way.
    pub bytes: usize,
    /// From the hold to the guest's stop, in ms: all the while the guest runs and hears nothing. Whether it has stopped is asked then,
    /// and the answer waited for as long again, or for [`ANSWER_MS`].
    pub hold_ms: u64,
    /// How long the source waits for its tap's queue to be empty before it has the guest stopped, in ms.
    pub drain_ms: u64,
    /// From the guest's arrival at the destination until it runs there, in ms; then the destination opens all the same.
    pub resume_ms: u64,
    /// How long the destination waits for the first native frame while no carried one comes, and for the source's answer
    /// to it. In ms each.
    pub settle_ms: u64,
    /// How long the source waits for what is under way in the network before it answers, in ms.
    pub straggle_ms: u64,
    /// No frame for the guest has come to the source for so long: the network has learnt. In ms.
    pub quiet_ms: u64,
    /// From the stop until the carry ends whatever comes, in ms.
    pub forward_ms: u64,
}

impl Limits {
    /// How long the answer whether the guest stands still is waited for, in ms.
    pub(crate) fn answer_ms(&self) -> u64 {
        self.hold_ms.min(ANSWER_MS)
    }

    /// Until when the other half's next word is waited for, in ms, if that is due since `since_ms`: so long after what
    /// last went over the stream, which may be slow, and at most so long after it was due.
    pub(crate) fn waited_until_ms(
        since_ms: u64,
        last_ms: u64,
        [each_ms, most_ms]: [u64; 2],
    ) -> u64 {
        since_ms
            .max(last_ms)
            .saturating_add(each_ms)
            .min(since_ms.saturating_add(most_ms))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frames: 262_144,
            bytes: 256 * 1024 * 1024,
            hold_ms: 2_000,
            drain_ms: 5,
            resume_ms: 2_000,
            settle_ms: 1_000,
            straggle_ms: 2,
            quiet_ms: 2_000,
            forward_ms: 120_000,
        }
    }
}
