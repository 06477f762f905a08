//! What an evacuation knows of its carry: whether there is one, and what became of it.

use serde::{Deserialize, Serialize};

/// What became of the frames for the guest while it moved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CarryOutcome {
    /// Why they were not carried, or not all of them.
    pub reason: Option<String>,
    /// The carry itself stopped the guest, after it had begun to hold.
    pub stop_was_ours: bool,
    /// From the stop until the guest was seen to run, in ms.
    pub pause_ms: Option<u64>,
    /// Frames that were held, on both hosts.
    pub held: u64,
    /// That came over the halves' stream, and were the destination's to give.
    pub carried: u64,
    /// That came over it too, and were left to the source, which may have given them: what it did not give is among the lost.
    #[serde(default)]
    pub left_to_the_source: u64,
    /// That were given back to the guest on the source.
    pub given_back: u64,
    /// That the source gave to the network once the guest was elsewhere, as there was no destination's half to carry them to.
    pub forwarded: u64,
    /// Of the carried: that came to the destination so late that native frames were before them.
    pub late: u64,
    /// That were lost, as no more may be kept or nobody took them; with those that were left in the tap's queue.
    pub lost: u64,
    /// Of the lost: that the guest had not taken from its tap's queue when it was stopped.
    pub left_in_queue: u64,
    /// Of the held: that the guest had left in its tap's queue, and were read from there in its place.
    pub swept: u64,
    /// At most so many more were lost unseen: the guest stood still before its tap's queue was seen empty behind the hold, and
    /// its process may have taken two frames of each queue in vain.
    pub maybe_lost: u64,
    /// Why that queue can't be read in the guest's place.
    pub no_sweep: Option<String>,
    /// Frames to groups and strangers that waited in the destination tap's queue from before, and were taken out: the guest got them
    /// on the source.
    pub emptied: u64,
    /// Why that queue can't be emptied: what is in it comes to the guest twice, as after any migration.
    pub not_emptied: Option<String>,
    /// How long the guest ran with its frames held, for that queue to be emptied, in ms.
    pub drain_ms: Option<u64>,
    /// The longest that a carried frame waited on both hosts together, in ms.
    pub latest_ms: u64,
    /// The most memory for frames on one host, in bytes.
    pub most_bytes: u64,
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum CarryNotes {
    /// None is wanted.
    #[default]
    NotWanted,
    /// One is, and was not begun.
    Wanted,
    /// The halves stand ready, or are at work.
    UnderWay,
    /// It is over, or there was none.
    Over(Box<CarryOutcome>),
}

impl CarryNotes {
    /// There is none, for this reason.
    pub(super) fn without(reason: String) -> Self {
        Self::Over(Box::new(CarryOutcome {
            reason: Some(reason),
            ..CarryOutcome::default()
        }))
    }
}
