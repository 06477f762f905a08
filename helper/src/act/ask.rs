//! Asks a bond's neighbours through the port that carries the traffic, and then through another.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tandem_core::action::Asking;
use tandem_core::link::Link;
use tandem_core::path::PathAnswer;
use tandem_core::types::{Ifindex, Mac};

use super::announce::port_of;
use super::broadcast::{Sender, reaches};
use super::error::ActError;
use super::link::present;
use super::listen::{await_frame, send_once};
use super::neighbours::{Asked, is_confirmed, to_ask};
use crate::netlink::request::Requests;
use crate::packet::frames::{VlanTag, arp_answer, solicited_answer};
use crate::packet::socket::{Arrivals, arrivals_socket, take_in};

/// How often each is asked; a network may lose a frame.
const TRIES: u32 = 3;
/// How often each is asked again through the first port once one has answered through the other: what was slow on both
/// is no fault of the path.
const LAST_TRIES: u32 = 2;
/// How long each try waits. All together stay below half the usual `health-ms`.
const TRY: Duration = Duration::from_millis(100);
/// The same on trial, in which frames may be lost: how often each is asked, and how long each try waits.
const TRIAL_TRIES: u32 = 2;
const TRIAL_TRY: Duration = Duration::from_millis(50);
/// How often it is asked on trial while answers come in through the other port, where they are delivered too: a network
/// may take its time to learn.
const ASTRAY_TRIES: u32 = 10;

/// Asks through `port` until one answers, then through `other`. The one that carries the traffic asks as the guest
/// does; the other as somebody else: no switch may learn there that it is where the bond is.
pub(super) fn ask_path(
    requests: &mut Requests,
    bond: Ifindex,
    [port, other]: [Ifindex; 2],
    how: Asking,
) -> Result<PathAnswer, ActError> {
    let first = port_of(requests, bond, port)?;
    let second = port_of(requests, bond, other)?;
    // What was acknowledged just now came through the port that carries the traffic.
    if is_active(&first) && is_confirmed(requests, bond)? {
        return Ok(PathAnswer::Answered);
    }
    let asked = to_ask(requests, bond)?;
    if asked.is_empty() {
        return Ok(PathAnswer::NobodyKnown);
    }
    let bond_mac = present(requests, bond)?.mac;
    let failed = |error| ActError::Send {
        step: format!("use a packet socket of {} (needs CAP_NET_RAW)", first.name),
        error,
    };
    let (asked, tries) = match how {
        Asking::Briefly => (&asked[..1], 1),
        Asking::Fully | Asking::OnTrial => (&asked[..], TRIES),
    };
    asked_on_both(asked, [&first, &second], bond_mac, tries).map_err(failed)
}

/// Asks through `port`, which got the traffic just now, as the guest does, and looks where the answers come in. If none
/// does, asks through `other` in the same way: both deliver, so that a network that is led there loses nothing.
pub(super) fn try_out(
    requests: &mut Requests,
    bond: Ifindex,
    port: Ifindex,
    other: Ifindex,
) -> Result<PathAnswer, ActError> {
    let first = port_of(requests, bond, port)?;
    port_of(requests, bond, other)?;
    let asked = to_ask(requests, bond)?;
    if asked.is_empty() {
        return Ok(PathAnswer::NobodyKnown);
    }
    let failed = |error| ActError::Send {
        step: format!("use a packet socket of {} (needs CAP_NET_RAW)", first.name),
        error,
    };
    let tried_out = || {
        tried(
            &asked,
            &Way::as_guest(port, &asked)?,
            &Way::as_guest(other, &asked)?,
        )
    };
    tried_out().map_err(failed)
}

fn tried(asked: &[Asked], through: &Way, beside: &Way) -> io::Result<PathAnswer> {
    let mut astray = None;
    for number in 0..ASTRAY_TRIES {
        if number >= TRIAL_TRIES && astray.is_none() {
            break;
        }
        through.ask(asked)?;
        match arrived(through, beside, asked, TRIAL_TRY)? {
            Some((Arrived::There, _)) => return Ok(PathAnswer::Answered),
            Some((Arrived::Beside, neighbour)) => astray = Some(neighbour),
            None => {}
        }
    }
    if let Some(neighbour) = astray {
        return Ok(PathAnswer::Astray { neighbour });
    }
    for _ in 0..TRIAL_TRIES {
        beside.ask(asked)?;
        let Some((arrived, neighbour)) = first_of(through, beside, asked, TRIAL_TRY)? else {
            continue;
        };
        let is_late = matches!(arrived, Arrived::There);
        if is_late || through.is_answered_within(asked, LAST_TRIES, TRIAL_TRY)? {
            return Ok(PathAnswer::Answered);
        }
        return Ok(PathAnswer::Lost { neighbour });
    }
    Ok(PathAnswer::Silent)
}

/// Where an answer came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrived {
    /// At the port through which it was asked for.
    There,
    /// At the other one.
    Beside,
}

/// Where the first answer comes in, and whose it is.
fn first_of(
    through: &Way,
    beside: &Way,
    asked: &[Asked],
    limit: Duration,
) -> io::Result<Option<(Arrived, IpAddr)>> {
    let found = await_frame(&both(through, beside), limit, |index, frame| {
        Some((index, answer_of(asked, frame)?))
    })?;
    Ok(found.map(|(index, from)| {
        let arrived = match index < through.sockets.len() {
            true => Arrived::There,
            false => Arrived::Beside,
        };
        (arrived, from)
    }))
}

/// The sockets of the first, then those of the second.
fn both<'a>(through: &'a Way, beside: &'a Way) -> Vec<&'a OwnedFd> {
    through.sockets.iter().chain(&beside.sockets).collect()
}

/// Where answers come in: one that comes in beside is no reason to wait no longer for one that does not.
pub(super) fn arrived(
    through: &Way,
    beside: &Way,
    asked: &[Asked],
    limit: Duration,
) -> io::Result<Option<(Arrived, IpAddr)>> {
    let first = first_of(through, beside, asked, limit)?;
    if let Some((Arrived::Beside, _)) = first {
        let there = through.answer(asked, limit)?;
        return Ok(there.map(|from| (Arrived::There, from)).or(first));
    }
    Ok(first)
}

fn is_active(port: &Link) -> bool {
    port.port.as_ref().is_some_and(|port| port.active)
}

fn asked_on_both(
    asked: &[Asked],
    [first, second]: [&Link; 2],
    bond_mac: Option<Mac>,
    tries: u32,
) -> io::Result<PathAnswer> {
    let through = Way::open(first, bond_mac, asked)?;
    if through.is_answered(asked, tries)? {
        return Ok(PathAnswer::Answered);
    }
    let beside = Way::open(second, bond_mac, asked)?;
    for _ in 0..tries {
        beside.ask(asked)?;
        let Some((arrived, neighbour)) = first_of(&through, &beside, asked, TRY)? else {
            continue;
        };
        if arrived == Arrived::There
            || through.is_answered(asked, LAST_TRIES)?
            || hears(first, second, tags_of(asked, neighbour))?
        {
            return Ok(PathAnswer::Answered);
        }
        return Ok(PathAnswer::Lost { neighbour });
    }
    Ok(PathAnswer::Silent)
}

/// A backup hears what the port that carries the traffic sends: where its host lets nobody send from there but the
/// bond's MAC, that is all there is to see of it.
fn hears(backup: &Link, active: &Link, tags: &[VlanTag]) -> io::Result<bool> {
    let Some(mac) = active.mac.filter(|_| is_active(active)) else {
        return Ok(false);
    };
    let port = active.ifindex;
    reaches(Sender { port, mac, tags }, backup.ifindex, TRIES)
}

/// The VLANs in which a neighbour is.
fn tags_of(asked: &[Asked], neighbour: IpAddr) -> &[VlanTag] {
    let found = asked.iter().find(|one| one.ip == neighbour);
    found.map_or(&[], |one| &one.tags)
}

/// A port through which neighbours are asked.
pub(super) struct Way {
    /// At which answers come in.
    sockets: Vec<OwnedFd>,
    /// As whom; as the guest itself where there is none.
    pub(super) stranger: Option<Mac>,
}

impl Way {
    fn open(port: &Link, bond_mac: Option<Mac>, asked: &[Asked]) -> io::Result<Self> {
        if is_active(port) {
            Self::as_guest(port.ifindex, asked)
        } else {
            Self::as_stranger(port, bond_mac, asked)
        }
    }

    /// Asks as the guest itself does.
    pub(super) fn as_guest(port: Ifindex, asked: &[Asked]) -> io::Result<Self> {
        let mut sockets = vec![arrivals_socket(port, Arrivals::ArpReplies)?];
        if asked.iter().any(|one| one.ip.is_ipv6()) {
            sockets.push(arrivals_socket(port, Arrivals::Advertisements)?);
        }
        let stranger = None;
        Ok(Self { sockets, stranger })
    }

    /// Asks as somebody else, which is of no risk: the network learns nothing of the bond.
    pub(super) fn as_stranger(
        backup: &Link,
        bond_mac: Option<Mac>,
        asked: &[Asked],
    ) -> io::Result<Self> {
        let mut way = Self::as_guest(backup.ifindex, asked)?;
        let mac = stranger(backup, bond_mac);
        if backup.mac != Some(mac) {
            take_in(way.any_socket(), backup.ifindex, mac.0)?;
        }
        way.stranger = Some(mac);
        Ok(way)
    }

    /// For what has nothing to do with answers.
    fn any_socket(&self) -> &OwnedFd {
        &self.sockets[0]
    }

    fn answer(&self, asked: &[Asked], limit: Duration) -> io::Result<Option<IpAddr>> {
        let sockets: Vec<_> = self.sockets.iter().collect();
        await_frame(&sockets, limit, |_, frame| answer_of(asked, frame))
    }

    /// Who answers, at least one on each network where one does.
    pub(super) fn answering(&self, asked: &[Asked], tries: u32) -> io::Result<Vec<Asked>> {
        let mut found: Vec<Asked> = Vec::new();
        for number in 0..tries {
            let mut now = without(asked, &found);
            if number == 0 {
                now = firsts(&now);
            }
            self.ask(&now)?;
            let end = Instant::now() + TRY;
            while !now.is_empty() {
                let left = end.saturating_duration_since(Instant::now());
                let Some(from) = self.answer(&now, left)? else {
                    break;
                };
                found.extend(now.iter().find(|one| one.ip == from).cloned());
                now = without(&now, &found);
            }
        }
        Ok(found)
    }

    pub(super) fn ask(&self, asked: &[Asked]) -> io::Result<()> {
        for one in asked {
            let question = self
                .stranger
                .map_or_else(|| one.question(), |mac| one.probe(mac));
            send_once(self.any_socket(), &question)?;
        }
        Ok(())
    }

    /// One of them answers. Mostly the first does, so it is asked alone at first.
    pub(super) fn is_answered(&self, asked: &[Asked], tries: u32) -> io::Result<bool> {
        self.is_answered_within(asked, tries, TRY)
    }

    fn is_answered_within(&self, asked: &[Asked], tries: u32, each: Duration) -> io::Result<bool> {
        for number in 0..tries {
            let now = if number == 0 { 1 } else { asked.len() };
            self.ask(&asked[..now.min(asked.len())])?;
            if self.answer(asked, each)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The first of each network.
pub(super) fn firsts(asked: &[Asked]) -> Vec<Asked> {
    let mut firsts: Vec<Asked> = Vec::new();
    for one in asked {
        if !firsts.iter().any(|first| first.is_beside(one)) {
            firsts.push(one.clone());
        }
    }
    firsts
}

/// Those on whose network none of `found` is.
pub(super) fn without(asked: &[Asked], found: &[Asked]) -> Vec<Asked> {
    let is_open = |one: &&Asked| !found.iter().any(|other| other.is_beside(one));
    asked.iter().filter(is_open).cloned().collect()
}

/// Who of those that were asked has sent this answer.
fn answer_of(asked: &[Asked], frame: &[u8]) -> Option<IpAddr> {
    let by_arp = arp_answer(frame).map(IpAddr::from);
    let from = by_arp.or_else(|| solicited_answer(frame).map(IpAddr::from))?;
    asked.iter().any(|one| one.ip == from).then_some(from)
}

/// Whom a backup asks as: itself, with the MAC that it has or was made with, where that is not the bond's, else somebody
/// who is not there.
fn stranger(port: &Link, bond: Option<Mac>) -> Mac {
    let mut own = port.mac.into_iter().chain(port.permanent_mac);
    if let Some(own) = own.find(|own| bond != Some(*own)) {
        return own;
    }
    let Mac([first, second, rest @ ..]) = port.mac.unwrap_or(Mac::ZERO);
    // Locally administered, of one station, and unlike what QEMU and libvirt give out.
    let first = (first ^ 0x40) & !0x01 | 0x02;
    let [third, fourth, fifth, sixth] = rest;
    let second = second ^ 0xa5;
    Mac([first, second, third, fourth, fifth, sixth])
}

#[cfg(test)]
mod tests {
    use tandem_core::link::LinkKind;

    use super::*;

    #[test]
    fn a_backup_never_asks_as_the_bond() {
        let mut port = Link::named(Ifindex(3), "eth0".parse().unwrap(), LinkKind::Physical);
        for mac in [
            [0x52, 0x54, 0, 1, 2, 3],
            [2, 0, 0, 0, 0, 1],
            [0, 1, 2, 3, 4, 5],
        ] {
            let mac = Mac(mac);
            port.mac = Some(mac);
            port.permanent_mac = Some(mac);
            let found = stranger(&port, Some(mac));
            assert!(found != mac, "{found}");
            assert_eq!(found.0[0] & 3, 2, "local, and of one station: {found}");
            let other = Mac([2, 0, 0, 0, 0, 9]);
            assert_eq!(stranger(&port, Some(other)), mac);
            port.permanent_mac = Some(other);
            assert_eq!(stranger(&port, Some(mac)), other);
        }
    }
}
