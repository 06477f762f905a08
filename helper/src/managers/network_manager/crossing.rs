//! A standby that NetworkManager has at work becomes a port of a bond that has the same addresses already.
//!
//! NetworkManager (1.52) asks for a lease on a bond only once the bond has a port (`ip_requires_ports`,
//! src/core/devices/nm-device.c), and takes all from a NIC before it makes a port of it: between the two there would
//! be no address and no name server. So the bond is first given what the standby has, as if its profile said so; in
//! what NetworkManager has applied alone, as the profile stays as it is and is applied anew in the end.

use std::time::{Duration, Instant};

use super::copy;
use super::nmcli::{Nmcli, WAIT};
use super::profile_files::path_of_bond;

/// How long the bond's lease may take. Until then it keeps what the standby had.
const LEASE_LIMIT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });
/// How long the bond may take until it is up with what the standby has.
const UP_LIMIT: Duration = Duration::from_secs(15);
/// Between two looks: nmcli has no command that waits for these.
const PAUSE: Duration = Duration::from_millis(500);
/// What it shows of one that is up.
const CONNECTED: &str = "GENERAL.STATE:100";

/// The IPv4 configuration that a NIC has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    addresses: Vec<String>,
    gateway: String,
    routes: Vec<String>,
    servers: Vec<String>,
    domains: Vec<String>,
    /// The greatest metric of all of its routes.
    metric: u32,
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
                "IP4.ROUTE" => {
                    held.routes.extend(via_a_gateway(&value));
                    let metric = part(&value, "mt").and_then(|metric| metric.parse().ok());
                    held.metric = held.metric.max(metric.unwrap_or_default());
                }
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
        // The routes that the bond has by it come after those of the standby, which still has a port's way out, and
        // before those of others, that come after the standby's; but for a NIC whose metric is the next.
        let later = self.metric.saturating_add(1);
        let pairs = [
            ("ipv4.addresses", list(&self.addresses)),
            ("ipv4.gateway", self.gateway.clone()),
            ("ipv4.routes", list(&self.routes)),
            ("ipv4.dns", list(&self.servers)),
            ("ipv4.dns-search", list(&self.domains)),
            ("ipv4.route-metric", later.to_string()),
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
    let (to, gateway) = (part(route, "dst")?, part(route, "nh")?);
    (to != "0.0.0.0/0" && gateway != "0.0.0.0").then(|| format!("{to} {gateway}"))
}

/// What `KEY = …` says in a route.
fn part<'a>(route: &'a str, wanted: &str) -> Option<&'a str> {
    let mut entries = route.split(',').filter_map(|entry| entry.split_once('='));
    let found = entries.find(|(key, _)| key.trim() == wanted);
    found.map(|(_, value)| value.trim())
}

/// Gives the bond what the standby has; nothing where that is no address. NetworkManager knows the bond's profile alone
/// until then: with the standby's it would take that in at once.
pub(super) fn begin(nmcli: &mut Nmcli, bond: &str, standby: &str) -> Result<(), String> {
    let show = ["--terse", "--escape", "no", "--fields", "IP4"];
    let shown = nmcli.ask(&[&show[..], &["device", "show", standby]].concat())?;
    let held = Held::parse(&shown);
    if held.addresses.is_empty() {
        return Ok(());
    }
    nmcli.run(&["connection", "load", &path_of_bond(bond)])?;
    // Without a port only what is set by hand is there at once, and told as up before the standby is told as down.
    let settings = held.settings();
    let modify = ["--wait", WAIT, "device", "modify", bond, "ipv4.method"];
    let by_hand = settings.iter().map(String::as_str);
    let by_hand: Vec<_> = modify
        .into_iter()
        .chain(["manual"])
        .chain(by_hand)
        .collect();
    // NetworkManager begins with the bond by itself, at once or not.
    let profile = copy::uuid_of_bond(bond);
    let up = ["--wait", "0", "connection", "up", "uuid", &profile];
    nmcli
        .run(&by_hand)
        .or_else(|_| nmcli.run(&up).and_then(|()| nmcli.run(&by_hand)))?;
    // That takes NetworkManager a moment. Where it does not, the standby is told as down before.
    let is_connected = |state: &str| state.starts_with(CONNECTED);
    shows(nmcli, bond, "GENERAL.STATE", UP_LIMIT, is_connected)?;
    // From here on it asks for a lease as soon as there is a port.
    nmcli.run(&[&modify[..], &["auto"]].concat())
}

/// Waits for the bond's own lease, and leaves it that alone. Without one it keeps what its standby had, and goes on asking.
pub(super) fn end(nmcli: &mut Nmcli, bond: &str) -> Result<(), String> {
    end_within(nmcli, bond, LEASE_LIMIT)
}

/// The same without a wait.
pub(super) fn end_now(nmcli: &mut Nmcli, bond: &str) -> Result<(), String> {
    end_within(nmcli, bond, Duration::ZERO)
}

fn end_within(nmcli: &mut Nmcli, bond: &str, limit: Duration) -> Result<(), String> {
    let has_lease = |lease: &str| !lease.is_empty();
    if !shows(nmcli, bond, "DHCP4", limit, has_lease)? {
        let text = format!("{bond} has no lease and keeps what its standby had");
        return Err(text);
    }
    nmcli.run(&["--wait", WAIT, "device", "reapply", bond])
}

/// Whether NetworkManager shows this of a bond in time.
fn shows(
    nmcli: &mut Nmcli,
    bond: &str,
    fields: &str,
    limit: Duration,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<bool, String> {
    let deadline = Instant::now() + limit;
    let show = ["--terse", "--fields", fields, "device", "show", bond];
    while !is_wanted(nmcli.ask(&show)?.trim()) {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(true)
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
             ipv4.dns 10.77.0.1,10.77.0.2 ipv4.dns-search example.org ipv4.route-metric 101 ipv4.dad-timeout 0"
        );
        // Of a profile with a metric of its own: the standby's come first as long as it has them.
        for (metric, later) in [("2000", "2001"), ("4294967295", "4294967295")] {
            let held = Held::parse(&shown.replace("mt = 100", &format!("mt = {metric}")));
            let metric = format!(" ipv4.route-metric {later} ");
            assert!(held.settings().join(" ").contains(&metric), "{held:?}");
        }
        assert_eq!(Held::parse("IP4.GATEWAY:\n"), Held::default());
        assert_eq!(
            Held::parse("IP4.ADDRESS[1]:10.0.0.1/8\n").settings().len(),
            6
        );
    }
}
