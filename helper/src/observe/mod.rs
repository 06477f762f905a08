//! Turns what the kernel says into inputs of the machine.
//!
//! Notifications (rtnetlink multicast, udev, kernel uevents) are only hints that
//! something changed; what is handed in is always read anew, by one reader, one
//! reading after the other. So no older state can overtake a newer one, a storm
//! of notifications costs one reading, and a lost one is mended by the next.
//!
//! ```text
//! notifications --> dirty links, dirty addressing --> one reading at a time --> Input
//! Completion (act/) ---------^                                                  then Input::Done
//! ```

mod agenda;
pub mod clock;
mod found;
pub(crate) mod netlink;
pub mod once;
pub(crate) mod readable;
pub(crate) mod reader;
mod settle;
mod sources;
mod sysfs;
#[cfg(test)]
pub(crate) mod testing;
pub mod udev;
mod upper_devices;

use tandem_core::action::ActionId;
use tandem_core::input::{Input, Outcome, Source};
use tandem_core::types::Ifindex;

pub use sources::{Options, Sources};

/// One thing that a source has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// For the machine.
    Input(Input),
    /// A virtio-serial port came or went: the channel's device may have to be opened anew.
    AgentPortsChanged,
}

/// An action that has ended, and what has to be read before the machine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Which action.
    pub action: ActionId,
    /// How it ended.
    pub outcome: Outcome,
    /// What was learnt in passing, for the machine before `Input::Done`.
    pub learnt: Vec<Input>,
    /// What to read before `Input::Done`.
    pub touched: Touched,
}

/// What an action may have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// These links.
    pub links: Vec<Ifindex>,
    /// Addresses and routes of these links.
    pub addressing: Vec<Ifindex>,
    /// Everything of a source.
    pub source: Option<Source>,
}

/// A source that can't be opened or read any more. The text names it and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A socket could not be opened or set up.
    #[error("cannot open {what}: {error}; {remedy}")]
    Open {
        /// Which.
        what: &'static str,
        /// Why not.
        error: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A socket that worked does no longer.
    #[error("cannot read {what}: {error}; restart the service")]
    Read {
        /// Which.
        what: &'static str,
        /// Why not.
        error: std::io::Error,
    },
}

#[cfg(test)]
mod tests;
