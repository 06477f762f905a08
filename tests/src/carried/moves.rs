//! The ways in which a guest moves, and what one move came to.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Disturbance, Side, When};
use crate::probe::{Count, FrameReport};

/// Frames a second in each direction.
const RATE_HZ: u32 = 1_000;
/// The same where the guest stands still for long, as its sockets have no room for more.
const SELDOM_HZ: u32 = 100;
/// So many s are long.
const LONG_S: u64 = 10;

/// How the guest moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// As any live migration.
    Plain,
    /// The same, and so long after the guest has left, the switch still sends to the source.
    PlainLate(Duration),
    /// Carried.
    Carried,
    /// Carried, and the memory follows the guest.
    PostCopy,
    /// Carried, while this goes wrong.
    Disturbed(Disturbance),
    /// Carried, and that half is killed then.
    Killed(Side, When),
    /// Carried, and QEMU is allowed so long a pause that it stops the guest before anything is held.
    OwnStop,
    /// Carried, and `migrate` is killed when the guest stands still on the source.
    ToolKilled,
}

impl Move {
    pub(super) const fn rate_hz(&self) -> u32 {
        match self {
            Self::Disturbed(Disturbance::Frozen(time) | Disturbance::HalfFrozen(_, time))
                if time.as_secs() >= LONG_S =>
            {
                SELDOM_HZ
            }
            _ => RATE_HZ,
        }
    }

    /// The guest stays where it is.
    pub(super) const fn stays(&self) -> bool {
        matches!(
            self,
            Self::Disturbed(Disturbance::Cancelled(_) | Disturbance::DestinationDies)
        )
    }

    /// A plain move ends without the VF that it was to have.
    pub(super) const fn code(&self) -> Option<i32> {
        match self {
            Self::Plain | Self::PlainLate(_) => Some(12),
            Self::ToolKilled => None,
            _ if self.stays() => Some(11),
            Self::Carried
            | Self::PostCopy
            | Self::Disturbed(_)
            | Self::Killed(..)
            | Self::OwnStop => Some(0),
        }
    }
}

/// What one move came to.
pub struct Moved {
    /// Over IPv4.
    pub frames: FrameReport,
    /// The same over IPv6, and with broadcasts for the guest.
    pub others: [FrameReport; 2],
    /// Of more flows, to a guest with several queues.
    pub flows: Vec<FrameReport>,
    /// What `migrate` said.
    pub report: Value,
}

impl Moved {
    /// To the guest and from it.
    pub fn totals(&self) -> [&Count; 2] {
        [&self.frames.to_guest.total, &self.frames.to_client.total]
    }

    fn queues(&self) -> u64 {
        if self.flows.is_empty() { 1 } else { 2 }
    }

    /// What the report owns up to: frames that a QEMU which stopped by itself may have taken in vain, and those that a busy
    /// machine brought after native ones.
    ///
    /// # Errors
    /// The report has no such numbers, or impossible ones.
    pub fn told(&self) -> Result<(u64, u64)> {
        let told = &self.report["carry"];
        let number = |name: &str| told[name].as_u64().context("the carry's report");
        let (unseen, late) = (number("maybe-lost")?, number("late")?);
        ensure!(
            unseen <= 2 * self.queues() && (unseen == 0 || told["stop-was-ours"] == false),
            "QEMU takes two frames of each queue: {told}"
        );
        Ok((unseen, late))
    }
}
