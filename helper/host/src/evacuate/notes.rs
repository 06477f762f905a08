//! What an evacuation remembers because no look shows it.

use std::collections::BTreeMap;

use super::action::{ActionId, ActionKind};
use super::carry::CarryNotes;
use super::cause::{Cause, Obstacles};
use super::input::{Failure, GuestStatus};
use super::progress::{Progress, Stage};
use super::spec::Side;
use crate::hypervisor::JobFacts;

/// What can't be seen by a look and has to be remembered.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// It ends before anything would be changed.
    pub(super) check_only: bool,
    /// What was known to stand in the way before it began.
    pub(super) obstacles: Obstacles,
    /// A recovery; what it was told and saw of the one before.
    pub(super) recovery: Option<Recovery>,
    /// An action that timed out may take effect until then, in ms.
    pub(super) doubt_until_ms: u64,
    /// A record or claim of ours may be written until then, an older one over a newer one, in ms.
    pub(super) record_doubt_until_ms: u64,
    pub(super) aborted: bool,
    /// The first reason why it will not end as it should.
    pub(super) cause: Option<Cause>,
    /// All the others, if it was refused.
    pub(super) more_causes: Vec<Cause>,
    /// Another process drives the evacuation.
    pub(super) superseded: bool,
    /// The record was written, or may have been.
    pub(super) wrote: bool,
    /// Our claim stands there, or may.
    pub(super) claim: Option<Side>,
    /// A removal of it may take effect until then, in ms.
    pub(super) claim_doubt_until_ms: u64,
    /// Our record was written there, while nobody else claimed the domain.
    pub(super) claimed: Option<Side>,
    /// Claims of others on each host, by their tokens, and when they were first seen, in ms.
    pub(super) rivals: BTreeMap<(Side, String), u64>,
    /// So many of them were removed.
    pub(super) rivals_removed: u32,
    /// Devices of the destination are reserved, or may be.
    pub(super) vf_claimed: bool,
    /// The guest or its hardware was asked for something.
    pub(super) touched: bool,
    /// Of each device, by its number in the spec.
    pub(super) devices: Vec<DeviceNotes>,
    pub(super) migration_begun: bool,
    pub(super) carry: CarryNotes,
    /// When it was over, in ms.
    pub(super) carry_over_ms: Option<u64>,
    /// How it ended, and when, in ms.
    pub(super) migration_end: Option<(Result<(), Failure>, u64)>,
    /// Cancelling has begun then, in ms.
    pub(super) cancel_ms: Option<u64>,
    /// Why the guest's last answer did not come, while it is waited for.
    pub(super) guest_silence: Option<String>,
    /// Where the domain runs, once that is decided.
    pub(super) residence: Option<Side>,
    /// Devices that were missing when the phase that plugs them in began.
    pub(super) to_plug: u64,
    /// Times that devices were put back, or should have been.
    pub(super) restores: u32,
    /// The record was removed there.
    pub(super) cleared: Vec<Side>,
    /// The last job seen.
    pub(super) job: Option<JobFacts>,
}

/// The same of one device.
#[derive(Debug, Clone, Default)]
pub(super) struct DeviceNotes {
    pub(super) unplug_requests: u32,
    /// The hypervisor has taken one of them, or may have.
    pub(super) unplug_taken: bool,
    /// So many of them it said that it has handed to the guest.
    pub(super) unplug_heard: u32,
    /// An unplug was asked for then, in ms, and may still happen.
    pub(super) unplug_asked_ms: Option<u64>,
    /// The last request, in ms, whatever became of it.
    pub(super) unplug_last_ms: Option<u64>,
    pub(super) unplug_refusals: u32,
    /// How plugging it in failed last, since it was last seen.
    pub(super) plug_failure: Option<String>,
    /// How long the hypervisor took to plug it in.
    pub(super) plug_ms: Option<u64>,
    /// The first request to plug it in of whose end nothing was heard: on which host, and when, in ms.
    pub(super) plug_unheard: Option<(Side, u64)>,
    /// It was on the source when the guest was asked to use it again.
    pub(super) was_back: bool,
    /// What the guest says of its bond.
    pub(super) guest: Option<GuestStatus>,
}

/// What a recovery knows of the one before it.
#[derive(Debug, Clone)]
pub(super) struct Recovery {
    /// Who is known to be dead, if anybody drove it then.
    pub(super) dead: Option<String>,
    /// Its last sign of life on each host.
    pub(super) beats: BTreeMap<Side, Beat>,
    /// A sign of life came while we watched.
    pub(super) owner_lives: bool,
}

/// A record of somebody else's, as it was seen last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beat {
    pub(super) beat: u64,
    /// Nobody drives by it for sure.
    pub(super) is_left: bool,
    /// First seen then, in ms.
    pub(super) since_ms: u64,
}

impl Recovery {
    /// Nobody drives by that record, or one who is known to be dead.
    pub(super) fn is_left(&self, record: &Progress) -> bool {
        let owner = record.owner.as_ref();
        owner.is_none_or(|owner| self.dead.as_ref() == Some(&owner.token))
    }
}

/// A record that was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Saved {
    pub(super) stage: Stage,
    pub(super) migration_begun: bool,
    pub(super) at_ms: u64,
}

/// An action whose end is waited for.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) id: ActionId,
    pub(super) kind: ActionKind,
    pub(super) issued_ms: u64,
}
