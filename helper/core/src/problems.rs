//! What is wrong with a bond, each with a remedy.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::memory::Memory;
use crate::memory::attempts::Failure;
use crate::plan::fail_over_mac;
use crate::policy::Ownership;
use crate::status::{BondState, Problem, ProblemCode};
use crate::types::{IfName, Time};
use crate::view::{Bond, BondView, Device, Port};

/// All problems, none twice.
pub(crate) fn problems(
    view: &BondView<'_>,
    memory: &Memory,
    state: BondState,
    now: Time,
) -> Vec<Problem> {
    let mut all = Vec::new();
    if !view.world.links_known() {
        return all;
    }
    all.extend(of_device(view));
    all.extend(of_standby(view));
    all.extend(of_vfs(view, memory, now));
    all.extend(memory.attempts.standing().map(of_failure));
    if state == BondState::Down {
        all.push(problem(
            ProblemCode::NothingUsable,
            Some(&view.policy.name),
            "no port is usable: the guest is cut off".into(),
            "give the standby a carrier, or attach a VF",
        ));
    }
    all.sort_by(|a, b| (a.code, &a.device).cmp(&(b.code, &b.device)));
    all.dedup_by(|a, b| a.code == b.code && a.device == b.device);
    all
}

/// Problems beyond a single bond. `files_refused` is what is wrong with the configuration's files.
pub(crate) fn general_problems(files_refused: Option<&str>) -> Vec<Problem> {
    let refused = files_refused.map(|why| {
        problem(
            ProblemCode::ConfigurationRefused,
            None,
            format!("the configuration is refused and what was read before stays in effect: {why}"),
            "correct the line that is named (`tandem check` looks at it), then `systemctl reload tandem`",
        )
    });
    refused.into_iter().collect()
}

fn problem(code: ProblemCode, device: Option<&IfName>, message: String, remedy: &str) -> Problem {
    Problem {
        code,
        device: device.cloned(),
        message,
        remedy: remedy.into(),
    }
}

fn of_device(view: &BondView<'_>) -> Option<Problem> {
    let name = Some(&view.policy.name);
    match &view.device {
        Device::Missing => None,
        Device::Taken(link) => Some(problem(
            ProblemCode::NameTaken,
            name,
            format!("an interface named {} exists and is no bond", link.name),
            "rename or remove that interface, or choose another name for the bond",
        )),
        Device::OtherMode(link) => Some(problem(
            ProblemCode::BondMismatch,
            name,
            format!("{} exists in another mode than active-backup", link.name),
            "remove it or set its mode to active-backup while it is down and empty",
        )),
        Device::Present(bond) if bond.ports > 0 && view.policy.ownership == Ownership::Create => {
            mismatch(view, bond)
        }
        Device::Present(_) => None,
    }
}

/// What an existing bond does otherwise than a new one would, and cannot change with ports.
fn mismatch(view: &BondView<'_>, bond: &Bond<'_>) -> Option<Problem> {
    let name = Some(&view.policy.name);
    let code = ProblemCode::BondMismatch;
    let found = bond.facts.fail_over_mac;
    let wanted = fail_over_mac(view.policy);
    if found != wanted {
        return Some(problem(
            code,
            name,
            format!(
                "fail_over_mac is {found:?} and should be {wanted:?}; the kernel changes it only while the bond is empty"
            ),
            "remove the bond and let it be made anew, or set `mac` to what the bond does",
        ));
    }
    let mac = view.wanted_mac()?;
    let shown = bond.link.mac?;
    (shown != mac).then(|| {
        problem(
            code,
            name,
            format!("the bond shows the MAC {shown} and not the standby's {mac}; a change would cut connections"),
            "remove the bond and let it be made anew, or correct `standby`",
        )
    })
}

fn of_standby(view: &BondView<'_>) -> Vec<Problem> {
    let mut all = Vec::new();
    let Some(standby) = &view.standby else {
        all.push(problem(
            ProblemCode::StandbyMissing,
            None,
            format!("no NIC fits the standby of {}", view.policy.name),
            "attach it, or correct `standby`; without it a removal of the VF cuts the guest off",
        ));
        return all;
    };
    let name = Some(&standby.link.name);
    if standby.taken {
        all.push(taken(standby));
    }
    if standby.enslaved && !standby.link.carrier {
        all.push(problem(
            ProblemCode::StandbyNoCarrier,
            name,
            format!("the standby {} has no carrier", standby.link.name),
            "set its link up on the host",
        ));
    }
    if let Some(other) = view.other_standbys.first() {
        all.push(ambiguous(standby, other, "standby"));
    }
    let limit = standby.link.max_mtu;
    if let Some(mtu) = view.policy.mtu.filter(|mtu| limit > 0 && *mtu > limit) {
        all.push(problem(
            ProblemCode::MtuRefused,
            name,
            format!("the standby takes at most {limit} bytes; the MTU should be {mtu}"),
            "raise the standby's MTU limit on the host or lower `mtu`",
        ));
    }
    all
}

fn of_vfs(view: &BondView<'_>, memory: &Memory, now: Time) -> Vec<Problem> {
    let mut all = Vec::new();
    let Some(vf) = view.vf() else {
        return all;
    };
    if vf.taken {
        all.push(taken(vf));
    }
    if let Some(other) = view.vfs.get(1) {
        all.push(ambiguous(vf, other, "VF"));
    }
    let limit = vf.link.max_mtu;
    let bond_mtu = view.bond().map_or(0, |bond| bond.link.mtu);
    if !vf.takes_mtu(bond_mtu) && !vf.enslaved {
        all.push(problem(
            ProblemCode::MtuRefused,
            Some(&vf.link.name),
            format!("the VF takes at most {limit} bytes; the bond's MTU is {bond_mtu}"),
            remedy(ProblemCode::MtuRefused),
        ));
    }
    if memory.vfs.is_flapping(view.policy, vf, now) {
        all.push(problem(
            ProblemCode::Flapping,
            Some(&vf.link.name),
            "the VF's carrier comes and goes; it has to stay ever longer before it is used".into(),
            "check the cable, the switch port and the PF's link on the host",
        ));
    }
    all
}

fn taken(port: &Port<'_>) -> Problem {
    problem(
        ProblemCode::PortTaken,
        Some(&port.link.name),
        format!("{} is a port of another device", port.link.name),
        "take it out there, or correct the configuration",
    )
}

fn ambiguous(chosen: &Port<'_>, other: &Port<'_>, role: &str) -> Problem {
    problem(
        ProblemCode::AmbiguousMatch,
        Some(&other.link.name),
        format!(
            "{} fits the {role} too; {} was chosen",
            other.link.name, chosen.link.name
        ),
        "describe the NIC more exactly, by permanent MAC or PCI address",
    )
}

fn of_failure(failure: &Failure) -> Problem {
    problem(
        failure.code,
        failure.device.as_ref(),
        failure.message.clone(),
        remedy(failure.code),
    )
}

fn remedy(code: ProblemCode) -> &'static str {
    match code {
        ProblemCode::MacRefused => {
            "give the VF the standby's MAC on the host (`ip link set PF vf N mac MAC`), or allow it \
             to change its own (`trust on`), or set `mac = \"follow\"` and make the bond anew"
        }
        ProblemCode::MtuRefused => {
            "lower `mtu` to what the VF takes, or raise the PF's MTU on the host"
        }
        ProblemCode::BondingMissing => {
            "load the kernel module `bonding` (`modprobe bonding`) or install the package that has it"
        }
        ProblemCode::SwitchoverUnmeasured => {
            "everything else goes on; see to it before an unplug that nobody announces (`tandem check`)"
        }
        ProblemCode::PathBroken => {
            "the traffic stays on the standby; look at the VF's VLAN, its PF's uplink and the switch \
             on the host, or set `path-check = \"none\"`"
        }
        ProblemCode::NoEffect => "it is tried again; look whether another manager undoes it",
        _ => "it is tried again; look into the kernel's log",
    }
}
