//! Tandem under real systemd and udev, installed as a package would install it, beside NetworkManager and
//! beside systemd-networkd.

mod rights;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tandem_core::status::{BondState, ProblemCode};
use tandem_lab::full_guest::{FullGuest, Manager, systemd};
use tandem_lab::net::{CLIENT_V4, GUEST_V4, GUEST_V6};
use tandem_lab::tandem::switchover::is_armed;
use tandem_lab::tandem::{BOND, CONFIG, Guest, STEP_LIMIT, Setup};
use tandem_lab::{Lab, Mac, Nic, NicModel, Slot, test_mac};

const UNIT: &str = "tandem.service";
/// Emulated and on a busy machine; usually about 40 s.
const START_LIMIT: Duration = Duration::from_secs(400);
/// A NIC that no bond knows.
const STRANGER: Mac = test_mac(9);
#[test]
fn beside_network_manager() {
    let Some(lab) = Lab::for_test("full guest, NetworkManager") else {
        return;
    };
    let network_manager = || -> Result<()> {
        let setup = setup(&format!(
            "addressing = \"static\"\naddresses = [\"{GUEST_V4}/24\", \"{GUEST_V6}/64\"]"
        ))?;
        let mut guest = boot(&lab, &setup, Manager::NetworkManager, |guest| guest)?;
        comes_first(&guest, Manager::NetworkManager)?;
        takes_the_vf_by_its_mac(&guest, setup.vf)?;
        rights::has_what_it_needs_and_no_more(&guest)?;
        rights::are_exposed_no_more_than_they_may(&guest)?;
        lacks_nothing(&guest)?;
        network_manager_keeps_off(&guest, &[setup.standby, setup.vf])?;
        network_manager_takes_a_stranger(&mut guest)?;

        guest.vm.unplug_vf()?;
        guest.reach(BondState::Standby)?;
        guest.vm.plug_vf(setup.model, setup.later_vfs[0])?;
        takes_the_vf_by_its_mac(&guest, setup.later_vfs[0])?;
        // What the kernel takes for that was loaded when the service started.
        guest.await_here("guarded", is_armed)?;
        network_manager_keeps_off(&guest, &[setup.standby, setup.later_vfs[0]])?;

        reloads(&guest, &setup)?;
        feeds_the_watchdog(&guest)?;
        comes_back_after_a_kill(&guest)?;
        leaves_the_bond_when_stopped(&guest)
    };
    network_manager().unwrap();
}

#[test]
fn beside_networkd() {
    let Some(lab) = Lab::for_test("full guest, networkd") else {
        return;
    };
    let networkd = || -> Result<()> {
        let setup = setup("addressing = \"none\"")?;
        let mut guest = boot(&lab, &setup, Manager::Networkd, |guest| {
            guest
                .text(
                    "/etc/systemd/network/20-bond.network",
                    &format!(
                        "[Match]\nName={BOND}\n[Network]\nAddress={GUEST_V4}/24\nAddress={GUEST_V6}/64\n\
                         LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
                    ),
                )
                .text(
                    "/etc/systemd/network/50-all.network",
                    "[Match]\nName=en*\n[Network]\nDHCP=yes\n",
                )
        })?;
        comes_first(&guest, Manager::Networkd)?;
        takes_the_vf_by_its_mac(&guest, setup.vf)?;
        networkd_keeps_off(&guest, &[setup.standby, setup.vf])?;
        networkd_takes_a_stranger(&mut guest)?;

        guest.vm.unplug_vf()?;
        guest.reach(BondState::Standby)?;
        guest.vm.plug_vf(setup.model, setup.later_vfs[0])?;
        takes_the_vf_by_its_mac(&guest, setup.later_vfs[0])?;
        networkd_keeps_off(&guest, &[setup.standby, setup.later_vfs[0]])
    };
    networkd().unwrap();
}

#[test]
fn the_host_hands_a_bond_to_a_guest_with_network_manager() {
    let Some(lab) = Lab::for_test("full guest, host's bond") else {
        return;
    };
    let handed_over = || -> Result<()> {
        let setup = setup("")?;
        let host = lab.host("a")?;
        lab.client()?;
        let connection = "/etc/NetworkManager/system-connections/lan.nmconnection";
        let mut vm = FullGuest::new(&lab)
            .standby(setup.standby)
            .manager(Manager::NetworkManager)
            .tandem("# The host says what is to be done.\n")?
            .wanted_by_its_port_alone()
            .text(
                connection,
                &format!(
                    "[connection]\nid=lan\nuuid=7a6e646d-0000-4000-8000-000000000001\ntype=ethernet\n\
                     [ethernet]\nmac-address={}\n[ipv4]\nmethod=manual\naddress1={GUEST_V4}/24\n\
                     [ipv6]\nmethod=manual\naddress1={GUEST_V6}/64\n",
                    setup.standby
                ),
            )
            // NetworkManager wants it for root alone.
            .text("/etc/tmpfiles.d/lab.conf", &format!("z {connection} 0600 root root\n"))
            .boot(&host)?;
        systemd::wait_started(&vm, START_LIMIT)?;
        vm.plug_vf(setup.model, setup.vf)?;
        vm.wait_sh(
            "nmcli -t -f NAME connection | grep 'Wired connection'",
            STEP_LIMIT,
        )?;
        vm.wait_sh(
            "nmcli -t -f DEVICE,STATE device | grep ':connected$'",
            STEP_LIMIT,
        )?;

        let mut guest = Guest::new(vm, setup.standby);
        started_by_udev(&guest, "its port")?;
        let bond = json!({
            "name": BOND,
            "standby": { "mac": setup.standby.to_string() },
            "vfs": [{ "mac": setup.vf.to_string() }],
        });
        guest
            .channel()?
            .call("tandem-configure", json!({ "bonds": [&bond] }), STEP_LIMIT)?;
        takes_the_vf_by_its_mac(&guest, setup.vf)?;
        let vf = guest.vm.wait_interface(setup.vf, STEP_LIMIT)?;
        let wanted = [format!("{BOND}:connected"), format!("{vf}:unmanaged")];
        systemd::eventually("NetworkManager has the bond, and no VF", STEP_LIMIT, || {
            let devices = guest.vm.sh("nmcli -t -f DEVICE,STATE device")?;
            let is_so = wanted
                .iter()
                .all(|state| devices.lines().any(|line| line == state));
            Ok(is_so.then_some(()).ok_or(devices))
        })?;
        guest.check()?;
        rights::marks_whatever_the_host_hands_over(&guest, &bond)?;

        // A VF that comes starts the service again.
        guest.vm.sh(&format!("systemctl stop {UNIT}"))?;
        guest.vm.unplug_vf()?;
        guest.vm.plug_vf(setup.model, setup.vf)?;
        started_by_udev(&guest, "its VF")?;
        takes_the_vf_by_its_mac(&guest, setup.vf)
    };
    handed_over().unwrap();
}

/// No target wants the service, so it was a rule of udev that started it.
fn started_by_udev(guest: &Guest, by: &str) -> Result<()> {
    systemd::eventually(&format!("{by} starts the service"), STEP_LIMIT, || {
        let found = systemd::properties(&guest.vm, UNIT, &["WantedBy", "ActiveState"])?;
        let started = !found["WantedBy"].contains(".target") && found["ActiveState"] == "active";
        Ok(started.then_some(()).ok_or_else(|| format!("{found:?}")))
    })
}

fn setup(bond_lines: &str) -> Result<Setup> {
    Ok(Setup {
        bond_lines: vec![bond_lines.to_owned()],
        ..Setup::new()?
    })
}

/// A guest that has started everything, and nothing failed.
fn boot<'lab>(
    lab: &'lab Lab,
    setup: &Setup,
    manager: Manager,
    more: impl FnOnce(FullGuest<'lab>) -> FullGuest<'lab>,
) -> Result<Guest> {
    let host = lab.host("a")?;
    lab.client()?;
    let guest = FullGuest::new(lab)
        .standby(setup.standby)
        .vf(setup.model, setup.vf)
        .manager(manager)
        .tandem(&setup.config())?;
    let vm = more(guest).boot(&host)?;
    systemd::wait_started(&vm, START_LIMIT)?;
    eprintln!(
        "the agent answered after {:?}; {}",
        vm.booted_in(),
        vm.sh("systemd-analyze time | head -n 1")?
    );
    Ok(Guest::new(vm, setup.standby))
}

/// Ready before anything configures an interface, and so before the network counts as online.
fn comes_first(guest: &Guest, manager: Manager) -> Result<()> {
    let vm = &guest.vm;
    let ready_us = systemd::active_since_us(vm, UNIT)?;
    let online_us = systemd::active_since_us(vm, "network-online.target")?;
    let starts = systemd::property(vm, manager.unit(), "InactiveExitTimestampMonotonic")?;
    let manager_us: u64 = starts.parse().context("the manager's start")?;
    eprintln!(
        "ready {} ms after the kernel's start, {manager:?} starts at {} ms, online at {} ms",
        ready_us / 1000,
        manager_us / 1000,
        online_us / 1000
    );
    ensure!(
        ready_us < manager_us,
        "{manager:?} began before Tandem was ready"
    );
    ensure!(
        ready_us < online_us,
        "the network was online before Tandem was ready"
    );
    let restarts = systemd::property(vm, UNIT, "NRestarts")?;
    ensure!(
        restarts == "0",
        "the service was restarted {restarts} times"
    );
    Ok(())
}

/// The VF carries the traffic under the name that udev gave it.
fn takes_the_vf_by_its_mac(guest: &Guest, mac: Mac) -> Result<()> {
    let journal = || systemd::journal(&guest.vm, UNIT).unwrap_or_default();
    let status = guest
        .channel()?
        .await_status(&format!("accelerated by {mac}"), STEP_LIMIT, |status| {
            status.bonds.first().is_some_and(|bond| {
                let vf_mac = bond.vf.as_ref().and_then(|vf| vf.mac);
                bond.state == BondState::Accelerated && vf_mac == Some(mac)
            })
        })
        .with_context(journal)?;
    let vf = status.bonds[0].vf.as_ref().context("no VF")?;
    // Asked of the kernel itself: while journald moves its files to the disk, journalctl may find none.
    let kernel = guest.vm.sh("dmesg")?;
    ensure!(
        kernel.contains(&format!("{}: renamed from eth", vf.name)),
        "udev did not rename the VF {}:\n{kernel}",
        vf.name
    );
    guest.check().with_context(journal)
}

/// `tandem check` finds all of it, as it was installed.
fn lacks_nothing(guest: &Guest) -> Result<()> {
    let output = guest.tandem(&["check"])?;
    ensure!(
        output.success() && output.text().contains("the running service"),
        "`tandem check` ended with {:?}:\n{}",
        output.exit,
        output.text()
    );
    Ok(())
}

fn network_manager_keeps_off(guest: &Guest, ports: &[Mac]) -> Result<()> {
    let vm = &guest.vm;
    let devices = vm.sh("nmcli -t -f DEVICE,STATE device")?;
    let mut names = vec![BOND.to_owned()];
    for mac in ports {
        names.push(guest.vm.wait_interface(*mac, STEP_LIMIT)?);
    }
    for name in &names {
        ensure!(
            devices
                .lines()
                .any(|line| line == format!("{name}:unmanaged")),
            "{name} is not unmanaged:\n{devices}"
        );
    }
    no_addresses(guest, &names[1..])?;
    let connections = vm.sh("nmcli -t -f NAME,DEVICE connection")?;
    for name in &names {
        ensure!(
            !connections
                .lines()
                .any(|line| line.ends_with(&format!(":{name}"))),
            "NetworkManager has a connection for {name}:\n{connections}"
        );
    }
    Ok(())
}

/// NetworkManager is awake: a NIC that is not Tandem's gets a connection at once.
fn network_manager_takes_a_stranger(guest: &mut Guest) -> Result<()> {
    let connections = guest.vm.sh("nmcli -t -f NAME connection")?;
    ensure!(!connections.contains("Wired connection"), "{connections}");
    plug_stranger(guest)?;
    guest.vm.wait_sh(
        "nmcli -t -f NAME connection | grep 'Wired connection'",
        STEP_LIMIT,
    )?;
    guest.vm.unplug("stranger")?;
    Ok(())
}

fn networkd_keeps_off(guest: &Guest, ports: &[Mac]) -> Result<()> {
    let vm = &guest.vm;
    let mut names = Vec::new();
    for mac in ports {
        names.push(guest.vm.wait_interface(*mac, STEP_LIMIT)?);
    }
    for name in &names {
        let shown = vm.sh(&format!("networkctl --no-pager --no-legend list {name}"))?;
        ensure!(shown.ends_with("unmanaged"), "{name} is managed: {shown}");
    }
    no_addresses(guest, &names)?;
    let bond = vm.sh(&format!("networkctl --no-pager --no-legend list {BOND}"))?;
    ensure!(
        bond.ends_with("configured"),
        "networkd does not configure the bond: {bond}"
    );
    Ok(())
}

/// networkd is awake: `Name=en*` fits a NIC that is not Tandem's.
fn networkd_takes_a_stranger(guest: &mut Guest) -> Result<()> {
    plug_stranger(guest)?;
    systemd::eventually("networkd takes the stranger", STEP_LIMIT, || {
        // udev renames it in between, so its name is asked for each time.
        let Some(name) = guest.vm.find_interface(STRANGER)? else {
            return Ok(Err("the stranger is not there".to_owned()));
        };
        let list = ["networkctl", "--no-pager", "--no-legend", "list", &name];
        let shown = guest.vm.run(&list, STEP_LIMIT)?.text();
        let taken = shown.ends_with("configuring") || shown.ends_with("configured");
        Ok(taken.then_some(()).ok_or(shown))
    })?;
    guest.vm.unplug("stranger")?;
    Ok(())
}

fn plug_stranger(guest: &mut Guest) -> Result<()> {
    guest.vm.plug(Nic {
        id: "stranger".to_owned(),
        model: NicModel::E1000e,
        mac: STRANGER,
        slot: Slot::RootPort(3),
        properties: Vec::new(),
    })
}

fn no_addresses(guest: &Guest, names: &[String]) -> Result<()> {
    for name in names {
        let addresses = guest.vm.sh(&format!("ip -o address show dev {name}"))?;
        ensure!(addresses.is_empty(), "{name} has addresses:\n{addresses}");
    }
    Ok(())
}

/// A changed file takes effect without a new process; a wrong one changes nothing.
fn reloads(guest: &Guest, setup: &Setup) -> Result<()> {
    let vm = &guest.vm;
    let pid = systemd::property(vm, UNIT, "MainPID")?;
    let config = setup.config();
    vm.write_file(CONFIG, format!("{config}nonsense = 1\n").as_bytes(), false)?;
    vm.sh(&format!("systemctl reload {UNIT}"))?;
    // `systemctl status` and `tandem status` say where it is wrong, until it is mended.
    awaits_status_text(guest, "what was refused", |text| {
        [CONFIG, "nonsense", &format!("{BOND}: VF")]
            .iter()
            .all(|part| text.contains(part))
    })?;
    let problems = guest.status()?.problems;
    ensure!(
        problems
            .iter()
            .any(|one| one.code == ProblemCode::ConfigurationRefused),
        "the refused reload is not in the status: {problems:?}"
    );
    vm.write_file(CONFIG, config.as_bytes(), false)?;
    vm.sh(&format!("systemctl reload {UNIT}"))?;
    let read = format!("journalctl --no-pager -b -u {UNIT} | grep -F 'configuration read anew'");
    vm.wait_sh(&read, STEP_LIMIT)?;
    awaits_status_text(guest, "the bond alone", |text| {
        text.starts_with(&format!("{BOND}: VF"))
    })?;
    ensure!(guest.status()?.problems.is_empty(), "after a good reload");
    let state = systemd::properties(vm, UNIT, &["ActiveState", "MainPID"])?;
    ensure!(
        state["ActiveState"] == "active",
        "after a reload: {state:?}"
    );
    ensure!(state["MainPID"] == pid, "a reload made a new process");
    guest.check()
}

/// What the service tells systemd of itself, as `systemctl status` shows it.
fn awaits_status_text(guest: &Guest, what: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
    systemd::eventually(what, STEP_LIMIT, || {
        let text = systemd::property(&guest.vm, UNIT, "StatusText")?;
        Ok(if wanted(&text) { Ok(()) } else { Err(text) })
    })
}

/// systemd's watchdog is armed and hears from the service.
fn feeds_the_watchdog(guest: &Guest) -> Result<()> {
    let watchdog = || {
        systemd::properties(
            &guest.vm,
            UNIT,
            &["WatchdogUSec", "WatchdogTimestampMonotonic"],
        )
    };
    let before = watchdog()?;
    ensure!(before["WatchdogUSec"] == "30s", "{before:?}");
    systemd::eventually("a sign of life", STEP_LIMIT, || {
        let now = watchdog()?;
        let heard = now["WatchdogTimestampMonotonic"] != before["WatchdogTimestampMonotonic"];
        Ok(heard.then_some(()).ok_or_else(|| format!("{now:?}")))
    })
}

/// A crash costs nothing but the time until systemd starts the service again.
fn comes_back_after_a_kill(guest: &Guest) -> Result<()> {
    let vm = &guest.vm;
    let bond = || {
        vm.sh(&format!(
            "cd /sys/class/net/{BOND}; cat ifindex carrier_changes bonding/active_slave bonding/slaves"
        ))
    };
    let before = bond()?;
    let pid = systemd::property(vm, UNIT, "MainPID")?;
    vm.sh(&format!("systemctl kill --signal=KILL {UNIT}"))?;
    vm.sh(&format!("ping -c 1 -W 10 {CLIENT_V4}"))?;
    systemd::eventually("the service is back", STEP_LIMIT, || {
        let now = systemd::properties(vm, UNIT, &["MainPID", "NRestarts", "ActiveState"])?;
        let back =
            now["ActiveState"] == "active" && now["MainPID"] != pid && now["NRestarts"] == "1";
        Ok(back.then_some(()).ok_or_else(|| format!("{now:?}")))
    })?;
    guest.reach(BondState::Accelerated)?;
    let after = bond()?;
    ensure!(before == after, "the bond was\n{before}\nand is\n{after}");
    Ok(())
}

fn leaves_the_bond_when_stopped(guest: &Guest) -> Result<()> {
    let vm = &guest.vm;
    vm.sh(&format!("systemctl stop {UNIT}"))?;
    let state = systemd::properties(vm, UNIT, &["ActiveState", "Result"])?;
    ensure!(
        state["ActiveState"] == "inactive" && state["Result"] == "success",
        "after a stop: {state:?}"
    );
    let active = vm.sh(&format!("cat /sys/class/net/{BOND}/bonding/active_slave"))?;
    ensure!(
        !active.is_empty(),
        "the bond has no active port after a stop"
    );
    vm.sh(&format!("ping -c 1 -W 10 {CLIENT_V4}"))?;
    vm.sh(&format!("systemctl start {UNIT}"))?;
    guest.reach(BondState::Accelerated)?;
    let journal = systemd::journal(vm, UNIT)?;
    ensure!(
        journal.contains("stopped on request"),
        "the journal does not have the service's own words:\n{journal}"
    );
    Ok(())
}
