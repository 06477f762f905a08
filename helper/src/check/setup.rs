//! How Tandem is set up on this machine: configuration, NICs, udev, service, channel.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tandem_core::link::{Link, LinkKind};
use tandem_core::policy::{AddressingPolicy, BondPolicy, Policy};
use tandem_core::types::IfName;
use tandem_core::{Role, role_of};
use tandem_wire::PORT_NAME;

use super::system::System;
use super::verdict::Verdict;
use crate::config::{self, Config, ConfigError};
use crate::managers;
use crate::networkd;
use crate::nics::{self, Obstacle, UNIT, USER};

/// Where udev looks for rules, the first of a name wins (udev(7)).
const UDEV_FOLDERS: &[&str] = &[
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
];
/// Gives the port of the channel to the service's user.
const CHANNEL_RULES: &str = "60-tandem.rules";

/// The bonds that are defined.
pub(super) fn configuration(
    system: &System,
    path: &Path,
    config: &Result<Config, ConfigError>,
) -> Verdict {
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            return Verdict::fatal(
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
                "{place}: key `name`: {} is the name of a device that is no active-backup bond",
                bond.name
            )
        })
        .collect();
    if !taken.is_empty() {
        return Verdict::fatal(
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
        return Verdict::ok(format!("{} from {}", names.join(", "), path.display()));
    }
    if !config.host_may.allows_bonds() {
        return Verdict::fatal(
            "no bond is defined, and the host may not define any (`host-may`)".to_string(),
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
            Verdict::ok(format!("{} from the host", names.join(", ")))
        }
        Ok(None) => Verdict::degraded(
            format!(
                "{} defines no bond and the host has sent none",
                path.display()
            ),
            "nothing happens until the host configures the guest",
            "`tandem setup --write`, or let the host define bonds",
        ),
        Err(error) => Verdict::degraded(
            format!("{error:#}"),
            "the host's configuration is not used",
            "let the host configure the guest again",
        ),
    }
}

/// A device of that name exists and is of another kind or mode (a bond has a folder `bonding`
/// in sysfs, `drivers/net/bonding/bond_sysfs.c`, 6.12).
fn is_other_device(system: &System, name: &IfName) -> bool {
    let device = format!("/sys/class/net/{name}");
    let is_bond = system.exists(&format!("{device}/bonding"));
    system.exists(&device) && (!is_bond || nics::is_of_another_mode(system, name))
}

/// The NICs that the bonds name.
pub(super) fn nics(system: &System, config: &Result<Config, ConfigError>) -> Verdict {
    let Ok(config) = config else {
        return Verdict::ok("not looked for: the configuration is wrong");
    };
    let policy = effective_policy(system, config);
    let links = match &system.links {
        Ok(links) => links,
        Err(error) => {
            return Verdict::degraded(
                error.as_str(),
                "it is not known whether the NICs are there",
                "run it as root",
            );
        }
    };
    let bonds = policy.bonds.iter();
    let found: Vec<_> = bonds
        .map(|bond| (bond, nics_of(bond, &policy, links)))
        .collect();
    let text = |(bond, (standby, vf)): &(&BondPolicy, (Option<&Link>, Option<&Link>))| {
        let shown = |nic: &Option<&Link>| nic.map_or("absent", |nic| nic.name.as_str()).to_owned();
        format!(
            "{}: standby {}, VF {}",
            bond.name,
            shown(standby),
            shown(vf)
        )
    };
    let detail = found.iter().map(text).collect::<Vec<_>>().join("; ");
    if found.is_empty() {
        return Verdict::ok("no bond names any");
    }
    if found.iter().any(|(_, (standby, _))| standby.is_none()) {
        return Verdict::degraded(
            detail,
            "without its standby a bond is cut off when the VF leaves, and can't be made before one of its NICs comes",
            "compare `standby` with `ip -d link` (permaddr), or give the VM its virtio NIC",
        );
    }
    // A VF that is away is what all this is for; or its MAC is written wrongly.
    let is_any_away = found.iter().any(|(_, (_, vf))| vf.is_none());
    let others = others(&policy, links);
    if is_any_away && !others.is_empty() {
        return Verdict::ok(format!("{detail} (in no bond: {})", others.join(", ")));
    }
    Verdict::ok(detail)
}

/// NICs on PCI that are in no bond, and could be a VF.
fn others(policy: &Policy, links: &[Link]) -> Vec<String> {
    let is_one = |link: &&Link| {
        let is_nic = link.kind == LinkKind::Physical && link.pci.is_some();
        let is_virtio = link.driver.as_deref() == Some("virtio_net");
        is_nic && !is_virtio && link.controller.is_none() && role_of(link, policy).is_none()
    };
    let named = |link: &Link| {
        let mac = link.permanent_mac.or(link.mac);
        let mac = mac.map(|mac| format!(" {mac}"));
        format!("{}{}", link.name, mac.unwrap_or_default())
    };
    links.iter().filter(is_one).map(named).collect()
}

/// Standby and VF of a bond, where they are there.
fn nics_of<'links>(
    bond: &BondPolicy,
    policy: &Policy,
    links: &'links [Link],
) -> (Option<&'links Link>, Option<&'links Link>) {
    let with_role = |wanted: fn(Role) -> bool| {
        let mut nics = links.iter().filter(|link| link.kind == LinkKind::Physical);
        nics.find(|link| {
            role_of(link, policy).is_some_and(|(of, role)| of.name == bond.name && wanted(role))
        })
    };
    (
        with_role(|role| role == Role::Standby),
        with_role(|role| role != Role::Standby),
    )
}

/// The files' bonds, else those of the host.
pub(super) fn effective_policy(system: &System, config: &Config) -> Policy {
    if config.host_bonds_refused().is_some() {
        return config.policy.clone();
    }
    let stored = config::load_host_policy(&system.path(config::HOST_POLICY_PATH));
    stored.ok().flatten().unwrap_or_default()
}

/// udev, and what keeps other network managers off the ports.
pub(super) fn udev(system: &System) -> Verdict {
    if !system.exists("/run/udev/control") {
        return Verdict::degraded(
            "no udevd runs",
            "the kernel's own events are used; other network managers aren't kept off",
            "none is needed where no other network manager runs",
        );
    }
    let rules = ["10-tandem-unmanaged.rules", CHANNEL_RULES];
    let mut missing: Vec<_> = rules
        .into_iter()
        .filter(|rule| system.find(UDEV_FOLDERS, rule).is_none())
        .collect();
    // A folder that networkd makes when it starts.
    let networkd = system.exists("/run/systemd/netif");
    let network = networkd::UNMANAGED_FILE;
    if networkd && system.find(networkd::FOLDERS, network).is_none() {
        missing.push(network);
    }
    if missing.is_empty() {
        return Verdict::ok("running, with Tandem's rules");
    }
    Verdict::degraded(
        format!("running, without {}", missing.join(", ")),
        "NetworkManager or systemd-networkd may configure the ports, and nothing starts the service when its port or NIC appears",
        "install what is missing from udev-rules/, then `udevadm control --reload`",
    )
}

/// The user of the unit.
pub(super) fn user(system: &System) -> Verdict {
    if !system.has_systemd() {
        return Verdict::ok("none is needed without systemd");
    }
    if system.has_user(USER) {
        return Verdict::ok(format!("`{USER}`"));
    }
    Verdict::fatal(
        Obstacle::NoUser.to_string(),
        "the service can't start, so the NICs are left to their network manager",
        Obstacle::NoUser.remedy(),
    )
}

/// The unit, where systemd runs.
pub(super) fn service(system: &System) -> Verdict {
    if !system.has_systemd() {
        return Verdict::ok("systemd does not run here; start `tandem run` as you like");
    }
    let fatal = |obstacle: &Obstacle| {
        Verdict::fatal(
            obstacle.to_string(),
            "nothing starts the service, so the NICs are left to their network manager",
            obstacle.remedy(),
        )
    };
    match Obstacle::of_unit(system) {
        Some(obstacle) if obstacle != Obstacle::NoUser => return fatal(&obstacle),
        _ if !system.is_wanted(UNIT) => return fatal(&Obstacle::NotEnabled),
        _ => {}
    }
    match &system.unit {
        None => Verdict::ok(format!("{UNIT} is enabled")),
        Some(unit) if unit.is_fine() => {
            Verdict::ok(format!("{UNIT} is enabled, and {}", unit.words()))
        }
        Some(unit) if unit.active == "inactive" && unit.result == "success" => Verdict::degraded(
            format!("{UNIT} is enabled, and {}", unit.words()),
            "bonds stay as they are, and nobody moves the traffic when a VF leaves",
            "it starts with the next boot, or by `systemctl start tandem.service`",
        ),
        Some(unit) => Verdict::fatal(
            format!("{UNIT} {}", unit.words()),
            "NICs that are in no bond are left to their network manager",
            "`journalctl -u tandem` tells more; once it is mended, `systemctl restart tandem`",
        ),
    }
}

/// NICs that were given back.
pub(super) fn given_back(system: &System) -> Verdict {
    let bonds = nics::given_back(system);
    if bonds.is_empty() {
        return Verdict::ok("no NIC");
    }
    let texts = bonds
        .iter()
        .map(|(bond, reason)| format!("the NICs of {bond}: {reason}"));
    Verdict::fatal(
        texts.collect::<Vec<_>>().join("; "),
        "they have the network that they would have without Tandem, and are not accelerated",
        Obstacle::GivenBack(String::new()).remedy(),
    )
}

/// Who gives the bonds their addresses.
pub(super) fn addressing(system: &System, config: &Result<Config, ConfigError>) -> Verdict {
    let Ok(config) = config else {
        return Verdict::ok("not looked at: the configuration is wrong");
    };
    let policy = effective_policy(system, config);
    let of_bond = |bond: &BondPolicy| match &bond.addressing {
        AddressingPolicy::Auto => {
            let manager = managers::told(system, &bond.name);
            let manager = manager.or_else(|| prospect(system, &policy, bond));
            manager.unwrap_or_else(|| "what the standby has moves to the bond".to_owned())
        }
        AddressingPolicy::Inherit => "what the standby has moves to the bond".to_owned(),
        AddressingPolicy::Static { .. } => "as configured".to_owned(),
        AddressingPolicy::None => "another network manager".to_owned(),
    };
    let texts = policy
        .bonds
        .iter()
        .map(|bond| format!("{}: {}", bond.name, of_bond(bond)));
    let detail = texts.collect::<Vec<_>>().join("; ");
    Verdict::ok(if detail.is_empty() {
        "no bond"
    } else {
        &detail
    })
}

/// What the service will have done with a standby that is in no bond yet, or why it can't.
fn prospect(system: &System, policy: &Policy, bond: &BondPolicy) -> Option<String> {
    let links = system.links.as_deref().unwrap_or_default();
    let (standby, _) = nics_of(bond, policy, links);
    let standby = standby.filter(|link| link.controller.is_none())?;
    managers::prospect(system, &bond.name, standby).unwrap_or_else(Some)
}

pub(super) fn host_channel(system: &System) -> Verdict {
    const CONSEQUENCE: &str =
        "the host can neither ask nor be told anything; failover works all the same";
    let ports = std::fs::read_dir(system.path("/sys/class/virtio-ports"));
    let port = ports.into_iter().flatten().flatten().find(|port| {
        let name = std::fs::read_to_string(port.path().join("name"));
        name.is_ok_and(|name| name.trim() == PORT_NAME)
    });
    let Some(port) = port else {
        return Verdict::degraded(
            format!("no virtio-serial port {PORT_NAME}"),
            CONSEQUENCE,
            "give the VM a virtio-serial channel of that name",
        );
    };
    let device = Path::new("/dev").join(port.file_name());
    let shown = device.display();
    let node = match system.path(&device.to_string_lossy()).metadata() {
        Ok(node) => node,
        Err(error) => {
            return Verdict::degraded(
                format!("{PORT_NAME} is there, and {shown} can't be opened: {error}"),
                CONSEQUENCE,
                "let devtmpfs or udev make the device",
            );
        }
    };
    // One program at a time may have a port open (`port_fops_open`, drivers/char/virtio_console.c, 6.12).
    let others: Vec<_> = system
        .users_of(&device)
        .into_iter()
        .filter(|(_, name)| name != "tandem")
        .map(|(pid, name)| format!("{name} (process {pid})"))
        .collect();
    if !others.is_empty() {
        return Verdict::degraded(
            format!("{shown} ({PORT_NAME}) is in use by {}", others.join(", ")),
            CONSEQUENCE,
            "stop that program; only one can have the port",
        );
    }
    if system.has_systemd() && system.user_id(USER).is_some_and(|user| user != node.uid()) {
        let has_rules = system.find(UDEV_FOLDERS, CHANNEL_RULES).is_some();
        if has_rules && system.told.is_err() {
            return Verdict::ok(format!(
                "virtio-serial port {PORT_NAME}, which the service takes when it starts"
            ));
        }
        let remedy = match has_rules {
            true => "`systemctl restart tandem`",
            false => "install 60-tandem.rules, then `systemctl restart tandem`",
        };
        return Verdict::degraded(
            format!("{shown} ({PORT_NAME}) does not belong to the user `{USER}`"),
            CONSEQUENCE,
            remedy,
        );
    }
    Verdict::ok(format!("virtio-serial port {PORT_NAME}"))
}
