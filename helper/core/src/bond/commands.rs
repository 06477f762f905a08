//! Open commands: what was promised to whom, and until when.

use alloc::string::String;
use alloc::vec::Vec;

use crate::model::input::PreparedVf;
use crate::model::output::{CommandError, CommandErrorCode, Reply};
use crate::model::types::{CommandId, Mac, Time};

/// Steps that an answer lists.
const MAX_STEPS: usize = 32;

/// Open commands of one bond.
#[derive(Debug, Default)]
pub(crate) struct Commands(pub(crate) Vec<Open>);

#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) id: CommandId,
    pub(crate) awaited: Awaited,
    pub(crate) deadline: Time,
    /// Steps done so far, in words.
    pub(crate) done: Vec<String>,
}

/// What an open command waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// The traffic on the standby.
    Failover,
    /// The traffic on the VF.
    Failback,
    /// VFs out of the bond; `targets` once it is known which. Without `vf` all of them are.
    Prepare {
        vf: Option<Mac>,
        targets: Vec<PreparedVf>,
    },
    /// An announcement sent.
    Announce { sent: bool },
}

impl Commands {
    pub(crate) fn contains(&self, id: CommandId) -> bool {
        self.0.iter().any(|open| open.id == id)
    }

    /// The traffic is asked back onto the VF.
    pub(crate) fn failing_back(&self) -> bool {
        self.0.iter().any(|open| open.awaited == Awaited::Failback)
    }

    /// An unplug is being prepared.
    pub(crate) fn preparing(&self) -> bool {
        self.0
            .iter()
            .any(|open| matches!(open.awaited, Awaited::Prepare { .. }))
    }

    /// When the first of them has to be answered at the latest.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.0.iter().map(|open| open.deadline).min()
    }

    /// Notes a step that was done while commands were open.
    pub(crate) fn note_step(&mut self, text: &str) {
        for open in self.0.iter_mut().filter(|open| open.done.len() < MAX_STEPS) {
            open.done.push(text.into());
        }
    }

    pub(crate) fn note_announced(&mut self) {
        for open in &mut self.0 {
            if let Awaited::Announce { sent } = &mut open.awaited {
                *sent = true;
            }
        }
    }

    /// Ends the commands that wait for such a thing.
    pub(crate) fn end(
        &mut self,
        which: impl Fn(&Awaited) -> bool,
        code: CommandErrorCode,
        message: String,
    ) -> Vec<Reply> {
        let error = CommandError::new(code, message);
        let ended = self.0.extract_if(.., |open| which(&open.awaited));
        ended.map(|open| (open.id, Err(error.clone()))).collect()
    }

    pub(crate) fn supersede(&mut self, obsolete: impl Fn(&Awaited) -> bool) -> Vec<Reply> {
        let message = "a later command took its place; ask for the status";
        self.end(obsolete, CommandErrorCode::Superseded, message.into())
    }
}
