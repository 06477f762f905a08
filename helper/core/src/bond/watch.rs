//! Which path is watched, and what is learnt of the VF from what came of asking.

use alloc::format;
use alloc::vec::Vec;

use crate::bond::commands::Awaited;
use crate::bond::history::path::Ended;
use crate::bond::history::vfs::LostPath;
use crate::bond::memory::Memory;
use crate::bond::view::BondView;
use crate::model::action::ActionKind;
use crate::model::output::{CommandErrorCode, Reply};
use crate::model::path::PathAnswer;
use crate::model::policy::BondPolicy;
use crate::model::status::Unproved;
use crate::model::types::{ActionId, Ifindex, Time};

impl Memory {
    /// Has the path of the VF that carries the traffic looked after. Returns when to go on.
    pub(crate) fn watch_path(
        &mut self,
        view: &BondView<'_>,
        now: Time,
        issue: impl FnOnce(ActionKind) -> ActionId,
    ) -> Option<Time> {
        let to_watch = self.to_watch(view, now);
        self.path.watch(to_watch, view.policy.timing.health_ms, now);
        let bond = view.bond()?.ifindex();
        self.path.start(bond, now, issue);
        self.path.deadline().filter(|at| *at > now)
    }

    /// The VF that carries the traffic with all calm, or on trial, and the standby that would take over.
    fn to_watch(&self, view: &BondView<'_>, now: Time) -> Option<(Ifindex, Ifindex)> {
        let is_on = view.policy.timing.health_ms > 0 && self.traffic.is_calm(now);
        let is_due = view.world.links_known() && (is_on || self.path.is_on_trial());
        let vf = view.vfs.iter().find(|vf| vf.active && vf.usable)?;
        let standby = view.standby.as_ref().filter(|port| port.usable)?;
        (is_due && !self.is_leaving(vf)).then_some((vf.ifindex(), standby.ifindex()))
    }

    /// Takes note that a look or a question has ended, if it is one of this bond's.
    pub(crate) fn path_ended(&mut self, id: ActionId, now: Time) -> bool {
        let ended = self.path.ended(id, now);
        let is_ours = ended.is_some();
        self.conclude(ended);
        is_ours
    }

    /// Gives up a look or a question that takes too long.
    pub(crate) fn expire_path(&mut self, now: Time) {
        let ended = self.path.expire(now);
        self.conclude(ended);
    }

    /// A trial that brought nothing leaves the VF with the traffic: what was known of its path before no longer counts.
    fn conclude(&mut self, ended: Option<Ended>) {
        if let Some(vf) = ended.and_then(|ended| ended.untold) {
            self.vfs.note_unproved(vf, Unproved::NobodyAnswers);
        }
    }

    /// Takes what came of asking neighbours through a port. Returns the commands that it ends.
    pub(crate) fn note_path_answer(
        &mut self,
        policy: &BondPolicy,
        port: Ifindex,
        answer: PathAnswer,
        now: Time,
    ) -> Vec<Reply> {
        let health_ms = policy.timing.health_ms;
        let Some(alive_at) = self.path.note_answer(port, answer, health_ms, now) else {
            return Vec::new();
        };
        match answer {
            PathAnswer::Answered => self.vfs.note_path_alive(port),
            PathAnswer::Lost { neighbour } | PathAnswer::Astray { neighbour } => {
                let lost = LostPath {
                    neighbour,
                    is_astray: matches!(answer, PathAnswer::Astray { .. }),
                    alive_at,
                };
                let on_trial = self.path.is_on_trial();
                self.vfs.lose_path(policy, port, lost, on_trial, now);
                if on_trial {
                    // Else it would be tried again at once, as long as somebody waits for it.
                    let message = format!(
                        "{}: the VF had the traffic for a moment, and its path did not pass; ask for the status",
                        policy.name
                    );
                    let is_failback = |awaited: &Awaited| *awaited == Awaited::Failback;
                    let code = CommandErrorCode::Refused;
                    return self.commands.end(is_failback, code, message);
                }
            }
            PathAnswer::Silent => self.vfs.note_unproved(port, Unproved::NobodyAnswers),
            PathAnswer::NobodyKnown => self.vfs.note_unproved(port, Unproved::NobodyKnown),
        }
        Vec::new()
    }
}
