//! What is wrong with a bond, each with a remedy.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bond::context::Context;
use crate::bond::history::attempts::Failure;
use crate::bond::history::vfs::LostPath;
use crate::bond::view::{Bond, BondView, Device, Port};
use crate::model::fast_path::{Blocked, Way};
use crate::model::link::{FailOverMac, Occupant};
use crate::model::policy::Ownership;
use crate::model::source::{Source, SourceHealth, SourceStatus};
use crate::model::status::{BondState, Problem, ProblemCode};
use crate::model::types::IfName;
use crate::report::network::of_network;
use crate::world::{FastPathSupport, World};

/// All problems, none twice.
pub(crate) fn problems(context: &Context<'_>, state: BondState) -> Vec<Problem> {
    let Context { view, memory, .. } = context;
    let mut all = Vec::new();
    if !view.world.links_known() {
        return all;
    }
    all.extend(of_device(view));
    all.extend(of_standby(view));
    all.extend(of_vfs(context));
    all.extend(not_armed(context));
    all.extend(filters_passed_over(context));
    all.extend(deaf_standby(context));
    all.extend(memory.attempts.standing().map(of_failure));
    all.extend(of_network(context));
    if state == BondState::Down {
        all.push(problem(
            ProblemCode::NothingUsable,
            Some(&view.policy.name),
            "no port is usable: the guest is cut off".into(),
            ProblemCode::NothingUsable.remedy(),
        ));
    }
    all.sort_by(|a, b| (a.code, &a.device).cmp(&(b.code, &b.device)));
    all.dedup_by(|a, b| a.code == b.code && a.device == b.device);
    all
}

/// Problems beyond a single bond. `files_refused` is what is wrong with the configuration's files,
/// `given_back` whose NICs were given back to their network manager, and why.
pub(crate) fn general_problems(
    files_refused: Option<&str>,
    given_back: Option<&str>,
) -> Vec<Problem> {
    let refused = files_refused.map(|why| {
        problem(
            ProblemCode::ConfigurationRefused,
            None,
            format!("the configuration is refused and the previous one stays in effect: {why}"),
            ProblemCode::ConfigurationRefused.remedy(),
        )
    });
    let given_back = given_back.map(|why| {
        problem(
            ProblemCode::NicsGivenBack,
            None,
            format!("NICs are left to their network manager: {why}"),
            ProblemCode::NicsGivenBack.remedy(),
        )
    });
    refused.into_iter().chain(given_back).collect()
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
            format!("an interface named {} exists and is not a bond", link.name),
            ProblemCode::NameTaken.remedy(),
        )),
        Device::OtherMode(link) => Some(problem(
            ProblemCode::BondMismatch,
            name,
            format!("{} exists in a mode other than active-backup", link.name),
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
    let wanted = view.policy.mac.fail_over_mac();
    if found != wanted {
        return Some(problem(
            code,
            name,
            format!(
                "fail_over_mac is {found:?} and should be {wanted:?}; the kernel changes it only on an empty bond"
            ),
            "remove the bond and let Tandem make it, or set `mac` to what the bond does",
        ));
    }
    let mac = view.wanted_mac()?;
    let shown = bond.link.mac?;
    (shown != mac).then(|| {
        problem(
            code,
            name,
            format!("the bond has the MAC {shown} instead of the standby's {mac}; changing it would cut connections"),
            "remove the bond and let Tandem make it, or correct `standby`",
        )
    })
}

fn of_standby(view: &BondView<'_>) -> Vec<Problem> {
    let mut all = Vec::new();
    let Some(standby) = &view.standby else {
        all.push(problem(
            ProblemCode::StandbyMissing,
            None,
            format!("no NIC matches the standby of {}", view.policy.name),
            ProblemCode::StandbyMissing.remedy(),
        ));
        return all;
    };
    let name = Some(&standby.link.name);
    all.extend(in_use(standby));
    if standby.enslaved && !standby.link.carrier {
        all.push(problem(
            ProblemCode::StandbyNoCarrier,
            name,
            format!("the standby {} has no carrier", standby.link.name),
            ProblemCode::StandbyNoCarrier.remedy(),
        ));
    }
    if let Some(other) = &view.other_standby {
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

fn of_vfs(context: &Context<'_>) -> Vec<Problem> {
    let Context {
        view, memory, now, ..
    } = context;
    let mut all: Vec<_> = context.choice.vfs().filter_map(in_use).collect();
    if let Some((chosen, other)) = context.choice.surplus {
        all.push(ambiguous(chosen, other, "VF"));
    }
    let bond_mtu = view.bond().map_or(0, |bond| bond.link.mtu);
    for vf in context.choice.vfs() {
        let (name, limit) = (&vf.link.name, vf.link.max_mtu);
        if !vf.takes_mtu(bond_mtu) && !vf.enslaved {
            all.push(problem(
                ProblemCode::MtuRefused,
                Some(name),
                format!("the VF takes at most {limit} bytes; the bond's MTU is {bond_mtu}"),
                ProblemCode::MtuRefused.remedy(),
            ));
        }
        let lost = memory.vfs.last_lost_path(vf.ifindex());
        all.extend(lost.map(|lost| path_lost(vf, lost)));
        if memory.vfs.is_flapping(view.policy, vf, *now) {
            all.push(problem(
                ProblemCode::Flapping,
                Some(name),
                "the VF's carrier flaps; each loss doubles the hold time (hold-ms)".into(),
                ProblemCode::Flapping.remedy(),
            ));
        }
    }
    all
}

/// The VF at work reaches who does not answer through the standby.
fn deaf_standby(context: &Context<'_>) -> Option<Problem> {
    let neighbour = context.memory.path.deaf_standby()?;
    let name = &context.view.standby.as_ref()?.link.name;
    let message = format!(
        "{name} has its carrier, but hears nothing: {neighbour} answers through the VF and not through {name}"
    );
    let code = ProblemCode::StandbyDeaf;
    Some(problem(code, Some(name), message, code.remedy()))
}

/// A VF has its carrier, and the standby reaches who does not answer through the VF.
fn path_lost(vf: &Port<'_>, lost: &LostPath) -> Problem {
    let (name, neighbour) = (&vf.link.name, lost.neighbour);
    let code = ProblemCode::PathLost;
    if lost.is_astray {
        let message = format!(
            "{name} sends, but the network still leads to the standby: {neighbour} answers what {name} asks, and the \
             answers come to the standby"
        );
        let remedy = "the traffic stays on the standby, and the VF is tried again; have the network learn that a MAC \
             moves: no static entry for the bond's MAC, learning on at the VF's port, no port security";
        return problem(code, Some(name), message, remedy);
    }
    let message = format!(
        "{name} has its carrier, but its frames do not pass: {neighbour} answers through the standby and not through {name}"
    );
    problem(code, Some(name), message, code.remedy())
}

/// A VF carries the traffic, and it is known that its fast path can't be armed. Where the programs refused, that
/// failure tells of it.
fn not_armed(context: &Context<'_>) -> Option<Problem> {
    let view = context.view;
    let bond = view.bond()?;
    let vf = view.vfs.iter().find(|vf| vf.active)?;
    let code = ProblemCode::NotArmed;
    let name = &vf.link.name;
    let (why, remedy) = match view.world.fast_path_support() {
        FastPathSupport::Missing => (lack(view.world.source_status(Source::Ebpf)), code.remedy()),
        FastPathSupport::Loading { until } if context.now >= until => (
            "the kernel programs are still being loaded".into(),
            code.remedy(),
        ),
        FastPathSupport::Supported if bond.facts.fail_over_mac != FailOverMac::None => (
            "the bond follows the MAC of its port".into(),
            "set `mac = \"standby\"` where the host lets the VF have the standby's MAC, and make the bond anew",
        ),
        FastPathSupport::Supported if vf.link.pci.is_none() => {
            ("it has no PCI address".into(), code.remedy())
        }
        FastPathSupport::Supported => {
            let blocked = view.world.blocked(bond.ifindex())?;
            (not_reached(view.world, blocked), REMEDY_BLOCKED)
        }
        _ => return None,
    };
    let message = format!("nothing acts by itself when {name} is taken without a word: {why}");
    Some(problem(code, Some(name), message, remedy))
}

/// The fast path is armed, and somebody's filters would not see what it redirects.
fn filters_passed_over(context: &Context<'_>) -> Option<Problem> {
    let bond = context.view.bond()?;
    if !context.view.world.passes_over(bond.ifindex()) {
        return None;
    }
    let name = &bond.link.name;
    let code = ProblemCode::FiltersPassedOver;
    let message = format!(
        "{name} has filters of a clsact on its way out, and for the moments in which a VF is taken without a word the fast path \
         goes around them: tcx programs come before Tandem's, such filters after it"
    );
    Some(problem(code, Some(name), message, code.remedy()))
}

/// What somebody else's program can do so that Tandem's is reached too.
const REMEDY_BLOCKED: &str = "`bpftool net` and `tc filter` name what is attached there: have it pass on what it lets \
     through (TCX_NEXT, TC_ACT_UNSPEC), not end the way of frames (TC_ACT_OK). Until then have the host ask before it \
     takes the VF (`tandem-host prepare`)";

/// Where frames do not come to the fast path's program.
fn not_reached(world: &World, blocked: &Blocked) -> String {
    let name = world
        .link(blocked.link)
        .map_or("a link", |link| link.name.as_str());
    let frames = match blocked.way {
        Way::Out => format!("frames that leave {name}"),
        Way::In => format!("frames that {name} receives"),
    };
    let mut programs = String::new();
    for number in &blocked.programs {
        let before = if programs.is_empty() { " (" } else { ", " };
        programs += &format!("{before}{number}");
    }
    if !programs.is_empty() {
        programs.push(')');
    }
    format!(
        "{frames} do not come to Tandem's program, as another tc or XDP program{programs} ends their way before it"
    )
}

/// What the kernel programs lack.
fn lack(programs: Option<&SourceStatus>) -> String {
    let missing = programs.and_then(|programs| match &programs.health {
        SourceHealth::Missing { reason } => Some(reason.clone()),
        _ => {
            let part = programs.parts.iter().find(|part| !part.ok);
            part.map(|part| format!("{} is missing: {}", part.name, part.detail))
        }
    });
    missing.unwrap_or_else(|| "the kernel programs are missing".into())
}

/// Another device has the NIC as its port, or something lies on it that it may lose to the bond.
fn in_use(port: &Port<'_>) -> Option<Problem> {
    let name = &port.link.name;
    if port.taken {
        return Some(problem(
            ProblemCode::PortTaken,
            Some(name),
            format!("{name} is a port of another device and is left alone"),
            ProblemCode::PortTaken.remedy(),
        ));
    }
    let message = match port.link.occupant.as_ref()? {
        Occupant::Device { name: upper, kind } if port.enslaved => format!(
            "{upper} ({kind}) lies on {name}, a port of the bond, and gets nothing while another port carries the traffic"
        ),
        Occupant::Device { name: upper, kind } => {
            format!("{upper} ({kind}) lies on {name}, which is left alone")
        }
        // A bond's own program is on its ports too.
        Occupant::Xdp if port.enslaved => return None,
        Occupant::Xdp => format!("{name} has an XDP program of its own and is left alone"),
    };
    let code = ProblemCode::NicInUse;
    let remedy = match port.enslaved {
        true => "take it off the NIC and put it onto the bond",
        false => code.remedy(),
    };
    Some(problem(code, Some(name), message, remedy))
}

fn ambiguous(chosen: &Port<'_>, other: &Port<'_>, role: &str) -> Problem {
    problem(
        ProblemCode::AmbiguousMatch,
        Some(&other.link.name),
        format!(
            "{} matches the {role} too; {} was chosen",
            other.link.name, chosen.link.name
        ),
        ProblemCode::AmbiguousMatch.remedy(),
    )
}

fn of_failure(failure: &Failure) -> Problem {
    problem(
        failure.code,
        failure.device.as_ref(),
        failure.message.clone(),
        failure.code.remedy(),
    )
}

impl ProblemCode {
    /// What to do about it, where nothing more exact is known.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::StandbyMissing => {
                "attach it, or correct `standby`; without it a removal of the VF cuts the guest off"
            }
            Self::StandbyNoCarrier => {
                "set its link up on the host; check the tap, bridge or switch behind it"
            }
            Self::AmbiguousMatch => {
                "match the NIC more exactly, by permanent MAC or PCI address; give each of several VFs an entry of its own"
            }
            Self::NameTaken => {
                "rename or remove that interface, or choose another name for the bond"
            }
            Self::BondMismatch => {
                "correct the bond where it is made, or remove it and let Tandem make it"
            }
            Self::PortTaken => "take it out of that device, or correct the configuration",
            Self::NicInUse => {
                "take it off the NIC and put it onto the bond, which is made once the NIC is free; \
                 until then the NIC carries its own traffic as without Tandem"
            }
            Self::MacRefused => {
                "give the VF the standby's MAC on the host (`ip link set PF vf N mac MAC`), or allow it \
                 to change its own (`trust on`), or set `mac = \"follow\"` and make the bond anew"
            }
            Self::MtuRefused => {
                "lower `mtu` to what the VF takes, or raise the PF's MTU on the host"
            }
            Self::ActionFailed => {
                "it is retried, less and less often; check the kernel's log and `journalctl -u tandem`"
            }
            Self::NoEffect => {
                "it is retried; check whether another manager undoes it, and whether this kernel knows the option"
            }
            Self::Flapping => "check the cable, the switch port and the PF's link on the host",
            Self::BondingMissing => {
                "load the kernel module `bonding` (`modprobe bonding`) or install the package that has it"
            }
            Self::NothingUsable => "give the standby a carrier, or attach a VF",
            Self::SwitchoverUnmeasured => {
                "everything else works; mend it before an unplug that nobody announces (`tandem check`)"
            }
            Self::NotArmed => {
                "the traffic flows; `tandem check` tells what is missing. Until then have the host ask before it takes \
                 the VF (`tandem-host prepare`)"
            }
            Self::FiltersPassedOver => {
                "attach the program by tcx instead (`bpftool net attach tcx_egress`), or put the filters on the standby too, \
                 which sends these frames (`tc filter show dev BOND egress` names them)"
            }
            Self::PathBroken => {
                "the traffic stays on the standby; check the VF's VLAN, its PF's uplink and the switch \
                 on the host, or set `path-check = \"none\"`"
            }
            Self::PathLost => {
                "the traffic stays on the standby, and the VF is tried again; check the VF's VLAN and MAC on the host, \
                 its PF's uplink and the switch; `health-ms = 0` ends the watch"
            }
            Self::StandbyDeaf => {
                "do not unplug the VF before that is fixed: check the standby's VLAN and what lies behind it on the \
                 host, a tap, bridge or filter"
            }
            Self::ConfigurationRefused => {
                "correct the line that is named (`tandem check` shows it), then `systemctl reload tandem`"
            }
            Self::NicsGivenBack => {
                "fix what the message names; they are taken again once the bond is there"
            }
            Self::NoAddress => {
                "see which network manager should configure the bond (`tandem status` names it) and what it says \
                 (`networkctl status BOND`, `journalctl`), or set `addressing`"
            }
            Self::NoDefaultRoute => {
                "have the network manager that configures the bond ask for it again \
                 (`networkctl renew BOND`), or add the route to its configuration"
            }
            Self::LeaseUnrenewed => {
                "have a DHCP client run on the bond: what got the address on the standby does not renew it here"
            }
            Self::PortContested => {
                "keep that manager off the port: take the NIC out of its configuration (dhcpcd: `denyinterfaces`)"
            }
            Self::ManagerIgnoresBond => {
                "`networkctl status BOND` or `nmcli device show BOND` says what it does; \
                 `systemctl restart tandem`, then `networkctl reload` or `nmcli device set BOND managed yes`"
            }
            Self::WaitOnlineNamesPort => {
                "name the bond in place of the port where that is configured; \
                 a boot waits for the port until it gives up"
            }
            Self::VfWithoutDriver => {
                "install the package of the kernel that has the driver, or load it; \
                 `lspci -k` shows the device; kernels for clouds lack some drivers"
            }
            Self::Unknown => "do what the newer guest says of it",
        }
    }
}
