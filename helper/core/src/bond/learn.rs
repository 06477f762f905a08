//! What a bond's history learns from its facts.

use alloc::vec::Vec;

use crate::bond::choice::{Choice, guess_cause};
use crate::bond::history::traffic::{Carrier, PendingSwitchover, Seen, TrafficRecord};
use crate::bond::memory::{Memory, prepared_until};
use crate::bond::view::BondView;
use crate::model::input::KnownVf;
use crate::model::output::Event;
use crate::model::policy::{PathCheck, Policy};
use crate::model::removal::RemovalStage;
use crate::model::status::{Switchover, SwitchoverCause, Traffic};
use crate::model::types::Time;
use crate::world::identity::shown_permanent_mac;

impl Memory {
    /// Returns what subscribers want to know of it.
    pub(crate) fn learn(&mut self, view: &BondView<'_>, now: Time) -> Vec<Event> {
        self.expire_prepared(view, now);
        let mut events = self.vfs.update(view, &mut self.traffic, now);
        self.forget_found(view);
        self.note_rewritten(view);
        self.note_assembly(view, now);
        events.extend(self.note_traffic(view, now));
        self.network.learn(view, now);
        events
    }

    /// The hold ends when the VF is gone, so that its successor is taken, or when
    /// the host did not come back in time.
    pub(crate) fn expire_prepared(&mut self, view: &BondView<'_>, now: Time) {
        let known = view.world.links_known();
        let preparing = self.commands.preparing();
        self.prepared.retain(|held| {
            let present = view.vfs.iter().any(|vf| vf.ifindex() == held.ifindex);
            let late = prepared_until(view.policy, held).is_some_and(|end| now >= end);
            (present || !known) && (preparing || !late)
        });
    }

    /// Remembers VFs whose permanent MAC is no longer their own, also while the policy leaves them out: nothing else
    /// would tell what they are after a restart.
    fn note_rewritten(&mut self, view: &BondView<'_>) {
        if !view.world.links_known() {
            return;
        }
        self.rewritten.retain(|known| {
            let link = view.world.link(known.ifindex);
            link.is_some_and(|link| link.pci == known.pci && link.permanent_mac != Some(known.mac))
        });
        for vf in &view.vfs {
            let is_known = self
                .rewritten
                .iter()
                .any(|known| known.ifindex == vf.ifindex());
            let rewritten = vf
                .mac
                .filter(|mac| shown_permanent_mac(vf.link).is_some_and(|now| now != *mac));
            self.rewritten
                .extend(rewritten.filter(|_| !is_known).map(|mac| KnownVf {
                    ifindex: vf.ifindex(),
                    mac,
                    pci: vf.link.pci,
                }));
        }
        // One that the policy left out before its driver did so is nobody's VF now, and may be again.
        for known in view.world.rewritten() {
            let room = self.rewritten.len() < Policy::MAX_VFS;
            let is_new = |one: &KnownVf| one.ifindex != known.ifindex;
            if room && self.rewritten.iter().all(is_new) {
                self.rewritten.push(known);
            }
        }
    }

    fn note_assembly(&mut self, view: &BondView<'_>, now: Time) {
        match view.bond() {
            Some(bond) if bond.facts.active.is_none() && bond.ports > 0 => {
                if self.traffic.never_carried() {
                    self.assembled_at.get_or_insert(now);
                }
            }
            _ => self.assembled_at = None,
        }
    }

    /// Compares who carries the traffic with who did.
    fn note_traffic(&mut self, view: &BondView<'_>, now: Time) -> Option<Event> {
        let Some(bond) = view.bond() else {
            if view.world.links_known() {
                self.traffic.bond_is_absent();
            }
            return None;
        };
        let active = bond.facts.active;
        let before = self.traffic.seen;
        self.traffic.seen = Seen::Bond(bond.ifindex(), active);
        let Some(port) = active else {
            // There is nothing to announce through; the next active port starts anew.
            self.traffic.announcements_left = 0;
            return None;
        };
        if before == self.traffic.seen {
            return None;
        }
        let traffic = view.traffic_of(active);
        let mut moved = None;
        // What was there when the service started is no news to the network.
        if before != Seen::Never {
            moved = self.note_move(view, Carrier { port, traffic }, now);
            let timing = &view.policy.timing;
            self.traffic.announce(timing.announcements, now);
            self.traffic.settle_until = Some(now.plus_ms(timing.settle_ms));
        }
        self.traffic.last = Some(Carrier { port, traffic });
        moved
    }

    fn note_move(&mut self, view: &BondView<'_>, to: Carrier, now: Time) -> Option<Event> {
        let from = self.traffic.last.filter(|last| last.port != to.port)?;
        let decided = self
            .traffic
            .switchover
            .filter(|switchover| switchover.target == to.port);
        let cause = decided.map_or_else(
            || guess_cause(view, self, from.port, to.traffic),
            |switchover| switchover.cause,
        );
        // What was seen of a path before says little of one that was dead.
        let was_lost = self.vfs.last_lost_path(to.port).is_some();
        let is_tried_out = was_lost || view.policy.path_check == PathCheck::Auto;
        if is_tried_out && to.traffic == Traffic::Vf {
            self.path.try_out(to.port);
        }
        if decided.is_none() {
            // The kernel or somebody else knows something that was not told.
            self.vfs.doubt(from.port, now);
        }
        let gone = self.vfs.gone(from.port);
        let warning = view.port(from.port).and_then(|port| port.warning);
        let reaction = self.traffic.take_reaction(now);
        let reaction = reaction.filter(|_| from.traffic == Traffic::Vf);
        self.traffic.count += 1;
        let failed_at = self.traffic.failed_at(from.port, now);
        let lost_path = self.vfs.lost_path(from.port);
        let path_lost_at = lost_path.map(|lost| lost.alive_at);
        let switchover = Switchover {
            number: self.traffic.count,
            at: now,
            from: from.traffic,
            to: to.traffic,
            cause,
            took_us: decided
                .filter(|switchover| switchover.requested)
                .map(|switchover| now.since_us(switchover.decided_at)),
            lead_us: gone.and_then(|gone| gone.lead_us),
            warned_by: gone
                .and_then(|gone| gone.warned_by)
                .or(warning.map(|warning| warning.first)),
            reaction_us: reaction.and_then(|reaction| reaction.requested_us),
            gap: None,
        };
        let fast_path = view
            .bond()
            .and_then(|bond| view.world.fast_path(bond.ifindex()));
        self.traffic.measuring =
            fast_path.is_some_and(|fast_path| fast_path.ports.contains(&to.port));
        let armed_vf = fast_path.and_then(|fast_path| fast_path.armed_vf.as_ref());
        let redirected = armed_vf.is_some_and(|one| one.vf == from.port && one.standby == to.port);
        self.traffic.push(TrafficRecord {
            from: from.port,
            to: to.port,
            stopped_at: gone
                .and_then(|gone| gone.stopped_at)
                .or(warning.and_then(|warning| warning.stopping_at))
                .or(failed_at.filter(|_| cause == SwitchoverCause::Carrier))
                .or(path_lost_at.filter(|_| cause == SwitchoverCause::PathLost)),
            redirected_at: warning
                .filter(|warning| redirected && warning.first > RemovalStage::ButtonCancelled)
                .map(|warning| warning.first_at),
            switchover: switchover.clone(),
        });
        Some(Event::SwitchedOver {
            bond: view.policy.name.clone(),
            switchover,
        })
    }

    /// Learns what was chosen.
    pub(crate) fn note_choice(&mut self, view: &BondView<'_>, choice: &Choice<'_>, now: Time) {
        let differ = view.bond().is_some_and(|bond| {
            let vfs = choice.vfs.iter().copied();
            let mut ports = view.standby.iter().chain(vfs);
            ports.any(|port| port.enslaved && port.link.mtu != bond.link.mtu)
        });
        self.mtus_differ_since = self.mtus_differ_since.or(Some(now)).filter(|_| differ);
        let to_move = choice.goal.filter(|goal| view.active() != Some(goal.port));
        self.traffic.switchover = to_move.map(|goal| {
            let before = self
                .traffic
                .switchover
                .filter(|one| one.target == goal.port);
            before.unwrap_or(PendingSwitchover {
                target: goal.port,
                cause: goal.cause,
                decided_at: now,
                requested: false,
            })
        });
    }
}
