//! The fast-path programs of a bond: attached and armed, and their counters read.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tandem_core::Input;
use tandem_core::action::{ActionId, ActionKind, GoOn};
use tandem_core::fast_path::{ArmedVf, Blocked, FastPath, Frames, PortFrames};
use tandem_core::path::{CountedBy, PortTraffic};
use tandem_core::types::{Ifindex, Mac, Time};
use tandem_ebpf::FrameCounts;

use super::announce::frames_of;
use super::error::ActError;
use crate::ebpf::fast_path::{self, Applied, FastPaths};
use crate::netlink::request::Requests;
use crate::netlink::{link, traffic_control};
use crate::observe::clock;
use crate::packet::frames::{gratuitous_arp, neighbour_advertisement, reverse_arp};

/// Has the programs let go of a bond, whether it is still there or not. Can't fail, but may have been
/// overtaken, and then says nothing.
pub(super) fn let_go(
    fast_paths: Option<&FastPaths>,
    bond: Ifindex,
    order: ActionId,
) -> Option<Input> {
    let done = fast_paths.is_none_or(|fast_paths| fast_paths.forget(bond.0, order.0));
    let fast_path = FastPath::default();
    done.then_some(Input::FastPathSet { bond, fast_path })
}

/// Has the programs do exactly this for a bond; gives what they do afterwards.
pub(super) fn set(
    requests: &mut Requests,
    fast_paths: Option<&FastPaths>,
    bond: Ifindex,
    fast_path: &FastPath,
    order: ActionId,
    inputs: &mut Vec<Input>,
) -> Result<(), ActError> {
    let armed_vf = fast_path.armed_vf.as_ref();
    let announcements = armed_vf.map(|armed_vf| all_announcements(bond, armed_vf));
    let Applied {
        watched,
        armed,
        blocked,
        missing,
    } = loaded(fast_paths)?
        .apply(bond, fast_path, &announcements.unwrap_or_default(), order.0)
        .map_err(|error| refused(error.to_string()))?;
    let mut ports: Vec<_> = watched.into_iter().map(Ifindex).collect();
    ports.sort_unstable();
    if armed {
        inputs.push(tested(requests, bond, blocked));
    }
    inputs.push(Input::FastPathSet {
        bond,
        fast_path: FastPath {
            ports,
            period: fast_path.period,
            mac: fast_path.mac,
            armed_vf: fast_path.armed_vf.clone().filter(|_| armed),
        },
    });
    match missing.first() {
        Some(one) => Err(refused(format!(
            "the program {} can't be attached to link {}: {}",
            one.program, one.ifindex, one.reason
        ))),
        None => Ok(()),
    }
}

/// Reads what was counted on these ports.
pub(super) fn read(
    fast_paths: Option<&FastPaths>,
    bond: Ifindex,
    ports: &[Ifindex],
    inputs: &mut Vec<Input>,
) -> Result<(), ActError> {
    let fast_paths = loaded(fast_paths)?;
    let count = |port: &Ifindex| {
        let counted = fast_paths.frames(port.0)?;
        Some(PortFrames {
            port: *port,
            received: frames(&counted.rx),
            sent: frames(&counted.tx),
            late: frames(&counted.late),
        })
    };
    inputs.push(Input::FramesCounted {
        bond,
        ports: ports.iter().filter_map(count).collect(),
    });
    Ok(())
}

/// Tests the fast path that is armed for a bond; says what came of it, if one is. Always: what was said of the last test may
/// have been lost with an action that ran into its time limit.
pub(super) fn test(
    requests: &mut Requests,
    fast_paths: Option<&FastPaths>,
    bond: Ifindex,
    anew: bool,
) -> Option<Input> {
    let blocked = fast_paths?.test(bond.0, anew)?;
    Some(tested(requests, bond, blocked))
}

/// What came of a test, and whether filters on the bond would not see what is redirected.
fn tested(requests: &mut Requests, bond: Ifindex, blocked: Option<Blocked>) -> Input {
    let mut has_filters = || traffic_control::has_egress_filters(requests, bond);
    let passed_over = fast_path::come_before_filters()
        && has_filters().unwrap_or_else(|error| {
            tracing::warn!(%bond, %error, "it is not known whether the bond has filters");
            false
        });
    Input::FastPathTested {
        bond,
        blocked,
        passed_over,
    }
}

/// Looks at what a port carries by the programs' count. Each takes no lock of the kernel's and no time.
pub(super) struct Looks {
    fast_paths: FastPaths,
    port: Ifindex,
    go_on: Option<GoOn>,
    /// What the first one found.
    carried: Carried,
}

/// Frames to one station that a port carried.
#[derive(Clone, Copy)]
struct Carried {
    sent: u64,
    received: u64,
}

impl Carried {
    fn by(fast_paths: &FastPaths, port: Ifindex) -> Option<Self> {
        let counted = fast_paths.frames(port.0)?;
        Some(Self {
            sent: counted.tx.frames,
            received: counted.rx.frames,
        })
    }

    /// Some went out since then, and some came in. Counters that began anew say nothing.
    fn has_passed_since(self, before: Self) -> bool {
        self.sent > before.sent && self.received > before.received
    }
}

/// Begins to look at a port, where the programs count on it, and the bond's fast path fares as before.
pub(super) fn look(
    fast_paths: &FastPaths,
    bond: Ifindex,
    port: Ifindex,
    go_on: Option<GoOn>,
) -> Option<Looks> {
    let as_before = fast_paths.fares_as_before(bond.0);
    let carried = as_before.then(|| Carried::by(fast_paths, port))??;
    Some(Looks {
        fast_paths: fast_paths.clone(),
        port,
        go_on,
        carried,
    })
}

impl Looks {
    /// Goes on as it was told; what was found at last.
    pub(super) async fn end(mut self) -> PortTraffic {
        let mut passed_at = None;
        if let Some(GoOn { each_ms, for_ms }) = self.go_on {
            let end = clock::now().plus_ms(for_ms);
            // No shorter than what the timer keeps.
            let each = Duration::from_millis(each_ms.max(1));
            while clock::now() < end {
                tokio::time::sleep(each).await;
                let Some(now) = Carried::by(&self.fast_paths, self.port) else {
                    break;
                };
                let passes = now.has_passed_since(self.carried);
                self.carried = now;
                if !passes {
                    break;
                }
                passed_at = Some(clock::now());
            }
        }
        PortTraffic {
            port: self.port,
            sent: self.carried.sent,
            counted_by: CountedBy::Programs,
            passed_at,
        }
    }
}

/// Reads how many frames a port has sent, by its driver's count where the programs don't.
pub(super) fn read_traffic(
    requests: &mut Requests,
    fast_paths: Option<&FastPaths>,
    port: Ifindex,
    inputs: &mut Vec<Input>,
) -> Result<(), ActError> {
    if let Some(carried) = fast_paths.and_then(|programs| Carried::by(programs, port)) {
        inputs.push(Input::PortTraffic(PortTraffic {
            port,
            sent: carried.sent,
            counted_by: CountedBy::Programs,
            passed_at: None,
        }));
        return Ok(());
    }
    let frames = link::get_sent(requests, port);
    let frames = frames.map_err(ActError::at(format!("read the frames of link {port}")))?;
    inputs.push(Input::PortTraffic(PortTraffic {
        port,
        sent: frames.ok_or(ActError::Gone)?,
        counted_by: CountedBy::Driver,
        passed_at: None,
    }));
    Ok(())
}

/// Has duplicates kept away before frames of all of a bond's ports are delivered, and for as
/// long as they may be.
pub(super) fn expect_both(fast_paths: Option<&FastPaths>, kind: &ActionKind) {
    let bond = match *kind {
        ActionKind::CheckPath { bond, .. } => bond,
        ActionKind::SetBondOptions { bond, options } if options.all_ports_active == Some(true) => {
            bond
        }
        _ => return,
    };
    let Some(Err(error)) = fast_paths.map(|fast_paths| fast_paths.prolong(bond.0)) else {
        return;
    };
    tracing::warn!(%error, "broadcasts may reach the guest twice");
}

fn loaded(fast_paths: Option<&FastPaths>) -> Result<&FastPaths, ActError> {
    fast_paths.ok_or_else(|| refused("the fast-path programs are not loaded".to_string()))
}

fn refused(message: String) -> ActError {
    ActError::Refused { errno: 0, message }
}

/// What is to be announced when the VF leaves.
fn all_announcements(bond: Ifindex, armed_vf: &ArmedVf) -> Vec<Vec<u8>> {
    let mut announcements = announcements(armed_vf.mac, &armed_vf.addresses);
    // The bond's upper devices the core does not know.
    match Requests::open().map_err(ActError::at("ask for the links")) {
        Ok(mut requests) => match frames_of(&mut requests, bond) {
            Ok(of_uppers) => add_new(&mut announcements, of_uppers),
            Err(error) => {
                tracing::warn!(%error, "the fast path will not announce the bond's upper devices");
            }
        },
        Err(error) => {
            tracing::warn!(%error, "the fast path will not announce the bond's upper devices");
        }
    }
    announcements
}

/// Adds the frames that are not there yet.
fn add_new(frames: &mut Vec<Vec<u8>>, more: Vec<Vec<u8>>) {
    let there: BTreeSet<Vec<u8>> = frames.iter().cloned().collect();
    frames.extend(more.into_iter().filter(|frame| !there.contains(frame)));
}

/// Frames that make the network send to the standby: whatever comes first moves the
/// bond's MAC, the others are for stations that resolve an address just then.
fn announcements(mac: Mac, addresses: &[IpAddr]) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = addresses
        .iter()
        .flat_map(|address| match *address {
            IpAddr::V4(ip) => gratuitous_arp(mac, &[], ip).to_vec(),
            IpAddr::V6(ip) => vec![neighbour_advertisement(mac, &[], ip, false)],
        })
        .collect();
    if frames.is_empty() {
        frames.push(reverse_arp(mac, &[]));
    }
    frames
}

fn frames(traffic: &FrameCounts) -> Frames {
    let time = |boot_ns: u64| (boot_ns != 0).then_some(Time(boot_ns / 1000));
    Frames {
        count: traffic.frames,
        first: time(traffic.first_boot_ns),
        last: time(traffic.last_boot_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

    #[test]
    fn every_address_is_announced_and_none_still_moves_the_mac() {
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap());
        let frames = announcements(MAC, &addresses);
        assert_eq!(frames.len(), 3, "ARP has a request and a reply");
        assert!(frames.iter().all(|frame| frame[6..12] == MAC.0));
        assert_eq!(announcements(MAC, &[]), [reverse_arp(MAC, &[])]);
    }

    #[test]
    fn what_is_announced_already_is_not_announced_again() {
        let mut frames = vec![vec![1], vec![2]];
        add_new(&mut frames, vec![vec![2], vec![3]]);
        assert_eq!(frames, [[1], [2], [3]]);
    }

    #[test]
    fn no_frame_has_no_moment() {
        let none = frames(&FrameCounts::default());
        assert_eq!((none.count, none.first, none.last), (0, None, None));
    }
}
