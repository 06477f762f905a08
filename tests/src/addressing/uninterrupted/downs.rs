//! What a network manager tells its dispatcher's scripts of interfaces that are down.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::agent::Background;
use crate::full_guest::{Manager, systemd};
use crate::tandem::{BOND, Guest, STEP_LIMIT};

/// A line for each event: interface, event, and `down` for one that says so.
const LOG: &str = "/run/lab-downs";
/// Goes down for nothing but to show that it would be noted.
const DUMMY: &str = "labdummy0";
/// What a program hears that runs scripts for networkd (networkd-dispatcher, 2.2).
const MONITOR: [&str; 4] = [
    "busctl",
    "monitor",
    "--json=short",
    "--match=type='signal',member='PropertiesChanged',path_namespace='/org/freedesktop/network1/link'",
];
/// Links that networkd calls so are down to such a program.
const DOWN_STATES: [&str; 3] = ["missing", "off", "no-carrier"];

const NETWORK_MANAGER: &str = "cat >/etc/NetworkManager/dispatcher.d/90-lab <<'END'
#!/bin/sh
case \"$2\" in down) echo \"$1 $2 down\" ;; *) echo \"$1 $2\" ;; esac >>/run/lab-downs
END
chmod 755 /etc/NetworkManager/dispatcher.d/90-lab
systemctl -q is-active lab-dispatcher || systemd-run -q --unit=lab-dispatcher --service-type=dbus \
    --property=BusName=org.freedesktop.nm_dispatcher /usr/libexec/nm-dispatcher --persist";
/// A link that is up and down.
const OF_NETWORK_MANAGER: &str =
    "nmcli connection add type dummy ifname labdummy0 con-name labdummy0 autoconnect no \
    ipv4.method disabled ipv6.method disabled
nmcli connection up labdummy0
nmcli connection delete labdummy0";
const IFUPDOWN: &str = "for folder in if-down.d if-post-down.d; do
    printf '#!/bin/sh\\necho $IFACE %s down >>/run/lab-downs\\n' $folder >/etc/network/$folder/lab
    chmod 755 /etc/network/$folder/lab
done
printf 'iface labdummy0 inet manual\\n' >/run/lab-interfaces
ip link add labdummy0 type dummy
ifup -i /run/lab-interfaces labdummy0
ifdown -i /run/lab-interfaces labdummy0
ip link delete labdummy0";
/// What an event ends with that NetworkManager tells when it has told that the bond is up.
pub(super) const AFTER_THE_BOND: &str = ", the bond is up";
/// A link that is up and down.
const OF_NETWORKD: &str = "ip link add labdummy0 type dummy
ip link set labdummy0 up
udevadm settle --timeout=5
ip link set labdummy0 down
ip link delete labdummy0";

/// Notes what a manager tells.
pub(super) enum Downs {
    /// By scripts of its dispatcher.
    Scripts(Manager),
    /// By its signals.
    Signals {
        monitor: Background,
        /// How much was said before.
        said: usize,
        /// The links that are up, by their ifindex.
        up: BTreeMap<u32, String>,
    },
}

impl Downs {
    /// Comes back when it has noted one that was made for it.
    pub(super) fn watch(manager: Manager, guest: &Guest) -> Result<Self> {
        let vm = &guest.vm;
        let script = match manager {
            Manager::NetworkManager => [NETWORK_MANAGER, OF_NETWORK_MANAGER].join("\n"),
            Manager::Ifupdown => IFUPDOWN.to_owned(),
            Manager::Dhcpcd => bail!("dhcpcd's hooks are not watched"),
            Manager::Networkd => return Self::listen(guest),
        };
        vm.sh(&format!(": >{LOG}\nset -e\n{script}"))?;
        wait_noted(manager, guest)?;
        vm.sh(&format!(": >{LOG}"))?;
        Ok(Self::Scripts(manager))
    }

    fn listen(guest: &Guest) -> Result<Self> {
        let vm = &guest.vm;
        let monitor = vm.spawn(&MONITOR, &[], LOG)?;
        let said = systemd::eventually("networkd tells of a link", STEP_LIMIT, || {
            vm.sh(OF_NETWORKD)?;
            let log = log(guest)?;
            let is_heard = !downs(&log, BTreeMap::new()).is_empty();
            Ok(is_heard.then_some(log.len()).ok_or(log))
        })?;
        let links = vm.ip_json("link")?;
        let links = links.as_array().into_iter().flatten();
        let up = links.filter(|link| link["flags"].to_string().contains("\"LOWER_UP\""));
        let up = up.filter_map(|link| {
            let index = u32::try_from(link["ifindex"].as_u64()?).ok()?;
            Some((index, link["ifname"].as_str()?.to_owned()))
        });
        let up = up.collect();
        Ok(Self::Signals { monitor, said, up })
    }

    pub(super) fn finish(self, guest: &Guest) -> Result<Vec<String>> {
        let vm = &guest.vm;
        match self {
            Self::Scripts(manager) => {
                if manager == Manager::NetworkManager {
                    // They run one after the other, this one last.
                    vm.sh(&format!("set -e\n{OF_NETWORK_MANAGER}"))?;
                    wait_noted(manager, guest)?;
                    // At a later boot nobody would run it.
                    vm.sh("rm /etc/NetworkManager/dispatcher.d/90-lab")?;
                }
                Ok(noted_downs(&log(guest)?))
            }
            Self::Signals { monitor, said, up } => {
                vm.signal(monitor, Signal::TERM.as_raw())?;
                let ended = vm.wait(monitor, STEP_LIMIT)?;
                ended.context("the monitor of networkd does not end")?;
                let log = log(guest)?;
                Ok(downs(log.get(said..).unwrap_or_default(), up))
            }
        }
    }
}

fn wait_noted(manager: Manager, guest: &Guest) -> Result<()> {
    let noted = format!("grep '^{DUMMY} .*down$' {LOG}");
    let noted = guest.vm.wait_sh(&noted, STEP_LIMIT);
    noted.with_context(|| format!("{manager:?} tells no script that {DUMMY} is down"))?;
    Ok(())
}

/// The events that scripts noted as down, but for the link that is there for that.
fn noted_downs(log: &str) -> Vec<String> {
    let (mut is_bond_up, mut downs) = (false, Vec::new());
    for line in log.lines() {
        is_bond_up |= line == format!("{BOND} up");
        if let Some(event) = line.strip_suffix(" down")
            && !event.starts_with(DUMMY)
        {
            let when = if is_bond_up { AFTER_THE_BOND } else { "" };
            downs.push(format!("{event}{when}"));
        }
    }
    downs
}

fn log(guest: &Guest) -> Result<String> {
    let bytes = guest.vm.read_file(LOG)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Links that were up before, and that networkd calls down. `up`: those that are up when the log begins.
fn downs(log: &str, mut up: BTreeMap<u32, String>) -> Vec<String> {
    let mut downs = Vec::new();
    for (index, state) in log.lines().filter_map(change) {
        if !DOWN_STATES.contains(&state.as_str()) {
            up.entry(index).or_insert_with(|| format!("link {index}"));
        } else if let Some(name) = up.remove(&index) {
            downs.push(format!("{name} {state}"));
        }
    }
    downs
}

/// The ifindex and the new state; nothing where a signal says something else.
fn change(line: &str) -> Option<(u32, String)> {
    let signal: Value = serde_json::from_str(line).ok()?;
    let label = signal["path"].as_str()?.rsplit('/').next()?;
    // A digit is not to begin a label, so it is written as its number (`bus_label_escape`, systemd 257).
    let (first, rest) = label.strip_prefix('_')?.split_at_checked(2)?;
    let first = char::from(u8::from_str_radix(first, 16).ok()?);
    let index = format!("{first}{rest}").parse().ok()?;
    let state = signal["payload"]["data"][1]["OperationalState"]["data"].as_str()?;
    Some((index, state.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(label: &str, state: &str) -> String {
        format!(
            "{{\"type\":\"signal\",\"path\":\"/org/freedesktop/network1/link/{label}\",\"payload\":{{\"type\":\"sa{{sv}}as\",\
             \"data\":[\"org.freedesktop.network1.Link\",{{\"OperationalState\":{{\"type\":\"s\",\"data\":\"{state}\"}}}},[]]}}}}\n"
        )
    }

    #[test]
    fn what_scripts_note_before_the_bond_is_up_and_after() {
        let log = "eth1 down down\nbond0 reapply\nbond0 up\neth0 down down\neth0 up\nlabdummy0 down down\n";
        assert_eq!(noted_downs(log), ["eth1 down", "eth0 down, the bond is up"]);
    }

    #[test]
    fn a_link_that_was_up_is_told_once() {
        let up = || BTreeMap::from([(2, "eth0".to_owned())]);
        let log = [
            // Not up yet.
            signal("_312", "off"),
            signal("_312", "no-carrier"),
            signal("_312", "carrier"),
            signal("_32", "off"),
            signal("_32", "no-carrier"),
            signal("_32", "enslaved"),
            signal("_312", "no-carrier"),
            "another line\n".to_owned(),
        ];
        assert_eq!(
            downs(&log.concat(), up()),
            ["eth0 off", "link 12 no-carrier"]
        );
        assert_eq!(downs("", up()), Vec::<String>::new());
    }
}
