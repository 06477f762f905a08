//! `tandem check`: what Tandem needs, whether it is here, and what follows where it is not.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;
use serde::Serialize;
use tandem_core::types::IfName;

use crate::config;
use crate::ebpf::Support;

/// How bad a lack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// Tandem works, with less.
    Degraded,
    /// Tandem can't do its work.
    Fatal,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    pub level: Level,
    /// What was found.
    pub detail: String,
    /// What follows from it; empty if nothing is wrong.
    pub consequence: &'static str,
    /// What to do; empty if nothing is wrong.
    pub remedy: &'static str,
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The worst of all levels.
    pub level: Level,
    /// One by one.
    pub findings: Vec<Finding>,
}

/// Where the system shows itself; another root serves tests.
#[derive(Debug, Clone)]
pub struct System {
    root: PathBuf,
    capabilities: CapabilitySet,
    ebpf: Support,
    kernel_release: String,
}

impl System {
    /// The system and the process that this is.
    ///
    /// # Errors
    /// The kernel doesn't tell the process its capabilities.
    pub fn this() -> std::io::Result<Self> {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            root: PathBuf::from("/"),
            capabilities: rustix::thread::capabilities(None)?.effective,
            ebpf: Support::probe(),
            kernel_release: release,
        })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }
}

/// Looks at everything. Changes nothing.
pub fn check(system: &System, config_path: &Path) -> Report {
    let findings = vec![
        configuration(system, config_path),
        bonding(system),
        network_capabilities(system),
        ebpf(system),
        udev(system),
        host_channel(system),
    ];
    let level = findings
        .iter()
        .map(|finding| finding.level)
        .max()
        .unwrap_or(Level::Ok);
    Report { level, findings }
}

fn ok(name: &'static str, detail: impl Into<String>) -> Finding {
    Finding {
        name,
        level: Level::Ok,
        detail: detail.into(),
        consequence: "",
        remedy: "",
    }
}

fn configuration(system: &System, path: &Path) -> Finding {
    const NAME: &str = "configuration";
    let lack = |level, detail: String, consequence, remedy| Finding {
        name: NAME,
        level,
        detail,
        consequence,
        remedy,
    };
    let config = match config::load(path) {
        Ok(config) => config,
        Err(error) => {
            return lack(
                Level::Fatal,
                error.to_string(),
                "the service does not start; a running one keeps its old configuration",
                "correct the line that is named",
            );
        }
    };
    let bonds = config.policy.bonds.iter().zip(&config.names_at);
    let taken: Vec<_> = bonds
        .filter(|(bond, _)| is_other_device(system, &bond.name))
        .map(|(bond, place)| {
            format!(
                "{place}: key `name`: {} is the name of a device that is no bond",
                bond.name
            )
        })
        .collect();
    if !taken.is_empty() {
        return lack(
            Level::Fatal,
            taken.join("; "),
            "the bond can't be made; its NICs are left as they are",
            "rename or remove that device, or give the bond another name in the line that is named",
        );
    }
    if !config.policy.bonds.is_empty() {
        let names: Vec<_> = config
            .policy
            .bonds
            .iter()
            .map(|bond| bond.name.to_string())
            .collect();
        return ok(
            NAME,
            format!("{} from {}", names.join(", "), path.display()),
        );
    }
    if !config.accept_host_config {
        return lack(
            Level::Fatal,
            "no bond is defined, and `accept-host-config = false`".to_string(),
            "there is nothing to take care of",
            "define a [[bond]], or let the host configure the guest",
        );
    }
    match config::load_host_policy(&system.path(config::HOST_POLICY_PATH)) {
        Ok(Some(policy)) => {
            let names: Vec<_> = policy
                .bonds
                .iter()
                .map(|bond| bond.name.to_string())
                .collect();
            ok(NAME, format!("{} from the host", names.join(", ")))
        }
        Ok(None) => lack(
            Level::Degraded,
            format!(
                "{} defines no bond and the host has sent none",
                path.display()
            ),
            "nothing happens until the host configures the guest",
            "define a [[bond]], or send `tandem-configure` from the host",
        ),
        Err(error) => lack(
            Level::Degraded,
            format!("{error:#}"),
            "the host's configuration is not used",
            "let the host configure the guest again",
        ),
    }
}

/// A device of that name exists and is of another kind (a bond has a folder `bonding`
/// in sysfs, `drivers/net/bonding/bond_sysfs.c`, 6.12).
fn is_other_device(system: &System, name: &IfName) -> bool {
    let device = format!("/sys/class/net/{name}");
    system.exists(&device) && !system.exists(&format!("{device}/bonding"))
}

fn bonding(system: &System) -> Finding {
    const NAME: &str = "bonding driver";
    if system.exists("/sys/class/net/bonding_masters") {
        return ok(NAME, "loaded");
    }
    let folder = system.path(&format!("/lib/modules/{}", system.kernel_release));
    let listed = |file: &str| {
        std::fs::read_to_string(folder.join(file)).is_ok_and(|list| {
            list.lines()
                .any(|line| line.contains("drivers/net/bonding/bonding.ko"))
        })
    };
    if listed("modules.dep") || listed("modules.builtin") {
        return ok(NAME, "available");
    }
    Finding {
        name: NAME,
        level: Level::Fatal,
        detail: format!(
            "not loaded and not among the modules of {}",
            system.kernel_release
        ),
        consequence: "no bond can be created; an adopted one can't exist either",
        remedy: "install the kernel's full set of modules (CONFIG_BONDING)",
    }
}

fn network_capabilities(system: &System) -> Finding {
    const NAME: &str = "network capabilities";
    if !system.capabilities.contains(CapabilitySet::NET_ADMIN) {
        return Finding {
            name: NAME,
            level: Level::Fatal,
            detail: "CAP_NET_ADMIN is missing".to_string(),
            consequence: "bonds can't be changed",
            remedy: "run it as root or through tandem.service",
        };
    }
    if !system.capabilities.contains(CapabilitySet::NET_RAW) {
        return Finding {
            name: NAME,
            level: Level::Degraded,
            detail: "CAP_NET_RAW is missing".to_string(),
            consequence: "only the kernel's own announcements are sent after a switch",
            remedy: "run it as root or through tandem.service",
        };
    }
    ok(NAME, "CAP_NET_ADMIN, CAP_NET_RAW")
}

fn ebpf(system: &System) -> Finding {
    const NAME: &str = "eBPF monitor";
    let obstacles = system.ebpf.obstacles();
    if obstacles.is_empty() {
        return ok(
            NAME,
            "kernel and capabilities are there; `tandem status` shows what loaded",
        );
    }
    let obstacles: Vec<_> = obstacles.iter().map(ToString::to_string).collect();
    Finding {
        name: NAME,
        level: Level::Degraded,
        detail: obstacles.join("; "),
        consequence: "no early warning of an unplug that the host does not announce",
        remedy: "do what the line above says, or let the host announce each unplug",
    }
}

fn udev(system: &System) -> Finding {
    if system.exists("/run/udev/control") {
        return ok("udev", "running");
    }
    Finding {
        name: "udev",
        level: Level::Degraded,
        detail: "no udevd runs".to_string(),
        consequence: "the kernel's own events are used; other network managers aren't kept off",
        remedy: "none is needed where no other network manager runs",
    }
}

fn host_channel(system: &System) -> Finding {
    let ports = system.path("/sys/class/virtio-ports");
    let names = std::fs::read_dir(ports)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|port| std::fs::read_to_string(port.path().join("name")).ok());
    if names
        .into_iter()
        .any(|name| name.trim() == tandem_wire::PORT_NAME)
    {
        return ok(
            "host channel",
            format!("virtio-serial port {}", tandem_wire::PORT_NAME),
        );
    }
    Finding {
        name: "host channel",
        level: Level::Degraded,
        detail: format!("no virtio-serial port {}", tandem_wire::PORT_NAME),
        consequence: "the host can neither ask nor be told anything; failover works all the same",
        remedy: "give the VM a virtio-serial channel of that name",
    }
}

/// The report for people.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let mark = match finding.level {
            Level::Ok => "ok      ",
            Level::Degraded => "degraded",
            Level::Fatal => "FATAL   ",
        };
        let _ = writeln!(text, "{mark}  {}: {}", finding.name, finding.detail);
        if finding.level != Level::Ok {
            let _ = writeln!(text, "          consequence: {}", finding.consequence);
            let _ = writeln!(text, "          remedy: {}", finding.remedy);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ebpf::Lockdown;

    fn system(root: &Path, capabilities: CapabilitySet, btf: bool) -> System {
        System {
            root: root.to_path_buf(),
            capabilities,
            ebpf: Support {
                btf,
                missing_capabilities: Vec::new(),
                lockdown: Lockdown::None,
            },
            kernel_release: "6.12.0-test".to_string(),
        }
    }

    fn level(report: &Report, name: &str) -> Level {
        report
            .findings
            .iter()
            .find(|finding| finding.name == name)
            .unwrap()
            .level
    }

    #[test]
    fn an_empty_system_lacks_everything_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        let report = check(
            &system(root.path(), CapabilitySet::empty(), false),
            &root.path().join("etc/tandem/tandem.toml"),
        );
        assert_eq!(report.level, Level::Fatal);
        assert_eq!(level(&report, "bonding driver"), Level::Fatal);
        assert_eq!(level(&report, "network capabilities"), Level::Fatal);
        for name in ["configuration", "eBPF monitor", "udev", "host channel"] {
            assert_eq!(level(&report, name), Level::Degraded, "{name}");
        }
        let lacks = report
            .findings
            .iter()
            .filter(|finding| finding.level != Level::Ok);
        for finding in lacks {
            assert!(
                !finding.consequence.is_empty() && !finding.remedy.is_empty(),
                "{finding:?}"
            );
        }
        assert!(render(&report).contains("remedy: give the VM a virtio-serial channel"));
    }

    #[test]
    fn a_complete_system_is_ok() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("run/udev/control", "");
        write(
            "sys/class/virtio-ports/vport1p1/name",
            "org.tandem.agent.0\n",
        );
        write(
            "lib/modules/6.12.0-test/modules.dep",
            "kernel/drivers/net/bonding/bonding.ko.xz: \n",
        );
        write(
            "etc/tandem/tandem.toml",
            "[[bond]]\nname = \"bond0\"\nstandby = { mac = \"52:54:00:00:00:01\" }\n\
             vfs = [{ mac = \"52:54:00:00:00:02\" }]\n",
        );
        let report = check(
            &system(root.path(), CapabilitySet::all(), true),
            &root.path().join("etc/tandem/tandem.toml"),
        );
        assert_eq!(report.level, Level::Ok, "{}", render(&report));

        write("sys/class/net/bond0/ifindex", "7");
        let file = root.path().join("etc/tandem/tandem.toml");
        let report = check(&system(root.path(), CapabilitySet::all(), true), &file);
        let place = format!("{}:2:1: key `name`", file.display());
        let text = render(&report);
        assert!(
            text.contains(&place) && text.contains("rename or remove"),
            "{text}"
        );
        write("sys/class/net/bond0/bonding/mode", "active-backup 1");
        let report = check(&system(root.path(), CapabilitySet::all(), true), &file);
        assert_eq!(report.level, Level::Ok, "{}", render(&report));
    }
}
