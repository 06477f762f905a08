//! Open commands: what was promised to whom, and until when.

mod resolve;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::input::{CommandId, PreparedVf, Request};
use crate::memory::Memory;
use crate::policy::BondPolicy;
use crate::status::{Answer, CommandError, CommandErrorCode};
use crate::types::{Mac, Time};
use crate::view::BondView;

/// Steps that an answer lists.
const MAX_STEPS: usize = 32;

/// A reply to one command.
pub(crate) type Reply = (CommandId, Result<Answer, CommandError>);

/// Open commands of one bond.
#[derive(Debug, Default)]
pub(crate) struct Commands(Vec<Open>);

#[derive(Debug)]
struct Open {
    id: CommandId,
    task: Task,
    deadline: Time,
    done: Vec<String>,
}

/// What an open command waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// The traffic on the standby.
    Failover,
    /// The traffic on the VF.
    Failback,
    /// The VF out of the bond; `target` once it is known which.
    Prepare {
        vf: Option<Mac>,
        target: Option<PreparedVf>,
    },
    /// An announcement sent.
    Announce { sent: bool },
}

impl Commands {
    /// Number of open commands.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// This command is open.
    pub(crate) fn contains(&self, id: CommandId) -> bool {
        self.0.iter().any(|open| open.id == id)
    }

    /// The traffic is asked back onto the VF.
    pub(crate) fn failing_back(&self) -> bool {
        self.0.iter().any(|open| open.task == Task::Failback)
    }

    /// An unplug is being prepared.
    pub(crate) fn preparing(&self) -> bool {
        self.0
            .iter()
            .any(|open| matches!(open.task, Task::Prepare { .. }))
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

    /// Notes that an announcement was sent.
    pub(crate) fn note_announced(&mut self) {
        for open in &mut self.0 {
            if let Task::Announce { sent } = &mut open.task {
                *sent = true;
            }
        }
    }

    /// Ends all commands because their bond left the policy.
    pub(crate) fn abandon(&mut self, bond: &BondPolicy) -> Vec<Reply> {
        let message = format!("bond {} was removed from the configuration", bond.name);
        let error = error(CommandErrorCode::UnknownBond, message);
        let all = self.0.drain(..);
        all.map(|open| (open.id, Err(error.clone()))).collect()
    }

    fn supersede(&mut self, obsolete: impl Fn(&Task) -> bool) -> Vec<Reply> {
        let message = "a later command took its place; ask for the status".into();
        let error = error(CommandErrorCode::Superseded, message);
        let ended = self.0.extract_if(.., |open| obsolete(&open.task));
        ended.map(|open| (open.id, Err(error.clone()))).collect()
    }
}

/// An error to answer with.
pub(crate) fn error(code: CommandErrorCode, message: String) -> CommandError {
    CommandError { code, message }
}

impl Memory {
    /// Takes a command on. Returns the commands that it ends.
    pub(crate) fn accept(
        &mut self,
        policy: &BondPolicy,
        id: CommandId,
        request: &Request,
        now: Time,
    ) -> Vec<Reply> {
        let mut replies = Vec::new();
        let task = match request {
            Request::Failover { .. } => {
                self.operator_hold = true;
                replies = self.commands.supersede(|task| *task == Task::Failback);
                Task::Failover
            }
            Request::Failback { .. } => {
                self.operator_hold = false;
                replies = self.commands.supersede(|task| *task == Task::Failover);
                Task::Failback
            }
            Request::PrepareUnplug { vf, .. } => Task::Prepare {
                vf: *vf,
                target: None,
            },
            Request::Resume { .. } => return self.resume(policy, id),
            Request::Announce { .. } => {
                self.traffic.announce(policy.timing.announcements, now);
                Task::Announce { sent: false }
            }
        };
        self.commands.0.push(Open {
            id,
            task,
            deadline: now.plus_ms(policy.timing.command_timeout_ms),
            done: Vec::new(),
        });
        replies
    }

    fn resume(&mut self, policy: &BondPolicy, id: CommandId) -> Vec<Reply> {
        let mut replies = self
            .commands
            .supersede(|task| matches!(task, Task::Prepare { .. }));
        let text = match self.prepared.take() {
            Some(_) => "the VF may be used again",
            None => "no VF was held",
        };
        let answer = Answer {
            bond: policy.name.clone(),
            ready: true,
            traffic: self.traffic.last_traffic(),
            released: None,
            released_pci: None,
            done: Vec::from([text.into()]),
        };
        replies.push((id, Ok(answer)));
        replies
    }

    /// Answers the commands that came to an end.
    pub(crate) fn resolve_commands(&mut self, view: &BondView<'_>, now: Time) -> Vec<Reply> {
        let mut replies = Vec::new();
        let mut open = core::mem::take(&mut self.commands.0);
        open.retain_mut(|one| {
            let ended = self.resolve(view, one, now);
            let waits = ended.is_none();
            replies.extend(ended.map(|result| (one.id, result)));
            waits
        });
        self.commands.0 = open;
        replies
    }
}
