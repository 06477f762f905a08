//! Sees whether frames pass from one port of a bond through the network to another.

use std::io;
use std::time::Duration;

use tandem_core::action::PathProof;
use tandem_core::link::Link;
use tandem_core::types::{IfName, Ifindex, Mac};

use super::announce::port_of;
use super::ask::{Arrived, Way, arrived, firsts, without};
use super::broadcast::{Sender, TRIES, lead_back, reaches, reaches_and_leads_back, reaches_as};
use super::error::ActError;
use super::link::present;
use super::neighbours::{Asked, to_ask};
use crate::netlink::request::Requests;
use crate::packet::frames::VlanTag;

/// How often neighbours are asked.
const ASK_TRIES: u32 = 2;
/// How long the network may lead to the VF for a question of the guest's own.
const ASK_TRY: Duration = Duration::from_millis(50);

/// Has `from` show that its frames pass, while `to` carries the traffic.
///
/// The frames carry the MAC of `from`, so with a shared MAC the network learns that
/// the bond is there. Where it is not proved, one out of `to` leads it back.
pub(super) fn check_path(
    requests: &mut Requests,
    bond: Ifindex,
    from: Ifindex,
    to: Ifindex,
    proof: PathProof,
) -> Result<(), ActError> {
    let sender = port_of(requests, bond, from)?;
    let receiver = port_of(requests, bond, to)?;
    let failed = |error: io::Error| ActError::Send {
        step: format!("use a packet socket of {} (needs CAP_NET_RAW)", sender.name),
        error,
    };
    let (Some(mac), Some(back)) = (sender.mac, receiver.mac) else {
        return Err(ActError::Refused {
            errno: libc::EINVAL,
            message: format!("{} or {} has no MAC", sender.name, receiver.name),
        });
    };
    let vf = End {
        port: from,
        name: &sender.name,
        mac,
    };
    let standby = End {
        port: to,
        name: &receiver.name,
        mac: back,
    };
    let mut look = || {
        let asked = to_ask(requests, bond)?;
        let bond_mac = present(requests, bond)?.mac;
        let path = Path {
            vf: &vf,
            standby: &standby,
            links: [&sender, &receiver],
            bond_mac,
            asked: &asked,
        };
        let shown = path.shown().map_err(failed)?;
        match (shown, proof) {
            (Shown::Broken(why), _) => Ok(Some(why)),
            (Shown::Nothing, PathProof::Neighbours) => {
                path.fault_where_nobody_answers().map_err(failed)
            }
            (Shown::Whole | Shown::AllThatShows | Shown::Nothing, _) => Ok(None),
        }
    };
    let fault = match proof {
        PathProof::Standby => {
            let reached = reaches(vf.sender(&[]), standby.port, TRIES).map_err(failed)?;
            (!reached).then(|| unheard(&vf, &standby))
        }
        PathProof::Neighbours => look()?,
        // What can't be looked at is no reason to leave the VF idle.
        PathProof::NoFault => look().unwrap_or_else(|error: ActError| {
            tracing::warn!(%error, vf = %vf.name, "its path is not checked");
            None
        }),
    };
    let Some(message) = fault else {
        return Ok(());
    };
    lead_back(standby.sender(&[]));
    Err(ActError::Refused {
        errno: libc::ETIMEDOUT,
        message,
    })
}

/// A port with its MAC, from which frames come.
struct End<'a> {
    port: Ifindex,
    name: &'a IfName,
    mac: Mac,
}

impl End<'_> {
    fn sender<'a>(&self, tags: &'a [VlanTag]) -> Sender<'a> {
        self.sender_as(self.mac, tags)
    }

    fn sender_as<'a>(&self, mac: Mac, tags: &'a [VlanTag]) -> Sender<'a> {
        let port = self.port;
        Sender { port, mac, tags }
    }
}

/// What is known of a VF's path.
enum Shown {
    /// Frames pass in both directions.
    Whole,
    /// They get out. Whether any would come back can't be told before the VF has the traffic.
    AllThatShows,
    /// They do not pass, and why.
    Broken(String),
    /// Nobody answers who could tell.
    Nothing,
}

/// A VF's path beside the standby's, and who may be asked about it.
#[derive(Clone, Copy)]
struct Path<'a> {
    vf: &'a End<'a>,
    standby: &'a End<'a>,
    /// The two of them.
    links: [&'a Link; 2],
    bond_mac: Option<Mac>,
    asked: &'a [Asked],
}

impl Path<'_> {
    /// Looks whether who answers through the standby answers through the VF too, on each network. As somebody else it is
    /// asked at no risk. The guest itself asks there only where a host lets the VF send with no other MAC: while the standby
    /// sends, the answer may go to that one.
    fn shown(&self) -> io::Result<Shown> {
        let Self {
            vf,
            standby,
            links: [vf_link, standby_link],
            bond_mac,
            asked,
        } = *self;
        let through_standby = Way::as_guest(standby.port, asked)?;
        let known = through_standby.answering(asked, ASK_TRIES)?;
        if known.is_empty() {
            return Ok(Shown::Nothing);
        }
        let stranger = Way::as_stranger(vf_link, bond_mac, &known)?;
        let answered = stranger.answering(&known, ASK_TRIES)?;
        let missed = without(&known, &answered);
        let Some(first) = missed.first() else {
            return Ok(Shown::Whole);
        };
        let broken = |why: &str| {
            let (ip, vlans) = (first.ip, first.in_vlans());
            let (vf, standby) = (vf.name, standby.name);
            Shown::Broken(format!(
                "{ip}{vlans} answers through {standby} and not through {vf}: {why}"
            ))
        };
        if !answered.is_empty() {
            return Ok(broken("others answer there, so this network is filtered"));
        }
        let mac = stranger.stranger.unwrap_or(vf.mac);
        // All that follows is of the first network on which nobody answers.
        let tags = &first.tags[..];
        let gets_in = reaches(standby.sender(tags), vf.port, ASK_TRIES)?;
        // A PF gives its VF no unicast for another MAC, so that a VF that has the bond's alone can't be asked as anybody else.
        let is_own = [vf_link.mac, vf_link.permanent_mac].contains(&Some(mac));
        let gets_its_own_only =
            gets_in && !is_own && !reaches_as(standby.sender(tags), vf.port, mac, ASK_TRIES)?;
        if gets_its_own_only {
            return Ok(Shown::AllThatShows);
        }
        if reaches(vf.sender_as(mac, tags), standby.port, ASK_TRIES)? {
            // A solicitation has an address, and a network may let nobody ask from one that it does not know.
            if gets_in && first.ip.is_ipv6() {
                let stranger = Way::as_stranger(standby_link, bond_mac, &missed)?;
                if !stranger.is_answered(&missed, ASK_TRIES)? {
                    return Ok(Shown::AllThatShows);
                }
            }
            return Ok(broken(if gets_in {
                "both ports hear each other, but the VF reaches nobody else"
            } else {
                "its frames get out, and none gets in"
            }));
        }
        if bond_mac != Some(vf.mac) {
            return Ok(broken("none of its frames gets out"));
        }
        // A host may let it send as the bond only.
        let led_back = || (missed.iter()).for_each(|one| lead_back(standby.sender(&one.tags)));
        let is_heard = reaches(vf.sender(tags), standby.port, ASK_TRIES)?;
        led_back();
        let through = Way::as_guest(vf.port, &missed)?;
        let mut gets_out = false;
        for _ in 0..ASK_TRIES {
            through.ask(&missed)?;
            let found = arrived(&through, &through_standby, &missed, ASK_TRY)?;
            led_back();
            match found {
                Some((Arrived::There, _)) => return Ok(Shown::Whole),
                Some((Arrived::Beside, _)) => gets_out = true,
                None => {}
            }
        }
        Ok(match (gets_out, is_heard) {
            (true, _) => Shown::AllThatShows,
            (false, true) => broken("it reaches the standby, but nobody else"),
            (false, false) => broken("none of its frames gets out"),
        })
    }

    /// Why the frames of a VF whose path was dead still do not pass, where nobody answers through the standby.
    fn fault_where_nobody_answers(&self) -> io::Result<Option<String>> {
        let Self { vf, standby, .. } = *self;
        let stranger = Way::as_stranger(self.links[0], self.bond_mac, self.asked)?;
        if stranger.is_answered(self.asked, ASK_TRIES)? {
            return Ok(None);
        }
        let firsts = firsts(self.asked);
        let mut networks: Vec<_> = firsts.iter().map(|one| &one.tags[..]).collect();
        if networks.is_empty() {
            networks.push(&[]);
        }
        for tags in networks {
            if reaches_and_leads_back(vf.sender(tags), standby.sender(tags), TRIES)? {
                return Ok(None);
            }
        }
        Ok(Some(unheard(vf, standby)))
    }
}

fn unheard(from: &End<'_>, to: &End<'_>) -> String {
    format!(
        "none of {TRIES} frames that {} sent reached {} through the network",
        from.name, to.name
    )
}
