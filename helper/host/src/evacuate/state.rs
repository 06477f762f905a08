//! What an evacuation knows.

use std::collections::BTreeMap;

use super::action::{Action, ActionKey};
use super::limits::Limits;
use super::notes::{Issued, Notes, Saved};
use super::outcome::{Outcome, PhaseTime};
use super::phase::Phase;
use super::progress::Record;
use super::spec::Side;
use super::tries::Tries;
use super::view::HostView;

/// Decides. Holds no resource, so that it can be killed at any time.
#[derive(Debug)]
pub struct Evacuation {
    pub(super) limits: Limits,
    /// Our record; stage and beat are filled in when it is written.
    pub(super) record: Record,
    pub(super) now_ms: u64,
    pub(super) phase: Phase,
    pub(super) entered_ms: u64,
    pub(super) views: BTreeMap<Side, HostView>,
    pub(super) saved: BTreeMap<Side, Saved>,
    pub(super) tries: BTreeMap<ActionKey, Tries>,
    pub(super) notes: Notes,
    pub(super) in_flight: Option<Issued>,
    pub(super) outbox: Option<Action>,
    pub(super) next_id: u64,
    pub(super) deadline_ms: Option<u64>,
    pub(super) phases: Vec<PhaseTime>,
    pub(super) outcome: Option<Outcome>,
}
