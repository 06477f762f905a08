//! What the machine offers for the monitor, without loading anything.

use std::{fmt, fs, path::Path};

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::btf::KERNEL_BTF;

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// How far the kernel is locked down (`kernel_lockdown(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lockdown {
    /// Not at all.
    None,
    /// `integrity`, as under Secure Boot: no hindrance here.
    Integrity,
    /// `confidentiality`: kernel memory can only be read through typed pointers.
    Confidentiality,
    /// securityfs does not say.
    Unknown,
}

/// What the monitor needs, and whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support {
    /// The kernel shows its type information.
    pub btf: bool,
    /// Capabilities that this thread lacks.
    pub missing_capabilities: Vec<&'static str>,
    /// The kernel's lockdown mode.
    pub lockdown: Lockdown,
}

/// Something that keeps the monitor, or a part of it, from working.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// No type information: no program can be loaded.
    NoBtf,
    /// Capabilities are missing: no program can be loaded.
    NoCapabilities(Vec<&'static str>),
    /// Lockdown: no early warning, no port states, no parent names.
    Lockdown,
}

impl Obstacle {
    /// Whether it keeps every program from loading.
    pub fn is_total(&self) -> bool {
        !matches!(self, Self::Lockdown)
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBtf => write!(
                f,
                "the kernel has no type information ({KERNEL_BTF}); use a kernel with CONFIG_DEBUG_INFO_BTF=y"
            ),
            Self::NoCapabilities(missing) => write!(
                f,
                "the service lacks {}; add them to AmbientCapabilities= and CapabilityBoundingSet= of its unit",
                missing.join(" and ")
            ),
            Self::Lockdown => f.write_str(
                "the kernel is locked down (lockdown=confidentiality) and refuses to read untyped kernel memory",
            ),
        }
    }
}

impl Support {
    /// Looks at the running kernel and this thread; takes well under a millisecond.
    pub fn probe() -> Self {
        let lockdown =
            fs::read_to_string(LOCKDOWN).map_or(Lockdown::Unknown, |text| parse_lockdown(&text));
        Self {
            btf: Path::new(KERNEL_BTF).exists(),
            missing_capabilities: missing_capabilities(),
            lockdown,
        }
    }

    /// What stands in the way, the worst first; empty when nothing does.
    pub fn obstacles(&self) -> Vec<Obstacle> {
        let mut obstacles = Vec::new();
        if !self.btf {
            obstacles.push(Obstacle::NoBtf);
        }
        if !self.missing_capabilities.is_empty() {
            obstacles.push(Obstacle::NoCapabilities(self.missing_capabilities.clone()));
        }
        if self.lockdown == Lockdown::Confidentiality {
            obstacles.push(Obstacle::Lockdown);
        }
        obstacles
    }
}

/// `CAP_SYS_ADMIN` includes both (capabilities(7)).
fn missing_capabilities() -> Vec<&'static str> {
    let Ok(sets) = capabilities(None) else {
        return Vec::new();
    };
    missing_of(sets.effective)
}

/// What only loading programs takes. Attaching a loaded one to a device takes `CAP_NET_ADMIN` (`tcx_link_attach`,
/// kernel/bpf/tcx.c; `cls_bpf_change`, `net/sched/cls_bpf.c`, 6.12), and a map is used by its descriptor
/// (`__sys_bpf`, kernel/bpf/syscall.c, since 5.19).
const TO_LOAD: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);

/// Gives up what only loading programs takes: whoever takes the service over must not read the kernel's
/// memory with it. Counts for the calling thread and those that it starts; there is no way back.
pub(crate) fn give_up_loading() {
    let given_up = capabilities(None).and_then(|mut sets| {
        sets.effective.remove(TO_LOAD);
        sets.permitted.remove(TO_LOAD);
        sets.inheritable.remove(TO_LOAD);
        set_capabilities(None, sets)
    });
    if let Err(error) = given_up {
        tracing::warn!(%error, "the capabilities to load kernel programs stay");
    }
}

/// Whether this thread may load and attach programs where frames pass.
pub(super) fn has_net_admin() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

fn missing_of(effective: CapabilitySet) -> Vec<&'static str> {
    if effective.contains(CapabilitySet::SYS_ADMIN) {
        return Vec::new();
    }
    [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
    ]
    .into_iter()
    .filter(|(capability, _)| !effective.contains(*capability))
    .map(|(_, name)| name)
    .collect()
}

/// The mode in force stands in brackets: `none [integrity] confidentiality`.
fn parse_lockdown(text: &str) -> Lockdown {
    let mode = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(mode, _)| mode);
    match mode {
        Some("none") => Lockdown::None,
        Some("integrity") => Lockdown::Integrity,
        Some("confidentiality") => Lockdown::Confidentiality,
        _ => Lockdown::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_modes_are_read() {
        for (text, mode) in [
            ("[none] integrity confidentiality\n", Lockdown::None),
            ("none [integrity] confidentiality\n", Lockdown::Integrity),
            (
                "none integrity [confidentiality]\n",
                Lockdown::Confidentiality,
            ),
            ("none [stricter]\n", Lockdown::Unknown),
            ("[", Lockdown::Unknown),
            ("", Lockdown::Unknown),
        ] {
            assert_eq!(parse_lockdown(text), mode, "{text:?}");
        }
    }

    #[test]
    fn sys_admin_stands_for_both_capabilities() {
        let both = CapabilitySet::BPF | CapabilitySet::PERFMON;
        assert_eq!(
            missing_of(CapabilitySet::empty()),
            ["CAP_BPF", "CAP_PERFMON"]
        );
        assert_eq!(missing_of(CapabilitySet::BPF), ["CAP_PERFMON"]);
        assert!(missing_of(both).is_empty());
        assert!(missing_of(CapabilitySet::SYS_ADMIN).is_empty());
    }

    #[test]
    fn a_thread_gives_up_what_loading_takes_and_nothing_else() {
        let after = std::thread::spawn(|| {
            let before = capabilities(None).unwrap();
            give_up_loading();
            (before, capabilities(None).unwrap())
        });
        let (before, after) = after.join().unwrap();
        assert!(!after.permitted.intersects(TO_LOAD) && !after.effective.intersects(TO_LOAD));
        assert_eq!(after.permitted, before.permitted - TO_LOAD);
        assert_eq!(after.effective, before.effective - TO_LOAD);
    }

    #[test]
    fn every_obstacle_says_what_to_do() {
        let support = Support {
            btf: false,
            missing_capabilities: vec!["CAP_BPF"],
            lockdown: Lockdown::Confidentiality,
        };
        let obstacles = support.obstacles();
        assert_eq!(obstacles.len(), 3);
        assert!(obstacles[0].is_total() && obstacles[1].is_total() && !obstacles[2].is_total());
        assert!(obstacles[1].to_string().contains("CAP_BPF"));
    }
}
