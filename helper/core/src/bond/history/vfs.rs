//! What happened to each VF since it came.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::bond::history::traffic::{GoneVf, TrafficMemory};
use crate::bond::view::{BondView, Port};
use crate::model::action::PathProof;
use crate::model::output::Event;
use crate::model::policy::{BondPolicy, PathCheck};
use crate::model::status::Unproved;
use crate::model::types::{Ifindex, Mac, Time};
use crate::world::Warning;

/// Losses of carrier from which it is called flapping.
const FLAPPING_LOSSES: u32 = 3;

/// Pause before a VF that left the bond is taken in again, in ms.
const REJOIN_PAUSE_MS: u64 = 500;

/// VFs that are present, and the one that left last.
#[derive(Debug, Default)]
pub(crate) struct VfMemory {
    present: BTreeMap<Ifindex, VfNote>,
    last_gone: Option<GoneVf>,
    /// The one that carries the traffic, or did last.
    carried_last: Option<Ifindex>,
}

#[derive(Debug, Default)]
struct VfNote {
    mac: Option<Mac>,
    /// Since when the bond can send through it.
    usable_since: Option<Time>,
    losses: u32,
    warning: Option<Warning>,
    enslaved: bool,
    /// A frame of it passed through the network since it last became usable or gave the traffic away.
    path_checked: bool,
    /// Its path is dead, as far as is known.
    lost_path: Option<LostPath>,
    /// It may have the traffic all the same: what could be checked has passed, and a trial tells the rest.
    may_be_tried: bool,
    /// How often that was found in a row.
    path_losses: u32,
    /// Why it is not known whether frames pass, as of the last question.
    unproved: Option<Unproved>,
    /// When it last left the bond.
    left_at: Option<Time>,
}

/// A path that is dead although the carrier is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LostPath {
    /// Who answers through the standby only.
    pub(crate) neighbour: IpAddr,
    /// What is asked through the VF is answered, and the answers come to the standby.
    pub(crate) is_astray: bool,
    /// Until when frames were known to pass.
    pub(crate) alive_at: Time,
}

impl VfMemory {
    /// Learns from the world which VFs are there and how their carrier fares.
    pub(crate) fn update(
        &mut self,
        view: &BondView<'_>,
        traffic: &mut TrafficMemory,
        now: Time,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let carrier = view.vfs.iter().find(|vf| vf.active).map(Port::ifindex);
        self.carried_last = carrier.or(self.carried_last);
        for vf in &view.vfs {
            let note = self.present.entry(vf.ifindex()).or_default();
            note.mac = vf.mac;
            note.note_carrier(view.policy, vf, now);
            if note.enslaved && !vf.enslaved {
                note.left_at = Some(now);
            }
            note.enslaved = vf.enslaved;
            note.path_checked &= vf.enslaved && vf.usable && !vf.active;
            note.unproved = note.unproved.filter(|_| vf.active && vf.usable);
            if let Some(warning) = vf.warning
                && note.warning.is_none()
            {
                events.push(Event::RemovalExpected {
                    bond: view.policy.name.clone(),
                    vf: vf.link.name.clone(),
                    stage: warning.first,
                    at: warning.first_at,
                });
            }
            note.warning = vf.warning.copied();
            if let Some(warning) = vf.warning
                && let Some(stopped_at) = warning.stopping_at
            {
                let lead_us = stopped_at.since_us(warning.first_at);
                traffic.note_stop(vf.ifindex(), stopped_at, lead_us);
            }
        }
        self.drop_absent(view, traffic, now, &mut events);
        events
    }

    fn drop_absent(
        &mut self,
        view: &BondView<'_>,
        traffic: &mut TrafficMemory,
        now: Time,
        events: &mut Vec<Event>,
    ) {
        let listed = |ifindex| view.vfs.iter().any(|vf| vf.ifindex() == ifindex);
        let absent = (self.present).extract_if(.., |ifindex, _| !listed(*ifindex));
        // A VF that is still there merely no longer fits the policy.
        let gone = absent.filter(|(ifindex, _)| view.world.link(*ifindex).is_none());
        for (ifindex, note) in gone {
            let warned_by = note.warning.map(|warning| warning.first);
            let stopped_at = note.warning.and_then(|warning| warning.stopping_at);
            let ended_at = stopped_at.unwrap_or(now);
            let lead_us = (note.warning).map(|warning| ended_at.since_us(warning.first_at));
            let gone = GoneVf {
                ifindex,
                warned_by,
                lead_us,
                stopped_at,
            };
            traffic.note_gone(&gone, now);
            self.last_gone = Some(gone);
            events.push(Event::VfRemoved {
                bond: view.policy.name.clone(),
                mac: note.mac,
                lead_us,
                warned_by,
            });
        }
    }

    /// The VF that carries the traffic, or did last.
    pub(crate) fn carried_last(&self) -> Option<Ifindex> {
        self.carried_last
    }

    /// The VF that left last, if it is that one.
    pub(crate) fn gone(&self, ifindex: Ifindex) -> Option<&GoneVf> {
        self.last_gone
            .as_ref()
            .filter(|gone| gone.ifindex == ifindex)
    }

    /// The traffic left this VF for a reason that is not known: it is checked anew.
    pub(crate) fn doubt(&mut self, ifindex: Ifindex, now: Time) {
        if let Some(note) = self.present.get_mut(&ifindex) {
            note.usable_since = note.usable_since.map(|_| now);
            note.path_checked = false;
        }
    }

    /// The VF had its carrier for as long as its past demands.
    pub(crate) fn carrier_has_held(&self, policy: &BondPolicy, vf: &Port<'_>, now: Time) -> bool {
        let end = self.hold_until(policy, vf);
        end.is_some_and(|end| now >= end)
    }

    /// The VF's path is dead. It has to hold before it is tried again, each time longer.
    pub(crate) fn lose_path(
        &mut self,
        policy: &BondPolicy,
        ifindex: Ifindex,
        lost: LostPath,
        on_trial: bool,
        now: Time,
    ) {
        let Some(note) = self.present.get_mut(&ifindex) else {
            return;
        };
        let calm = note.calm_from(policy).is_some_and(|calm| now >= calm);
        note.path_losses = if calm && !on_trial {
            1
        } else {
            note.path_losses.saturating_add(1)
        };
        note.usable_since = note.usable_since.map(|_| now);
        note.lost_path = Some(lost);
        note.may_be_tried = false;
        note.path_checked = false;
    }

    /// Frames pass in both directions through the VF that carries the traffic.
    pub(crate) fn note_path_alive(&mut self, ifindex: Ifindex) {
        if let Some(note) = self.present.get_mut(&ifindex) {
            note.lost_path = None;
            note.unproved = None;
        }
    }

    /// Whether frames pass through the VF that carries the traffic could not be told.
    pub(crate) fn note_unproved(&mut self, ifindex: Ifindex, why: Unproved) {
        if let Some(note) = self.present.get_mut(&ifindex) {
            note.lost_path = None;
            note.unproved = Some(why);
        }
    }

    /// Why it is not known whether frames pass through the VF, as of the last question.
    pub(crate) fn unproved(&self, ifindex: Ifindex) -> Option<Unproved> {
        self.present.get(&ifindex)?.unproved
    }

    /// What is known of the VF's dead path, if it is one.
    pub(crate) fn lost_path(&self, ifindex: Ifindex) -> Option<&LostPath> {
        let note = self.present.get(&ifindex)?;
        note.lost_path.as_ref().filter(|_| !note.may_be_tried)
    }

    /// The same, also while a trial is to show whether it still is.
    pub(crate) fn last_lost_path(&self, ifindex: Ifindex) -> Option<&LostPath> {
        self.present.get(&ifindex)?.lost_path.as_ref()
    }

    /// What the VF has to show before it gets the traffic, where it has to show something.
    pub(crate) fn proof(&self, policy: &BondPolicy, vf: &Port<'_>) -> PathProof {
        match (self.last_lost_path(vf.ifindex()), policy.path_check) {
            (Some(_), _) => PathProof::Neighbours,
            (None, PathCheck::Standby) => PathProof::Standby,
            (None, PathCheck::Auto | PathCheck::None) => PathProof::NoFault,
        }
    }

    /// The VF's frames pass through the network.
    pub(crate) fn note_path_checked(&mut self, ifindex: Ifindex) {
        if let Some(note) = self.present.get_mut(&ifindex) {
            note.path_checked = true;
            note.may_be_tried = true;
        }
    }

    /// The VF's path through the network is known to work, or is not checked. By default it is only where the standby
    /// carries the traffic, so that it can be: a backup of another VF is taken on trust.
    pub(crate) fn path_is_checked(
        &self,
        policy: &BondPolicy,
        vf: &Port<'_>,
        standby_carries: bool,
    ) -> bool {
        let needless = match policy.path_check {
            PathCheck::None => true,
            PathCheck::Auto => !standby_carries,
            PathCheck::Standby => false,
        };
        let note = self.present.get(&vf.ifindex());
        note.is_some_and(|note| note.path_checked || needless && note.lost_path.is_none())
    }

    /// The VF may be taken in: one that has just left the bond is mostly about to
    /// vanish, and a try would only hold up its removal.
    pub(crate) fn may_join(&self, vf: &Port<'_>, now: Time) -> bool {
        self.rejoin_at(vf).is_none_or(|at| now >= at)
    }

    fn rejoin_at(&self, vf: &Port<'_>) -> Option<Time> {
        let note = self.present.get(&vf.ifindex())?;
        Some(note.left_at?.plus_ms(REJOIN_PAUSE_MS))
    }

    /// The VF's carrier comes and goes.
    pub(crate) fn is_flapping(&self, policy: &BondPolicy, vf: &Port<'_>, now: Time) -> bool {
        let Some(note) = self.present.get(&vf.ifindex()) else {
            return false;
        };
        let calm = note
            .calm_from(policy)
            .is_some_and(|calm_from| now >= calm_from);
        note.losses >= FLAPPING_LOSSES && !calm
    }

    /// Ends of the hold time, of the pause before it is taken in again, and of the time after which losses are forgotten.
    pub(crate) fn deadlines(&self, policy: &BondPolicy, vf: &Port<'_>) -> Vec<Time> {
        let note = self.present.get(&vf.ifindex());
        let calm = note
            .filter(|note| note.losses >= FLAPPING_LOSSES)
            .and_then(|note| note.calm_from(policy));
        let hold = self.hold_until(policy, vf);
        let rejoin = self.rejoin_at(vf);
        hold.into_iter().chain(calm).chain(rejoin).collect()
    }

    fn hold_until(&self, policy: &BondPolicy, vf: &Port<'_>) -> Option<Time> {
        let note = self.present.get(&vf.ifindex())?;
        let since = note.usable_since?;
        let losses = note.losses.saturating_add(note.path_losses);
        Some(since.plus_ms(hold_ms(policy, losses)))
    }
}

impl VfNote {
    fn note_carrier(&mut self, policy: &BondPolicy, vf: &Port<'_>, now: Time) {
        if vf.usable {
            self.usable_since.get_or_insert(now);
        } else if let Some(since) = self.usable_since.take()
            && vf.enslaved
        {
            let calm = now.since_ms(since) >= policy.timing.hold_max_ms;
            self.losses = if calm {
                1
            } else {
                self.losses.saturating_add(1)
            };
        }
    }

    /// When past losses are forgotten.
    fn calm_from(&self, policy: &BondPolicy) -> Option<Time> {
        let since = self.usable_since?;
        Some(since.plus_ms(policy.timing.hold_max_ms))
    }
}

/// Hold time after so many losses: doubled by each, up to the policy's bound.
fn hold_ms(policy: &BondPolicy, losses: u32) -> u64 {
    let factor = 1u64.checked_shl(losses).unwrap_or(u64::MAX);
    let grown = policy.timing.hold_ms.saturating_mul(factor);
    grown.min(policy.timing.hold_max_ms)
}
