//! `systemd-networkd-wait-online.service` waits for the bond where it was told to wait for one of its ports, as
//! netplan tells it: a port never gets an address.
//!
//! A drop-in that sorts after netplan's names the bond instead. systemd has to read its units anew for that, which
//! is no work for what a unit is started by: `tandem udev --watch` does it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use tandem_core::IfName;

use super::ini;
use crate::programs::{run, state_of};
use crate::system_files::{SystemFiles, UNIT_FOLDERS, text_of};

pub(crate) const UNIT: &str = "systemd-networkd-wait-online.service";
/// After `10-netplan.conf`.
const DROP_IN: &str = "99-tandem.conf";
const FOLDER: &str = "/run/systemd/system";

/// What the network waits for once Tandem has its NICs.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    /// The present ports and NICs of bonds, and the bonds.
    pub(crate) ports: BTreeMap<IfName, IfName>,
    /// networkd manages an interface: it is waited for without being named. Where it manages none, one that
    /// is not named is waited for in vain (`manager_configured`, src/network/wait-online/manager.c, systemd 257).
    /// Nothing if that is not known yet.
    pub(crate) is_any_managed: Option<bool>,
}

/// How often systemd is told that does not answer in time: a guest that boots on a busy machine is slow to.
const ATTEMPTS: u8 = 6;

/// Keeps the drop-in in order, and systemd told of it.
#[derive(Debug, Default)]
pub(crate) struct WaitOnline {
    /// How often systemd may still be told of the drop-in as it is.
    attempts_left: u8,
}

impl WaitOnline {
    /// Writes or removes the drop-in, has systemd follow, and says what it did.
    ///
    /// # Errors
    /// The file can't be written or removed: this needs root.
    pub(crate) fn follow(&mut self, files: &SystemFiles, waits: &Waits) -> Result<Vec<String>> {
        let mut said = Vec::from_iter(write(files, waits)?);
        if !said.is_empty() {
            self.attempts_left = ATTEMPTS;
        }
        if self.is_due() {
            self.attempts_left -= 1;
            match tell() {
                Ok(()) => self.attempts_left = 0,
                Err(error) => said.push(error),
            }
        }
        Ok(said)
    }

    /// systemd was not told yet, and is to be.
    pub(crate) fn is_due(&self) -> bool {
        self.attempts_left > 0
    }
}

/// Brings the drop-in in order; what was done, if something was.
fn write(files: &SystemFiles, waits: &Waits) -> Result<Option<String>> {
    let folder = files.path(&format!("{FOLDER}/{UNIT}.d"));
    let path = folder.join(DROP_IN);
    let wanted = drop_in(&commands(files), waits);
    let present = path.exists().then(|| text_of(&path));
    if present == wanted {
        return Ok(None);
    }
    let shown = path.display();
    Ok(Some(match wanted {
        Some(text) => {
            let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, text));
            written.with_context(|| format!("can't write {shown}"))?;
            format!("{UNIT} waits for a bond instead of its port")
        }
        None => {
            fs::remove_file(&path).with_context(|| format!("can't remove {shown}"))?;
            format!("{UNIT} waits for what it did before")
        }
    }))
}

/// Has systemd follow the drop-in.
fn tell() -> Result<(), String> {
    run("systemctl", &["daemon-reload"])?;
    match state_of(UNIT).as_str() {
        "" => Err(format!("systemd does not say whether {UNIT} waits")),
        // It waits for the wrong interface.
        "activating" => run("systemctl", &["try-restart", "--no-block", UNIT]),
        _ => Ok(()),
    }
}

/// The unit's commands as they are without Tandem (systemd.unit(5)).
fn commands(files: &SystemFiles) -> Vec<String> {
    let Some(unit) = files.find(UNIT_FOLDERS, UNIT) else {
        return Vec::new();
    };
    let folders: Vec<_> = UNIT_FOLDERS
        .iter()
        .map(|folder| format!("{folder}/{UNIT}.d"))
        .collect();
    let folders: Vec<_> = folders.iter().map(String::as_str).collect();
    let drop_ins = ini::list(files, &folders, "conf").into_iter();
    let others = drop_ins
        .filter(|(name, _)| name != DROP_IN)
        .map(|(_, path)| path);
    let mut commands = Vec::new();
    for file in std::iter::once(unit).chain(others) {
        let sections = ini::parse(&text_of(&file));
        let service = sections
            .into_iter()
            .filter(|section| section.name == "Service");
        for (key, value) in service.flat_map(|section| section.entries) {
            match (key.as_str(), value.is_empty()) {
                ("ExecStart", true) => commands.clear(),
                ("ExecStart", false) => commands.push(value),
                _ => {}
            }
        }
    }
    commands
}

/// A port that the unit waits for in spite of all this, as where its name is quoted.
pub(crate) fn named<'a>(files: &SystemFiles, ports: &BTreeSet<&'a IfName>) -> Option<&'a IfName> {
    if !files.is_wanted(UNIT) {
        return None;
    }
    let ours = text_of(&files.path(&format!("{FOLDER}/{UNIT}.d/{DROP_IN}")));
    let commands = match ours.is_empty() {
        true => commands(files),
        false => ours.lines().map(str::to_owned).collect(),
    };
    let mut words = commands
        .iter()
        .flat_map(|command| command.split([' ', '\t', '=', ':', '"', '\'']));
    words.find_map(|word| {
        let name = word.strip_prefix("-i").unwrap_or(word);
        ports.iter().find(|port| port.as_str() == name).copied()
    })
}

/// The drop-in that names bonds in place of their ports, or where nothing else would be waited for; nothing if it
/// would change nothing.
fn drop_in(commands: &[String], waits: &Waits) -> Option<String> {
    let changed: Vec<_> = commands
        .iter()
        .map(|command| with_bonds(command, waits))
        .collect();
    (changed != commands).then(|| {
        let lines = changed
            .iter()
            .map(|command| format!("ExecStart={command}\n"));
        format!(
            "# Written by tandem.\n[Service]\nExecStart=\n{}",
            lines.collect::<String>()
        )
    })
}

/// A command line with bonds in place of ports, each named once.
fn with_bonds(command: &str, waits: &Waits) -> String {
    let Waits { ports, .. } = waits;
    // Quoted words are nobody's that is known; they stay as they are.
    if command.contains(['"', '\'', '\\']) {
        return command.to_owned();
    }
    let mut words = command.split_whitespace();
    let mut kept: Vec<String> = Vec::new();
    let mut is_any_named = false;
    while let Some(word) = words.next() {
        let (option, interface) = if let Some(interface) = word.strip_prefix("--interface=") {
            ("--interface=", interface)
        } else if word == "-i" || word == "--interface" {
            ("-i ", words.next().unwrap_or_default())
        } else if let Some(interface) = word.strip_prefix("-i") {
            ("-i", interface)
        } else {
            kept.push(word.to_owned());
            continue;
        };
        is_any_named = true;
        let (name, states) = match interface.split_once(':') {
            Some((name, states)) => (name, format!(":{states}")),
            None => (interface, String::new()),
        };
        let bond = ports.iter().find(|(port, _)| port.as_str() == name);
        let name = bond.map_or(name, |(_, bond)| bond.as_str());
        let is_named = |word: &String| {
            let after = word
                .trim_start_matches("--interface=")
                .trim_start_matches("-i");
            after.trim_start().split(':').next() == Some(name)
        };
        if bond.is_none() || !kept.iter().any(is_named) {
            kept.push(format!("{option}{name}{states}"));
        }
    }
    if !is_any_named && waits.is_any_managed == Some(false) {
        let bonds: BTreeSet<_> = ports.values().collect();
        kept.extend(bonds.into_iter().map(|bond| format!("-i {bond}")));
    }
    kept.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::testing::Folder;

    fn waits(is_any_managed: bool) -> Waits {
        let ports = ["eth0", "eth1"]
            .map(|port| (port.parse().unwrap(), "bond0".parse().unwrap()))
            .into();
        Waits {
            ports,
            is_any_managed: Some(is_any_managed),
        }
    }

    #[test]
    fn a_bond_takes_the_place_of_its_ports() {
        let wait = "/lib/systemd/systemd-networkd-wait-online";
        for (before, after) in [
            ("-i eth0:degraded", "-i bond0:degraded"),
            (
                "--any -o routable -i eth0 -i eth1",
                "--any -o routable -i bond0",
            ),
            (
                "--interface=eth0 --interface eth2",
                "--interface=bond0 -i eth2",
            ),
            (
                "-ieth1:routable -i eth2:carrier",
                "-ibond0:routable -i eth2:carrier",
            ),
            ("--any --timeout=30", "--any --timeout=30"),
        ] {
            let found = with_bonds(&format!("{wait} {before}"), &waits(true));
            assert_eq!(found, format!("{wait} {after}"));
        }
        let quoted = format!("{wait} -i \"eth0\"");
        assert_eq!(with_bonds(&quoted, &waits(true)), quoted);
    }

    #[test]
    fn a_bond_is_named_where_networkd_manages_nothing() {
        let drop_in = |command: &str, waits: &Waits| drop_in(&[command.to_owned()], waits);
        assert_eq!(drop_in("/wait", &waits(true)), None);
        let text = drop_in("/wait --any", &waits(false)).unwrap();
        assert!(
            text.ends_with("\nExecStart=/wait --any -i bond0\n"),
            "{text}"
        );
        assert_eq!(drop_in("/wait -i eth2", &waits(false)), None);
        // Without Tandem's NICs that is the administrator's affair.
        assert_eq!(drop_in("/wait", &Waits::default()), None);
    }

    #[test]
    fn the_commands_are_those_without_tandem() {
        let folder = Folder::new();
        let unit = "/usr/lib/systemd/system/systemd-networkd-wait-online.service";
        folder.write(unit, "[Service]\nExecStart=/wait\n");
        assert_eq!(drop_in(&commands(&folder.files()), &waits(true)), None);
        let netplan = "/run/systemd/system/systemd-networkd-wait-online.service.d";
        folder.write(
            &format!("{netplan}/10-netplan.conf"),
            "[Unit]\nA=b\n[Service]\nExecStart=\nExecStart=/wait -i eth0:degraded\nExecStart=/wait --any -i eth0\n",
        );
        folder.write(
            &format!("{netplan}/{DROP_IN}"),
            "[Service]\nExecStart=\nExecStart=/other\n",
        );
        assert_eq!(
            drop_in(&commands(&folder.files()), &waits(true)).unwrap(),
            "# Written by tandem.\n[Service]\nExecStart=\nExecStart=/wait -i bond0:degraded\n\
             ExecStart=/wait --any -i bond0\n"
        );
        assert!(write(&folder.files(), &waits(true)).unwrap().is_some());
        assert_eq!(write(&folder.files(), &waits(true)).unwrap(), None);
        let nothing = Waits {
            is_any_managed: Some(true),
            ..Waits::default()
        };
        assert_eq!(drop_in(&commands(&folder.files()), &nothing), None);
    }
}
