//! `cargo xtask bench --boot`: how long a guest's boot takes with Tandem and without it, side by side.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_lab::addressing::Machine as Guests;
use tandem_lab::full_guest::{Manager, systemd};
use tandem_lab::tandem::BOND;
use tandem_lab::{Lab, Mac, Vm, command};

use super::machine::Machine;
use super::report::{Claim, Report};
use super::spread::{Spread, show};
use super::table::Table;

/// What has to be known to read the table.
const ABOUT: &str = "The same guest, Debian 13, boots in turn without Tandem and with it, DHCPv4, DHCPv6 and router \
    advertisements from outside; medians and extremes in s, from systemd's start. *Network* is `network-online.target`, \
    *all* the moment when systemd has nothing more to do. Emulation makes each instruction 20 to 50 times slower: a \
    second more here is some hundredths of one on a processor.";
/// Whoever waits for a network in vain waits longer, in s: NetworkManager's unit for 60, networkd's for 120.
const WAIT_S: f64 = 45.0;
/// The standby's name without a rule.
const STANDBY: &str = "enp0s4";

/// What `cargo xtask bench --boot` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct BootOptions {
    /// Boots of each kind
    #[arg(long, default_value_t = 5, requires = "boot", value_parser = clap::value_parser!(u32).range(1..))]
    boots: u32,
}

/// The boots of one kind.
struct Row {
    manager: Manager,
    with_tandem: bool,
    boots: Vec<Boot>,
}

/// One boot, in s from systemd's start.
struct Boot {
    network_s: f64,
    all_s: f64,
}

/// Measures, prints, and writes JSON; fails if a guest was not on its bond.
pub(super) fn run(options: &BootOptions, page: bool) -> Result<()> {
    let mut rows = Vec::new();
    for manager in [
        Manager::Networkd,
        Manager::NetworkManager,
        Manager::Ifupdown,
    ] {
        rows.extend(measure(manager, options.boots)?);
    }
    let report = Report {
        name: "boot",
        title: "What Tandem costs a boot",
        about: ABOUT.to_owned(),
        machine: Machine::look()?,
        figures: rows.iter().map(Row::json).collect(),
        table: table(&rows),
        claims: rows
            .chunks(2)
            .flat_map(|rows| [waits_for_nothing(rows), is_not_slower(rows)])
            .collect(),
        picture: None,
    };
    report.publish(page)
}

/// In turn, so that both have the same neighbours on this machine.
fn measure(manager: Manager, boots: u32) -> Result<[Row; 2]> {
    let row = |with_tandem| Row {
        manager,
        with_tandem,
        boots: Vec::new(),
    };
    let mut rows = [row(false), row(true)];
    for _ in 0..boots {
        for row in &mut rows {
            let boot = boot(manager, row.with_tandem)?;
            let (network_s, all_s) = (boot.network_s, boot.all_s);
            let with = if row.with_tandem { "with" } else { "without" };
            command::progress(&format!(
                "{manager:?} {with} Tandem: network after {network_s:.1} s, all after {all_s:.1} s"
            ));
            row.boots.push(boot);
        }
    }
    Ok(rows)
}

fn boot(manager: Manager, with_tandem: bool) -> Result<Boot> {
    let lab = Lab::new("bench-boot")?;
    let guests = Guests::new(&lab, manager)?;
    let guests = match with_tandem {
        true => guests.with_tandem(),
        false => guests.without_tandem(),
    };
    let guest = guests.boot(&files(manager, guests.setup.vf))?;
    let interface = if with_tandem { BOND } else { STANDBY };
    guests.has_network(&guest, interface, &guests.lease()?.address)?;
    times(&guest.vm)
}

/// What has the standby configured, where its manager does not do so by itself, and nothing else.
fn files(manager: Manager, vf: Mac) -> Vec<(String, String)> {
    let file = match manager {
        Manager::Networkd => (
            "/etc/systemd/network/10-lan.network",
            format!("[Match]\nName={STANDBY}\n[Network]\nDHCP=yes\n[DHCP]\nRouteMetric=100\n"),
        ),
        Manager::Ifupdown => (
            "/etc/network/interfaces.d/lan",
            format!("auto {STANDBY}\niface {STANDBY} inet dhcp\niface {STANDBY} inet6 auto\n"),
        ),
        // Without Tandem it would give the VF an address too.
        Manager::NetworkManager => (
            "/etc/NetworkManager/conf.d/vf.conf",
            format!("[keyfile]\nunmanaged-devices=mac:{vf}\n"),
        ),
        Manager::Dhcpcd => return Vec::new(),
    };
    vec![(file.0.to_owned(), file.1)]
}

fn times(vm: &Vm) -> Result<Boot> {
    let of_manager = |name: &str| -> Result<u64> {
        let value = vm.sh(&format!("systemctl show --value --property={name}"))?;
        value.parse().with_context(|| format!("{name}: `{value}`"))
    };
    let started = of_manager("UserspaceTimestampMonotonic")?;
    let finished = of_manager("FinishTimestampMonotonic")?;
    let network = systemd::active_since_us(vm, "network-online.target")?;
    ensure!(started < network, "the network was there before systemd");
    let s = |at: u64| (at - started) as f64 / 1e6;
    Ok(Boot {
        network_s: s(network),
        all_s: s(finished),
    })
}

/// Of the boots of one manager, without Tandem and with it.
fn waits_for_nothing(rows: &[Row]) -> Claim {
    let slowest = |with_tandem| {
        let rows = rows.iter().filter(|row| row.with_tandem == with_tandem);
        let boots = rows.flat_map(|row| &row.boots);
        boots.map(|boot| boot.network_s).fold(0.0, f64::max)
    };
    let managers = rows.iter().map(|row| format!("{:?}", row.manager));
    Claim {
        text: format!(
            "{}: no boot with Tandem has its network {WAIT_S} s after the slowest without, as one that waits in vain",
            managers.take(1).collect::<String>()
        ),
        holds: slowest(true) < slowest(false) + WAIT_S,
    }
}

/// Of the boots of one manager, without Tandem and with it: a claim about medians, which neighbours on this machine
/// can make wrong. The extremes say how far to trust it.
fn is_not_slower(rows: &[Row]) -> Claim {
    let spread = |with_tandem| {
        let mut rows = rows.iter().filter(|row| row.with_tandem == with_tandem);
        rows.next()?.spread(|boot| boot.network_s)
    };
    let (with, without) = (spread(true), spread(false));
    let manager = rows.first().map(|row| format!("{:?}", row.manager));
    Claim {
        text: format!(
            "{}: boot is not slower: the median boot with Tandem has its network after {} s, without after {} s",
            manager.unwrap_or_default(),
            show(with, 1),
            show(without, 1)
        ),
        holds: with
            .zip(without)
            .is_some_and(|(with, without)| with.median <= without.median),
    }
}

impl Row {
    fn with(&self) -> &'static str {
        if self.with_tandem { "yes" } else { "no" }
    }

    fn spread(&self, value: impl Fn(&Boot) -> f64) -> Option<Spread> {
        Spread::of(self.boots.iter().map(value))
    }

    fn json(&self) -> Value {
        let boots = self.boots.iter();
        let boots = boots.map(|boot| json!({ "network-s": boot.network_s, "all-s": boot.all_s }));
        json!({
            "manager": format!("{:?}", self.manager),
            "tandem": self.with_tandem,
            "boots": boots.collect::<Vec<_>>(),
        })
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["manager", "Tandem", "boots", "network, s", "all, s"]);
    for row in rows {
        let s = |value: fn(&Boot) -> f64| show(row.spread(value), 1);
        table.rows.push(vec![
            format!("{:?}", row.manager),
            row.with().to_owned(),
            row.boots.len().to_string(),
            s(|boot| boot.network_s),
            s(|boot| boot.all_s),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_and_extremes() {
        let boots = [3.0, 1.0, 2.0].map(|s| Boot {
            network_s: s,
            all_s: s + 1.0,
        });
        let row = Row {
            manager: Manager::Networkd,
            with_tandem: true,
            boots: boots.into(),
        };
        let table = table(&[row]);
        let words = ["Networkd", "yes", "3", "2.0 (1.0..3.0)", "3.0 (2.0..4.0)"];
        assert_eq!(table.rows[0], words);
    }

    #[test]
    fn a_slower_boot_is_told() {
        let row = |with_tandem, times: [f64; 3]| Row {
            manager: Manager::Networkd,
            with_tandem,
            boots: times
                .map(|network_s| Boot {
                    network_s,
                    all_s: network_s,
                })
                .into(),
        };
        let claim = |times| is_not_slower(&[row(false, [3.0, 5.0, 4.0]), row(true, times)]);
        assert!(claim([9.0, 4.0, 1.0]).holds);
        let slower = claim([4.5, 6.0, 1.0]);
        assert!(!slower.holds);
        let told =
            "with Tandem has its network after 4.5 (1.0..6.0) s, without after 4.0 (3.0..5.0) s";
        assert!(slower.text.ends_with(told), "{}", slower.text);
        assert!(!is_not_slower(&[]).holds);
    }

    #[test]
    fn one_that_waits_in_vain_is_told() {
        let holds = |network_s: f64| {
            let row = |with_tandem, network_s| Row {
                manager: Manager::Networkd,
                with_tandem,
                boots: vec![Boot {
                    network_s,
                    all_s: network_s,
                }],
            };
            waits_for_nothing(&[row(false, 10.0), row(true, network_s)]).holds
        };
        assert!(holds(20.0));
        assert!(!holds(130.0));
    }
}
