//! A standby that NetworkManager has at work becomes a port of a bond that has the same addresses already.
//!
//! NetworkManager (1.52) asks for a lease on a bond only once the bond has a port (`ip_requires_ports`,
//! src/core/devices/nm-device.c), and takes all from a NIC before it makes a port of it: between the two there would
//! be no address and no name server. So the bond is first given what the standby has, as if its profile said so; in
//! what NetworkManager has applied alone, as the profile stays as it is and is applied anew in the end.

use std::fs::{self, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use super::copy;
use super::nmcli::Nmcli;
use crate::service_manager::needs_longer;
use crate::system_files::SystemFiles;

/// Locked while a standby crosses: an emulated guest's nmcli takes seconds each time, and what gives NICs back waits. Has the
/// bond's name until the bond is left its own configuration alone: who dies before leaves it to the next.
const LOCK_PATH: &str = "/run/tandem-nics/network-manager.crossing";

/// How long the bond's lease may take. Until then it keeps what the standby had.
const LEASE_LIMIT: Duration = Duration::from_secs(30);
/// The service manager is asked for so much more time for one bond: nmcli is run nine times.
const CROSSING_LIMIT: Duration = Duration::from_secs(60);
/// The routes that the bond has by what is applied come after those of the standby, which still has a port's way out.
const LATER_METRIC: &str = "1000";
/// Between two looks: nmcli has no command that waits for the lease of a device that is active.
const LEASE_PAUSE: Duration = Duration::from_millis(500);

/// The IPv4 configuration that a NIC has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    addresses: Vec<String>,
    gateway: String,
    routes: Vec<String>,
    servers: Vec<String>,
    domains: Vec<String>,
}

impl Held {
    /// From `nmcli --terse --escape no --fields IP4 device show` (nmcli(1), 1.52).
    fn parse(text: &str) -> Self {
        let mut held = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim().to_owned();
            let key = key.split('[').next().unwrap_or_default();
            match key {
                "IP4.ADDRESS" => held.addresses.push(value),
                "IP4.GATEWAY" => held.gateway = value,
                "IP4.ROUTE" => held.routes.extend(via_a_gateway(&value)),
                "IP4.DNS" => held.servers.push(value),
                "IP4.DOMAIN" => held.domains.push(value),
                _ => {}
            }
        }
        held
    }

    /// For `nmcli device modify`.
    fn settings(&self) -> Vec<String> {
        let list = |values: &[String]| values.join(",");
        let pairs = [
            ("ipv4.addresses", list(&self.addresses)),
            ("ipv4.gateway", self.gateway.clone()),
            ("ipv4.routes", list(&self.routes)),
            ("ipv4.dns", list(&self.servers)),
            ("ipv4.dns-search", list(&self.domains)),
            ("ipv4.route-metric", LATER_METRIC.to_owned()),
            // The standby still answers for them.
            ("ipv4.dad-timeout", "0".to_owned()),
        ];
        let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        pairs
            .flat_map(|(key, value)| [key.to_owned(), value])
            .collect()
    }
}

/// A route besides the default one and those to neighbours, from `dst = …, nh = …, mt = …`.
fn via_a_gateway(route: &str) -> Option<String> {
    let value = |wanted: &str| {
        let mut entries = route.split(',').filter_map(|entry| entry.split_once('='));
        let found = entries.find(|(key, _)| key.trim() == wanted);
        found.map(|(_, value)| value.trim())
    };
    let (to, gateway) = (value("dst")?, value("nh")?);
    (to != "0.0.0.0/0" && gateway != "0.0.0.0").then(|| format!("{to} {gateway}"))
}

/// A bond that has, or is about to have, what its standby has.
#[derive(Debug)]
pub(super) struct Crossing<'a> {
    bond: &'a str,
    /// Unlocked when it is closed.
    mark: fs::File,
}

impl<'a> Crossing<'a> {
    /// Gives the bond what the standby has; nothing where that is no address, or NetworkManager does not do it: then
    /// the standby has to go without.
    pub(super) fn begin(
        files: &SystemFiles,
        nmcli: &mut Nmcli,
        bond: &'a str,
        standby: &str,
    ) -> Result<Option<Self>, String> {
        // Another one's standby crosses, or it can't be noted that this one does.
        let Ok(mut mark) = lock(files) else {
            return Ok(None);
        };
        needs_longer(CROSSING_LIMIT);
        let show = ["--terse", "--escape", "no", "--fields", "IP4"];
        let shown = nmcli.ask(&[&show[..], &["device", "show", standby]].concat())?;
        let held = Held::parse(&shown);
        if held.addresses.is_empty() {
            return Ok(None);
        }
        let marked = mark.set_len(0);
        let marked = marked.and_then(|()| mark.write_all(bond.as_bytes()));
        if marked.is_err() {
            return Ok(None);
        }
        let mut crossing = Self { bond, mark };
        // Without a port only what is set by hand is there at once, and told as up before the standby is told as down.
        let settings = held.settings();
        let mut words = vec!["device", "modify", bond, "ipv4.method", "manual"];
        words.extend(settings.iter().map(String::as_str));
        // NetworkManager begins with the bond by itself, at once or not.
        let profile = copy::uuid_of_bond(bond);
        let up = ["--wait", "0", "connection", "up", "uuid", &profile];
        nmcli
            .run(&words)
            .or_else(|_| nmcli.run(&up).and_then(|()| nmcli.run(&words)))?;
        // From here on it asks for a lease as soon as there is a port.
        match nmcli.run(&["device", "modify", bond, "ipv4.method", "auto"]) {
            Ok(()) => Ok(Some(crossing)),
            Err(error) => Err(crossing.applied_anew(nmcli).err().unwrap_or(error)),
        }
    }

    /// Waits for the bond's own lease, and leaves it that alone.
    pub(super) fn end(mut self, nmcli: &mut Nmcli) -> Result<(), String> {
        let deadline = Instant::now() + LEASE_LIMIT;
        let show = ["--terse", "--fields", "DHCP4", "device", "show", self.bond];
        loop {
            let leased = nmcli.ask(&show);
            let has_lease = leased.is_ok_and(|lease| !lease.trim().is_empty());
            if has_lease || nmcli.is_deaf() || Instant::now() >= deadline {
                return self.applied_anew(nmcli);
            }
            std::thread::sleep(LEASE_PAUSE);
        }
    }

    /// The standby was not taken in: no lease is to come.
    pub(super) fn give_up(mut self, nmcli: &mut Nmcli) -> Result<(), String> {
        self.applied_anew(nmcli)
    }

    fn applied_anew(&mut self, nmcli: &mut Nmcli) -> Result<(), String> {
        reapply(&mut self.mark, self.bond, nmcli)
    }
}

fn reapply(mark: &mut fs::File, bond: &str, nmcli: &mut Nmcli) -> Result<(), String> {
    nmcli.run(&["device", "reapply", bond])?;
    let cleared = mark.set_len(0).and_then(|()| mark.rewind());
    cleared.map_err(|error| format!("{LOCK_PATH}: {error}"))
}

/// Somebody is at it, or has not lived to end it.
pub(super) fn is_left(files: &SystemFiles) -> bool {
    !files.text(LOCK_PATH).is_empty()
}

/// Ends what somebody began and did not live to end: the bond gets what its profile says. Says so.
pub(super) fn mend(files: &SystemFiles, nmcli: &mut Nmcli) -> Option<String> {
    let mut mark = lock(files).ok()?;
    let mut bond = String::new();
    mark.read_to_string(&mut bond).ok()?;
    if bond.is_empty() {
        return None;
    }
    Some(match reapply(&mut mark, &bond, nmcli) {
        Ok(()) => format!("{bond} has its own configuration alone again"),
        // The bond may be gone, and a later one of this name has nothing of it.
        Err(error) if !nmcli.is_deaf() => {
            let _ = mark.set_len(0);
            format!("{bond} keeps what its standby had: {error}")
        }
        Err(error) => format!("{bond} keeps what its standby had, until the next look: {error}"),
    })
}

fn lock(files: &SystemFiles) -> std::io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    let options = options.read(true).write(true);
    let options = options.create(true).truncate(false).mode(0o600);
    let file = options.open(files.path(LOCK_PATH))?;
    file.try_lock()?;
    Ok(file)
}

/// A standby crosses just now.
pub(super) fn is_under_way(files: &SystemFiles) -> bool {
    let file = fs::File::open(files.path(LOCK_PATH));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bond_is_given_what_the_standby_has() {
        let shown = "IP4.ADDRESS[1]:10.77.0.110/24\nIP4.ADDRESS[2]:10.78.0.2/32\nIP4.GATEWAY:10.77.0.1\n\
                     IP4.ROUTE[1]:dst = 10.77.0.0/24, nh = 0.0.0.0, mt = 100\n\
                     IP4.ROUTE[2]:dst = 0.0.0.0/0, nh = 10.77.0.1, mt = 100\n\
                     IP4.ROUTE[3]:dst = 10.9.0.0/16, nh = 10.77.0.9, mt = 100\n\
                     IP4.DNS[1]:10.77.0.1\nIP4.DNS[2]:10.77.0.2\nIP4.DOMAIN[1]:example.org\n";
        let held = Held::parse(shown);
        assert_eq!(
            held.settings().join(" "),
            "ipv4.addresses 10.77.0.110/24,10.78.0.2/32 ipv4.gateway 10.77.0.1 ipv4.routes 10.9.0.0/16 10.77.0.9 \
             ipv4.dns 10.77.0.1,10.77.0.2 ipv4.dns-search example.org ipv4.route-metric 1000 ipv4.dad-timeout 0"
        );
        assert_eq!(Held::parse("IP4.GATEWAY:\n"), Held::default());
        assert_eq!(
            Held::parse("IP4.ADDRESS[1]:10.0.0.1/8\n").settings().len(),
            6
        );
    }

    #[test]
    fn a_crossing_is_seen_as_long_as_it_is_under_way() {
        let folder = crate::nics::testing::Folder::complete();
        let files = folder.files();
        assert!(!is_under_way(&files));
        folder.write(LOCK_PATH, "");
        assert!(!is_under_way(&files));
        let locked = lock(&files).unwrap();
        assert!(is_under_way(&files));
        drop(locked);
        assert!(!is_under_way(&files));
    }

    #[test]
    fn what_somebody_did_not_live_to_end_is_ended_by_the_next() {
        let folder = crate::nics::testing::Folder::complete();
        let files = folder.files();
        assert_eq!(mend(&files, &mut Nmcli::of("true")), None);
        folder.write(LOCK_PATH, "bond0");
        let alive = lock(&files).unwrap();
        assert_eq!(mend(&files, &mut Nmcli::of("true")), None);
        drop(alive);
        let said = mend(&files, &mut Nmcli::of("true"));
        assert!(said.unwrap().starts_with("bond0 has its own"));
        assert_eq!(files.text(LOCK_PATH), "");
        assert_eq!(mend(&files, &mut Nmcli::of("true")), None);
    }
}
