//! What an evacuation remembers because no look shows it.

use std::collections::BTreeMap;

use super::action::{ActionId, ActionKind};
use super::cause::Cause;
use super::input::{Failure, GuestStatus};
use super::progress::Stage;
use super::spec::Side;
use crate::hypervisor::JobFacts;

/// What can't be seen by a look and has to be remembered.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// It ends before anything would be changed.
    pub(super) check_only: bool,
    /// A recovery; what it was told and saw of the one before.
    pub(super) recovery: Option<Recovery>,
    /// An action that timed out may take effect until then, in ms.
    pub(super) doubt_until_ms: u64,
    /// An older record may overwrite a newer one until then, in ms.
    pub(super) record_doubt_until_ms: u64,
    pub(super) aborted: bool,
    /// The first reason why it will not end as it should.
    pub(super) cause: Option<Cause>,
    /// Another process drives the evacuation.
    pub(super) superseded: bool,
    /// The record was written, or may have been.
    pub(super) wrote: bool,
    /// Where our claim was written, and when that ended, in ms.
    pub(super) claimed: Option<(Side, u64)>,
    /// Devices of the destination are reserved, or may be.
    pub(super) vf_claimed: bool,
    /// The guest or its hardware was asked for something.
    pub(super) touched: bool,
    /// Of each device, by its number in the spec.
    pub(super) devices: Vec<DeviceNotes>,
    pub(super) migration_begun: bool,
    /// How it ended, and when, in ms.
    pub(super) migration_end: Option<(Result<(), Failure>, u64)>,
    /// Cancelling has begun then, in ms.
    pub(super) cancel_ms: Option<u64>,
    /// Why the guest's last answer did not come, while it is waited for.
    pub(super) guest_silence: Option<String>,
    /// Where the domain runs, once that is decided.
    pub(super) residence: Option<Side>,
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
    /// An unplug was asked for then, in ms, and may still happen.
    pub(super) unplug_asked_ms: Option<u64>,
    /// The last request, in ms, whatever became of it.
    pub(super) unplug_last_ms: Option<u64>,
    pub(super) unplug_refusals: u32,
    /// How plugging it in failed last, since it was last seen.
    pub(super) plug_failure: Option<String>,
    /// It was on the source when the guest was asked to use it again.
    pub(super) was_back: bool,
    /// What the guest says of its bond.
    pub(super) guest: Option<GuestStatus>,
}

/// What a recovery knows of the one before it.
#[derive(Debug, Clone)]
pub(super) struct Recovery {
    pub(super) owner_is_dead: bool,
    /// Its last sign of life on each host, and when it was first seen, in ms.
    pub(super) beats: BTreeMap<Side, (u64, u64)>,
    /// A sign of life came while we watched.
    pub(super) owner_lives: bool,
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
pub(super) struct InFlight {
    pub(super) id: ActionId,
    pub(super) kind: ActionKind,
    pub(super) issued_ms: u64,
}
