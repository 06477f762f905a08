//! What was lost between the halves: neither of them knows that alone.

/// What the source says of frames that went over the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Sent for good: neither given back nor given to the network.
    pub carried: u64,
    /// Of these, that the destination has said the guest was given.
    pub confirmed: u64,
}

/// What the destination says of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// That came over the stream.
    pub carried: u64,
    /// Of these, that were left to the source, as that may have given them.
    pub left: u64,
}

impl Received {
    /// What the destination has to account for itself.
    pub const fn taken(&self) -> u64 {
        self.carried.saturating_sub(self.left)
    }
}

/// Frames that went over the stream, and that neither half counts as lost or knows to be given. A half that tells nothing took what it
/// knew with it.
pub fn lost_between(sent: Option<Sent>, received: Option<Received>) -> u64 {
    match (sent, received) {
        (None, None) => 0,
        // What the source made of them went with it.
        (None, Some(received)) => received.left.min(received.carried),
        (Some(sent), None) => sent.carried.saturating_sub(sent.confirmed),
        (Some(sent), Some(received)) => {
            let taken = received.taken().max(sent.confirmed);
            sent.carried.saturating_sub(taken)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(sent: Option<(u64, u64)>, received: Option<(u64, u64)>) -> u64 {
        let sent = sent.map(|(carried, confirmed)| Sent { carried, confirmed });
        let received = received.map(|(carried, left)| Received { carried, left });
        lost_between(sent, received)
    }

    #[test]
    fn what_one_half_leaves_to_the_other_is_lost_if_that_has_not_given_it() {
        assert_eq!(lost(Some((50, 50)), Some((50, 0))), 0, "it was carried");
        assert_eq!(lost(Some((0, 0)), Some((50, 50))), 0, "it was given back");
        assert_eq!(lost(Some((50, 0)), Some((50, 50))), 50, "nobody gave it");
        assert_eq!(lost(Some((50, 0)), Some((40, 0))), 10, "the stream had it");
        assert_eq!(lost(None, Some((50, 50))), 50, "the source is dead");
        assert_eq!(lost(Some((50, 20)), None), 30, "the destination is dead");
        assert_eq!(lost(Some((50, u64::MAX)), Some((0, u64::MAX))), 0, "a lie");
    }
}
