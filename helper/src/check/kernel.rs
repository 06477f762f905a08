//! What the kernel offers, and what the service may ask of it.

use rustix::thread::CapabilitySet;

use super::system::System;
use super::verdict::Verdict;
use crate::ebpf::Support;
use crate::nics::bonding_lack;

/// The oldest kernel that the lab runs.
const OLDEST: (u32, u32) = (6, 1);
/// The first kernel on which traffic programs need no module (`tcx`, `kernel/bpf/tcx.c`).
const WITH_TCX: (u32, u32) = (6, 6);

pub(super) fn version(system: &System) -> Verdict {
    let release = format!("Linux {}", system.kernel_release);
    if system
        .kernel_version()
        .is_some_and(|version| version >= OLDEST)
    {
        return Verdict::ok(release);
    }
    Verdict::degraded(
        release,
        "Tandem was never tried on it: an older kernel acknowledges bond options that it does not know",
        "use Linux 6.1 or later",
    )
}

pub(super) fn bonding(system: &System) -> Verdict {
    match bonding_lack(system) {
        None if system.exists("/sys/class/net/bonding_masters") => Verdict::ok("loaded"),
        None => Verdict::ok("available"),
        Some(lack) => Verdict::fatal(
            lack,
            "no bond can be made, so the NICs are left to their network manager",
            "install the kernel's full set of modules (CONFIG_BONDING), or remove what forbids `bonding`",
        ),
    }
}

pub(super) fn network_capabilities(system: &System) -> Verdict {
    const REMEDY: &str = "run it as root or through tandem.service";
    let holder = system.holder();
    let missing = |name: &str| format!("{name} is missing; looked at: {}", holder.who);
    if !holder.capabilities.contains(CapabilitySet::NET_ADMIN) {
        return Verdict::fatal(missing("CAP_NET_ADMIN"), "bonds can't be changed", REMEDY);
    }
    if !holder.capabilities.contains(CapabilitySet::NET_RAW) {
        return Verdict::degraded(
            missing("CAP_NET_RAW"),
            "only the kernel's own announcements are sent after a switchover",
            REMEDY,
        );
    }
    Verdict::ok(format!("CAP_NET_ADMIN, CAP_NET_RAW of {}", holder.who))
}

pub(super) fn ebpf(system: &System) -> Verdict {
    let obstacles = obstacles(system);
    if obstacles.is_empty() {
        return Verdict::ok("kernel and capabilities are there; `tandem status` shows what loaded");
    }
    Verdict::degraded(
        obstacles.join("; "),
        "no early warning of an unplug that the host does not announce",
        "do what the line above says, or let the host announce each unplug",
    )
}

/// The fast path's programs: what counts frames, and redirects them when a VF is taken.
pub(super) fn switchover(system: &System) -> Verdict {
    const CONSEQUENCE: &str =
        "no fast path at an unplug that nobody announces, and no switchover is measured";
    let obstacles = obstacles(system);
    if !obstacles.is_empty() {
        return Verdict::degraded(obstacles.join("; "), CONSEQUENCE, "as for the eBPF monitor");
    }
    let capabilities = system.holder().capabilities;
    if !capabilities.contains(CapabilitySet::NET_ADMIN) {
        return Verdict::degraded(
            "CAP_NET_ADMIN is missing",
            CONSEQUENCE,
            "as for the network capabilities",
        );
    }
    let has_tcx = system
        .kernel_version()
        .is_none_or(|version| version >= WITH_TCX);
    let modules = [
        ("sch_ingress", "net/sched/sch_ingress.ko"),
        ("cls_bpf", "net/sched/cls_bpf.ko"),
    ];
    let missing: Vec<_> = modules
        .iter()
        .filter(|(name, path)| !has_tcx && !system.has_module(name, path))
        .map(|(name, _)| *name)
        .collect();
    if !missing.is_empty() {
        return Verdict::degraded(
            format!(
                "Linux {} has no tcx, and the kernel module {} is missing",
                system.kernel_release,
                missing.join(" and ")
            ),
            CONSEQUENCE,
            "install the kernel's full set of modules, or use Linux 6.6 or later",
        );
    }
    let way = if has_tcx {
        "tcx"
    } else {
        "sch_ingress and cls_bpf"
    };
    Verdict::ok(format!("they can be attached, by {way}"))
}

/// What keeps eBPF programs of whoever counts from working.
fn obstacles(system: &System) -> Vec<String> {
    let capabilities = system.holder().capabilities;
    let loaded = system.service_has_programs();
    let lacks = |which| !loaded && !capabilities.intersects(which | CapabilitySet::SYS_ADMIN);
    let needed = [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
    ];
    let missing = needed.into_iter().filter(|(which, _)| lacks(*which));
    let support = Support {
        missing_capabilities: missing.map(|(_, name)| name).collect(),
        ..system.ebpf.clone()
    };
    support
        .obstacles()
        .iter()
        .map(ToString::to_string)
        .collect()
}
