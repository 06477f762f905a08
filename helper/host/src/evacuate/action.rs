//! What is to be done.

use super::progress::{Owner, Record};
use super::spec::Side;
use crate::hypervisor::Nic;

/// Names an action, so that its end can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(pub u64);

/// One thing to do; its end comes back as [`super::Input::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Its name.
    pub id: ActionId,
    /// What to do.
    pub kind: ActionKind,
}

/// What can be done. Each ends within a bound of its executor, well or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionKind {
    /// Look at the domain on one host: state, NICs, job, record.
    Observe {
        /// Where.
        side: Side,
    },
    /// Ask the guest.
    Guest {
        /// Where the domain runs.
        side: Side,
        /// What.
        call: GuestCall,
    },
    /// Write into the domain that this process claims it; durable once accepted.
    Claim {
        /// Where the domain is.
        side: Side,
        /// This process.
        owner: Box<Owner>,
    },
    /// Remove a claim from the domain.
    Unclaim {
        /// Where.
        side: Side,
        /// Whose.
        token: String,
    },
    /// Keep the whole record on this host, and write what identifies it into the domain; durable once accepted.
    Save {
        /// Where the domain is.
        side: Side,
        /// The record.
        record: Box<Record>,
    },
    /// Remove the record from the domain.
    Clear {
        /// Where.
        side: Side,
    },
    /// Make sure that a device of the destination exists and nobody has it, and reserve it.
    ClaimVf {
        /// Its number in the spec.
        device: usize,
    },
    /// The same without a reservation.
    CheckVf {
        /// Its number in the spec.
        device: usize,
    },
    /// End all reservations.
    ReleaseVfs,
    /// Ask the guest's hardware to release a device on the source.
    Detach {
        /// Its number in the spec.
        device: usize,
        /// It, as the source shows it.
        nic: Box<Nic>,
    },
    /// Plug in a device of that side.
    Attach {
        /// Where.
        side: Side,
        /// Its number in the spec.
        device: usize,
    },
    /// Start the migration; how it ends comes as [`super::Input::MigrationEnded`].
    Migrate,
    /// Go on with a post-copy that broke off; how that ends comes as [`super::Input::MigrationEnded`].
    ResumeMemory,
    /// Cancel the migration on the source, and give up a handle on it.
    Cancel,
    /// Let the processors run again: on the source after a migration that came to nothing, on the destination after a
    /// carry's stop.
    Unpause {
        /// Where.
        side: Side,
    },
    /// Have both halves of a carry stand ready; what became of it comes as [`super::Input::Carried`].
    Carry,
}

/// What the guest is asked; of a bond, with the number of its VF in the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GuestCall {
    /// `guest-sync-delimited`, `guest-info`: is a Tandem there that we understand?
    Hello,
    /// `tandem-configure` with the bond of the domain's XML.
    Configure,
    /// `tandem-prepare-unplug`.
    PrepareUnplug(usize),
    /// `tandem-announce`.
    Announce(usize),
    /// `tandem-resume`.
    Resume(usize),
    /// `tandem-status`, of all bonds.
    Status,
}

/// What retries are counted for: an action without its particulars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ActionKey {
    Observe(Side),
    Guest(GuestCall),
    Claim(Side),
    Unclaim(Side),
    Save(Side),
    Clear(Side),
    ClaimVf(usize),
    CheckVf(usize),
    ReleaseVfs,
    Detach(usize),
    Attach(Side, usize),
    Migrate,
    ResumeMemory,
    Cancel,
    Unpause(Side),
    Carry,
}

impl ActionKind {
    pub(super) fn key(&self) -> ActionKey {
        match self {
            Self::Observe { side } => ActionKey::Observe(*side),
            Self::Guest { call, .. } => ActionKey::Guest(*call),
            Self::Claim { side, .. } => ActionKey::Claim(*side),
            Self::Unclaim { side, .. } => ActionKey::Unclaim(*side),
            Self::Save { side, .. } => ActionKey::Save(*side),
            Self::Clear { side } => ActionKey::Clear(*side),
            Self::ClaimVf { device } => ActionKey::ClaimVf(*device),
            Self::CheckVf { device } => ActionKey::CheckVf(*device),
            Self::ReleaseVfs => ActionKey::ReleaseVfs,
            Self::Detach { device, .. } => ActionKey::Detach(*device),
            Self::Attach { side, device } => ActionKey::Attach(*side, *device),
            Self::Migrate => ActionKey::Migrate,
            Self::ResumeMemory => ActionKey::ResumeMemory,
            Self::Cancel => ActionKey::Cancel,
            Self::Unpause { side } => ActionKey::Unpause(*side),
            Self::Carry => ActionKey::Carry,
        }
    }

    /// The host that it is done on.
    pub fn side(&self) -> Side {
        match self {
            Self::Observe { side }
            | Self::Guest { side, .. }
            | Self::Claim { side, .. }
            | Self::Unclaim { side, .. }
            | Self::Save { side, .. }
            | Self::Clear { side }
            | Self::Attach { side, .. }
            | Self::Unpause { side } => *side,
            Self::ClaimVf { .. } | Self::CheckVf { .. } | Self::ReleaseVfs => Side::Destination,
            Self::Detach { .. }
            | Self::Migrate
            | Self::ResumeMemory
            | Self::Cancel
            | Self::Carry => Side::Source,
        }
    }

    /// Something is other afterwards, or may be.
    pub(super) fn changes(&self) -> bool {
        !matches!(
            self,
            Self::Observe { .. } | Self::Guest { .. } | Self::CheckVf { .. } | Self::ReleaseVfs
        )
    }

    /// The hosts whose facts may be others afterwards. A record is the writer's own: no look is needed to know it, and
    /// where looks take long, one after each sign of life would leave no time for anything else.
    pub(super) fn touches(&self) -> &'static [Side] {
        match self {
            Self::Observe { .. }
            | Self::Guest { .. }
            | Self::Save { .. }
            | Self::ClaimVf { .. }
            | Self::CheckVf { .. }
            | Self::ReleaseVfs
            | Self::Carry => &[],
            Self::Claim { side, .. }
            | Self::Unclaim { side, .. }
            | Self::Clear { side }
            | Self::Attach { side, .. }
            | Self::Unpause { side } => match side {
                Side::Source => &[Side::Source],
                Side::Destination => &[Side::Destination],
            },
            Self::Detach { .. } => &[Side::Source],
            Self::Migrate | Self::ResumeMemory | Self::Cancel => &[Side::Source, Side::Destination],
        }
    }
}
