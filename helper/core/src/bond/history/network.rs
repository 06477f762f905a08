//! What the bond's addresses and routes were, as far as it tells whether somebody takes care of them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::bond::view::BondView;
use crate::model::action::ActionKind;
use crate::model::link::{Addressing, Route};
use crate::model::policy::AddressingPolicy;
use crate::model::status::Traffic;
use crate::model::types::{Ifindex, Time};
use crate::world::World;

/// How long a bond that carries traffic may be without what it needs, in ms: DHCP, and a switch port that is
/// blocked at first (30 s with IEEE 802.1D's defaults), come to their end before.
const GRACE_MS: u64 = 60_000;
/// Leases of one bond that are followed.
const MAX_LEASES: usize = 256;
/// The part of a lease that is left when nobody renewed it: a client asks its server when half is over, and any
/// server when 7/8 are (T1 and T2, RFC 2131, 4.4.5).
const LEFT_UNRENEWED: u64 = 8;
/// So often addresses have to come back to a port until somebody is known to put them there. Once is a manager
/// that had not heard of the bond yet.
const RETURNS: usize = 3;
/// They count for so long, in ms.
const RETURNS_MS: u64 = 600_000;

/// The end of a lease is read in whole seconds, and late on a busy guest. What differs by more, in ms, is another
/// lease.
const SAME_END_MS: u64 = 5_000;

/// What is remembered of a bond's network.
#[derive(Debug, Default)]
pub(crate) struct NetworkMemory {
    /// The bond had an address.
    was_addressed: bool,
    /// It had an IPv4 address, or one of its NICs had one, which may be before there was a bond.
    had_ipv4: bool,
    /// Since when the bond carries traffic and has no address, or none of IPv4 where there was one or should be.
    addressless_since: Option<Time>,
    /// There was an IPv4 default route. An IPv6 one is a router's to give and to take back.
    had_route: bool,
    /// Since when there is none.
    routeless_since: Option<Time>,
    leases: BTreeMap<IpAddr, DhcpLease>,
    /// When addresses were taken off a port of the bond, the last times.
    returns: BTreeMap<Ifindex, Vec<Time>>,
}

#[derive(Debug)]
struct DhcpLease {
    ends_at: Time,
    /// How long it lasted when it was first seen, in ms.
    length_ms: u64,
}

impl DhcpLease {
    /// When it should have been renewed.
    fn due_at(&self) -> Time {
        let left_us = self.length_ms / LEFT_UNRENEWED * 1000;
        Time(self.ends_at.0.saturating_sub(left_us))
    }
}

impl NetworkMemory {
    /// Learns from what is on the bond now.
    pub(crate) fn learn(&mut self, view: &BondView<'_>, now: Time) {
        self.returns.retain(|port, _| view.port(*port).is_some());
        let mut on_nics = view.nics().filter_map(|nic| nic.addressing);
        self.had_ipv4 |= on_nics.any(Addressing::has_ipv4);
        let Some(bond) = view.bond().filter(|_| view.world.addressing_known()) else {
            // A new bond has its own time.
            let returns = core::mem::take(&mut self.returns);
            *self = Self {
                returns,
                had_ipv4: self.had_ipv4,
                ..Self::default()
            };
            return;
        };
        self.was_addressed |= bond.has_addresses();
        // Else what lies on it may have the addresses in its place.
        let is_plain = view.world.upper_devices(bond.ifindex()) == 0;
        let works = view.traffic() != Traffic::None
            && (bond.addressing.is_some() || view.world.addressing_is_complete(bond.ifindex()))
            && bond.link.controller.is_none()
            && (is_plain || self.was_addressed);
        let is_since = |since: Option<Time>, lacks: bool| lacks.then(|| since.unwrap_or(now));
        let has_ipv4 = bond.addressing.is_some_and(Addressing::has_ipv4);
        self.had_ipv4 |= has_ipv4;
        let wants_ipv4 = self.had_ipv4 || view.policy.expects_ipv4;
        let lacks = !bond.has_addresses() || (wants_ipv4 && !has_ipv4);
        self.addressless_since = is_since(self.addressless_since, works && lacks);
        let has_route = bond.addressing.is_some_and(Addressing::has_ipv4_default);
        let mut on_nics = view.nics().filter_map(|nic| nic.addressing);
        self.had_route |=
            has_route || is_configured(view) || on_nics.any(Addressing::has_ipv4_default);
        // Whoever lost the address lost the route with it, and is told so.
        let lacks = self.had_route && has_ipv4 && !has_route;
        let lacks = lacks && view.world.has_way_out() == Some(false);
        self.routeless_since = is_since(self.routeless_since, works && lacks);
        self.learn_leases(bond.addressing, now);
    }

    fn learn_leases(&mut self, addressing: Option<&Addressing>, now: Time) {
        let expiries = addressing.map_or(&[][..], |one| &one.expiries);
        self.leases
            .retain(|ip, _| expiries.iter().any(|expiry| expiry.ip == *ip));
        for expiry in expiries.iter().take(MAX_LEASES) {
            let left_ms = expiry.at.since_ms(now);
            let lease = self.leases.entry(expiry.ip).or_insert(DhcpLease {
                ends_at: expiry.at,
                length_ms: left_ms,
            });
            let moved_us = lease.ends_at.0.abs_diff(expiry.at.0);
            if moved_us > SAME_END_MS * 1000 {
                lease.length_ms = left_ms;
            }
            lease.ends_at = expiry.at;
        }
    }

    /// An action took effect; it may have taken addresses off a port.
    pub(crate) fn note_done(&mut self, world: &World, kind: &ActionKind, now: Time) {
        let (ActionKind::FlushAddressing { link: port }
        | ActionKind::MoveAddressing { from: port, .. }) = kind
        else {
            return;
        };
        if world.link(*port).is_none_or(|link| link.port.is_none()) {
            return;
        }
        let times = self.returns.entry(*port).or_default();
        times.push(now);
        let surplus = times.len().saturating_sub(RETURNS);
        times.drain(..surplus);
    }

    /// It had an IPv4 address, or one of its NICs had one.
    pub(crate) fn had_ipv4(&self) -> bool {
        self.had_ipv4
    }

    /// It carries traffic and has no address, for longer than it takes to get one.
    pub(crate) fn lacks_address(&self, now: Time) -> bool {
        is_over(self.addressless_since, now)
    }

    /// The IPv4 default route is gone, and was not replaced.
    pub(crate) fn lacks_route(&self, now: Time) -> bool {
        is_over(self.routeless_since, now)
    }

    /// Addresses whose lease should have been renewed by now.
    pub(crate) fn unrenewed(&self, now: Time) -> impl Iterator<Item = IpAddr> {
        let leases = self.leases.iter();
        leases
            .filter(move |(_, lease)| lease.due_at() <= now)
            .map(|(ip, _)| *ip)
    }

    /// Somebody puts addresses back on this port.
    pub(crate) fn is_contested(&self, port: Ifindex, now: Time) -> bool {
        self.contested_until(port).is_some_and(|end| now < end)
    }

    fn contested_until(&self, port: Ifindex) -> Option<Time> {
        let times = self.returns.get(&port)?;
        let first = times.first().filter(|_| times.len() == RETURNS)?;
        Some(first.plus_ms(RETURNS_MS))
    }

    /// When something here becomes a problem, or is none any more. Nothing is tried then, so the status does not
    /// show it.
    pub(crate) fn deadline(&self, now: Time) -> Option<Time> {
        let grace = |since: Time| since.plus_ms(GRACE_MS);
        let leases = self.leases.values().map(DhcpLease::due_at);
        let ports = self.returns.keys();
        let all = self.addressless_since.into_iter();
        let all = all.chain(self.routeless_since).map(grace);
        let all = all.chain(leases);
        all.chain(ports.filter_map(|port| self.contested_until(*port)))
            .filter(|at| *at > now)
            .min()
    }
}

fn is_over(since: Option<Time>, now: Time) -> bool {
    since.is_some_and(|since| since.plus_ms(GRACE_MS) <= now)
}

/// The configuration names an IPv4 default route.
fn is_configured(view: &BondView<'_>) -> bool {
    match &view.policy.addressing {
        AddressingPolicy::Static { routes, .. } => routes.iter().any(Route::is_ipv4_default),
        _ => false,
    }
}
