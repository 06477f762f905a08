//! How each kind of command begins and ends.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bond::commands::{Awaited, Open};
use crate::bond::memory::Memory;
use crate::bond::view::{BondView, Device, Port};
use crate::model::action::ActionKind;
use crate::model::input::{PreparedVf, Request};
use crate::model::output::{Answer, CommandError, CommandErrorCode, Reply};
use crate::model::policy::{BondPolicy, Policy};
use crate::model::status::Traffic;
use crate::model::types::{CommandId, Mac, Time};

/// `None` while the command goes on.
type Ending = Option<Result<Answer, CommandError>>;

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
        let awaited = match request {
            Request::Failover { .. } => {
                self.operator_hold = true;
                replies = self
                    .commands
                    .supersede(|awaited| *awaited == Awaited::Failback);
                Awaited::Failover
            }
            Request::Failback { .. } => {
                self.operator_hold = false;
                replies = self
                    .commands
                    .supersede(|awaited| *awaited == Awaited::Failover);
                Awaited::Failback
            }
            Request::PrepareUnplug { vf, .. } => Awaited::Prepare {
                vf: *vf,
                targets: Vec::new(),
            },
            Request::Resume { .. } => return self.resume(policy, id),
            Request::Announce { .. } => {
                self.traffic.announce(policy.timing.announcements, now);
                Awaited::Announce { sent: false }
            }
        };
        self.commands.0.push(Open {
            id,
            awaited,
            deadline: now.plus_ms(policy.timing.command_timeout_ms),
            done: Vec::new(),
        });
        replies
    }

    fn resume(&mut self, policy: &BondPolicy, id: CommandId) -> Vec<Reply> {
        let prepares = |awaited: &Awaited| matches!(awaited, Awaited::Prepare { .. });
        let mut replies = self.commands.supersede(prepares);
        let text = match core::mem::take(&mut self.prepared).len() {
            0 => "no VF was held",
            1 => "the VF may be used again",
            _ => "the VFs may be used again",
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

    fn resolve(&mut self, view: &BondView<'_>, open: &mut Open, now: Time) -> Ending {
        if let Device::Taken(_) | Device::OtherMode(_) = view.device {
            self.give_up(view, open);
            return Some(Err(no_bond(view)));
        }
        if view.world.links_known() {
            let ending = match &open.awaited {
                Awaited::Failover => self.resolve_failover(view, open),
                Awaited::Failback => self.resolve_failback(view, open),
                Awaited::Prepare { vf, targets } if targets.is_empty() => {
                    let vf = *vf;
                    self.begin_prepare(view, open, vf, now)
                }
                Awaited::Prepare { .. } => self.resolve_prepare(view, open),
                Awaited::Announce { sent } => resolve_announce(view, open, *sent),
            };
            if ending.is_some() {
                return ending;
            }
        }
        (now >= open.deadline).then(|| Err(self.give_up(view, open)))
    }

    fn resolve_failover(&mut self, view: &BondView<'_>, open: &Open) -> Ending {
        if view.traffic() == Traffic::Standby {
            return self.switched(view, open);
        }
        if standby_may_serve(view, self) {
            return None;
        }
        self.operator_hold = false;
        Some(Err(standby_unusable(view)))
    }

    /// The traffic is where it should be; the action that brought it there has to end first.
    fn switched(&self, view: &BondView<'_>, open: &Open) -> Ending {
        let busy = self.in_flight.as_ref();
        let switching = busy.is_some_and(|one| matches!(one.kind, ActionKind::SetPrimary { .. }));
        (!switching).then(|| Ok(answer(view, open, true, None)))
    }

    fn resolve_failback(&self, view: &BondView<'_>, open: &mut Open) -> Ending {
        if view.traffic() == Traffic::Vf && self.path.is_on_trial() {
            return None;
        }
        if view.traffic() == Traffic::Vf {
            return self.switched(view, open);
        }
        let usable = view.vfs.iter().any(|vf| vf.usable && !self.is_leaving(vf));
        if usable {
            return None;
        }
        let text = "the VF may have the traffic again; none is usable now";
        open.done.push(text.into());
        Some(Ok(answer(view, open, false, None)))
    }

    fn resolve_prepare(&mut self, view: &BondView<'_>, open: &mut Open) -> Ending {
        let Awaited::Prepare { vf, targets } = &open.awaited else {
            return None;
        };
        let (named, first) = (vf.is_some(), targets.first().copied());
        let vfs: Vec<_> = targets
            .iter()
            .filter_map(|target| view.port(target.ifindex))
            .collect();
        if vfs.is_empty() {
            open.done.push("the VF is gone".into());
            return Some(Ok(answer(view, open, true, first.as_ref())));
        }
        if vfs.iter().any(|vf| !self.is_prepared(vf)) {
            let message = "the hold on the VF was given up; ask for the status";
            return Some(Err(CommandError::new(
                CommandErrorCode::Superseded,
                message,
            )));
        }
        if vfs.iter().all(|vf| !vf.enslaved) {
            // What is under way may bring one in, and its end belongs into the answer.
            let busy = self.in_flight.as_ref().is_some_and(|busy| {
                let (ActionKind::Enslave { port, .. } | ActionKind::Release { port, .. }) =
                    busy.kind
                else {
                    return false;
                };
                vfs.iter().any(|vf| vf.ifindex() == port)
            });
            return (!busy).then(|| Ok(answer(view, open, true, first.as_ref())));
        }
        let another_vf = || {
            let mut others = view.vfs.iter();
            others.any(|vf| vf.usable && !self.is_leaving(vf))
        };
        if standby_may_serve(view, self) || named && another_vf() {
            return None;
        }
        let targets: Vec<_> = vfs.iter().map(|vf| vf.ifindex()).collect();
        self.prepared
            .retain(|held| !targets.contains(&held.ifindex));
        Some(Err(standby_unusable(view)))
    }

    fn begin_prepare(
        &mut self,
        view: &BondView<'_>,
        open: &mut Open,
        mac: Option<Mac>,
        now: Time,
    ) -> Ending {
        let mut vfs = self.ranked_vfs(view);
        if let Some(mac) = mac {
            vfs.retain(|vf| vf.mac == Some(mac));
            if vfs.len() > 1 {
                // One that is being removed and its successor.
                vfs.retain(|vf| vf.warning.is_none());
            }
            if vfs.len() > 1 {
                return Some(Err(not_one_vf(view, mac, &vfs)));
            }
        }
        if vfs.is_empty() {
            return Some(nothing_to_prepare(view, open, mac));
        }
        // Those that are held already come first, so that the answer to a repeated request is the same.
        vfs.sort_by_key(|vf| !self.is_prepared(vf));
        let mut targets = Vec::new();
        for vf in vfs.into_iter().take(Policy::MAX_VFS) {
            let mut held = self.prepared.iter();
            let held = held.find(|held| held.ifindex == vf.ifindex());
            targets.push(held.copied().unwrap_or(PreparedVf {
                ifindex: vf.ifindex(),
                mac: vf.mac,
                pci: vf.link.pci,
                since: now,
            }));
        }
        let new = targets.iter().filter(|target| !self.holds(target.ifindex));
        let new: Vec<_> = new.copied().collect();
        self.prepared.extend(new);
        open.awaited = Awaited::Prepare { vf: mac, targets };
        self.resolve_prepare(view, open)
    }

    /// The command's time is over. What it asked for is given up, so that the
    /// guest does not stay in a state nobody counts on.
    fn give_up(&mut self, view: &BondView<'_>, open: &Open) -> CommandError {
        match &open.awaited {
            Awaited::Failover => self.operator_hold = false,
            Awaited::Prepare { targets, .. } => self.prepared.retain(|held| {
                let mut targets = targets.iter();
                !targets.any(|target| target.ifindex == held.ifindex)
            }),
            Awaited::Failback | Awaited::Announce { .. } => {}
        }
        let name = &view.policy.name;
        let after_ms = view.policy.timing.command_timeout_ms;
        match self.attempts.obstacle() {
            Some(failure) => CommandError::new(
                CommandErrorCode::Refused,
                format!("{name}: not done after {after_ms} ms: {}", failure.message),
            ),
            None => CommandError::new(
                CommandErrorCode::TimedOut,
                format!("{name}: not done after {after_ms} ms; ask for the status"),
            ),
        }
    }
}

fn resolve_announce(view: &BondView<'_>, open: &Open, sent: bool) -> Ending {
    if sent {
        return Some(Ok(answer(view, open, true, None)));
    }
    (view.traffic() == Traffic::None).then(|| {
        let message = format!(
            "{}: no port carries traffic, so nothing can be announced",
            view.policy.name
        );
        Err(CommandError::new(CommandErrorCode::Refused, message))
    })
}

fn nothing_to_prepare(
    view: &BondView<'_>,
    open: &mut Open,
    mac: Option<Mac>,
) -> Result<Answer, CommandError> {
    let listed = |mac| view.policy.vfs.iter().any(|vf| vf.mac == Some(mac));
    match mac {
        Some(mac) if !view.vfs.is_empty() && !listed(mac) => {
            let present: Vec<String> = view
                .vfs
                .iter()
                .filter_map(|vf| vf.mac.map(|mac| format!("{mac}")))
                .collect();
            let message = format!(
                "{}: no VF has the permanent MAC {mac}; present: {}",
                view.policy.name,
                present.join(", ")
            );
            Err(CommandError::new(CommandErrorCode::UnknownVf, message))
        }
        _ => {
            open.done.push("the VF is not there".into());
            Ok(answer(view, open, true, None))
        }
    }
}

fn not_one_vf(view: &BondView<'_>, mac: Mac, vfs: &[&Port<'_>]) -> CommandError {
    let names: Vec<_> = vfs
        .iter()
        .map(|vf| match vf.link.pci {
            Some(pci) => format!("{} at {pci}", vf.link.name),
            None => format!("{}", vf.link.name),
        })
        .collect();
    let message = format!(
        "{}: {} have the permanent MAC {mac}, so it names none of them; name no VF, and all are released",
        view.policy.name,
        names.join(" and ")
    );
    CommandError::new(CommandErrorCode::UnknownVf, message)
}

/// The standby carries traffic on demand, or soon will.
fn standby_may_serve(view: &BondView<'_>, memory: &Memory) -> bool {
    let Some(standby) = &view.standby else {
        return false;
    };
    let joining = !standby.enslaved && !standby.is_occupied() && !memory.is_refused(view, standby);
    standby.usable || joining || memory.assembly_grace_until().is_some()
}

fn no_bond(view: &BondView<'_>) -> CommandError {
    let message = format!(
        "{}: another device has that name, so there is no bond; ask for the status",
        view.policy.name
    );
    CommandError::new(CommandErrorCode::Refused, message)
}

fn standby_unusable(view: &BondView<'_>) -> CommandError {
    let name = &view.policy.name;
    let message = match &view.standby {
        None => format!(
            "{name}: no standby is present, the guest would be cut off; attach a NIC that fits the standby"
        ),
        Some(port) => format!(
            "{name}: the standby {} is not usable, the guest would be cut off; give it a carrier",
            port.link.name
        ),
    };
    CommandError::new(CommandErrorCode::StandbyUnusable, message)
}

fn answer(view: &BondView<'_>, open: &Open, ready: bool, released: Option<&PreparedVf>) -> Answer {
    Answer {
        bond: view.policy.name.clone(),
        ready,
        traffic: view.traffic(),
        released: released.and_then(|vf| vf.mac),
        released_pci: released.and_then(|vf| vf.pci),
        done: open.done.clone(),
    }
}
