//! The end of an action, before the machine is told of it.

use tandem_core::action::ActionId;
use tandem_core::input::{Input, Outcome, Source};
use tandem_core::types::Ifindex;

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
