//! What `migrate` tells `serve` of a carry that is over: `serve` counts them, and has no part in them.

use serde::{Deserialize, Serialize};

use crate::evacuate::CarryOutcome;

/// How a carry ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CarryEnd {
    /// As it should.
    Done,
    /// Early, after frames had been held.
    CutShort,
    /// Before anything was held: it was a plain migration.
    NotBegun,
}

impl CarryEnd {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Done, Self::CutShort, Self::NotBegun];
}

/// A carry that is over, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CarryFigures {
    /// How it ended.
    pub end: CarryEnd,
    /// Frames that were held, on both hosts.
    pub held: u64,
    /// That went to the other host.
    pub carried: u64,
    /// That were lost.
    pub lost: u64,
    /// From the guest's stop until it was seen to run, in ms, if it was.
    pub pause_ms: Option<u64>,
    /// The longest that a carried frame waited, in ms.
    pub latest_ms: u64,
    /// The most memory for frames on one host, in bytes.
    pub most_bytes: u64,
}

impl From<&CarryOutcome> for CarryFigures {
    fn from(outcome: &CarryOutcome) -> Self {
        Self {
            end: match (&outcome.reason, outcome.held) {
                (None, _) => CarryEnd::Done,
                (Some(_), 0) => CarryEnd::NotBegun,
                (Some(_), _) => CarryEnd::CutShort,
            },
            held: outcome.held,
            carried: outcome.carried,
            lost: outcome.lost,
            pause_ms: outcome.pause_ms,
            latest_ms: outcome.latest_ms,
            most_bytes: outcome.most_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carry_that_held_nothing_was_not_begun() {
        let end = |reason: Option<&str>, held| {
            let outcome = CarryOutcome {
                reason: reason.map(str::to_owned),
                held,
                ..CarryOutcome::default()
            };
            CarryFigures::from(&outcome).end
        };
        assert_eq!(end(None, 7), CarryEnd::Done);
        assert_eq!(end(Some("the stream ended"), 7), CarryEnd::CutShort);
        assert_eq!(end(Some("no tap"), 0), CarryEnd::NotBegun);
    }
}
