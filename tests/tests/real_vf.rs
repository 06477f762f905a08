//! VFs that are real ones (`igbvf`, made by the SR-IOV of an igb NIC in the guest) and what VFs refuse:
//! the bond's MAC, its MTU. And an upper device of the bond: a VLAN.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tandem_core::Status;
use tandem_core::status::{BondState, Held, ProblemCode, Traffic};
use tandem_lab::net::GUEST_V4;
use tandem_lab::tandem::{BOND, CONFIG, Guest, PROGRAM, STEP_LIMIT, Setup, binary};
use tandem_lab::{Lab, Mac, NicModel, test_mac};

/// The MAC of the NIC whose function the VF is; no configuration names it.
const PF: Mac = test_mac(50);
/// The service's first wait after a VF was refused; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// How the kernel says that a VF's PF does not let it have a MAC (`igbvf_set_mac`, 6.12).
const NO_SUCH_MAC: &str = "Cannot assign requested address (EADDRNOTAVAIL)";

/// A guest with the service's program and a PF, its VF not made yet.
fn guest_with_pf(lab: &Lab, setup: &Setup) -> Result<Guest> {
    let vm = lab
        .small_guest()
        .kernel(setup.kernel)
        .standby(setup.standby)
        .vf(NicModel::Igb, PF)
        .program(&binary()?, PROGRAM)
        .text(CONFIG, &setup.config())
        .boot(&lab.host("a")?)?;
    let guest = Guest::new(vm, setup.standby);
    guest.put_addresses_on_standby()?;
    Ok(guest)
}

/// Makes a VF with a MAC that its PF's driver lets nobody change, as a host does. Gives the PF's name.
fn make_vf(guest: &Guest, mac: Mac) -> Result<String> {
    let pf = guest.vm.find_interface(PF)?.context("there is no PF")?;
    // No guest sees its PF: this one must not answer ARP in the bond's place. The VF learns its MAC when
    // its driver starts, so the PF's driver has to know it before.
    let steps = [
        format!("ip link set {pf} arp off up"),
        format!("echo 0 >/sys/class/net/{pf}/device/sriov_drivers_autoprobe"),
        format!("echo 1 >/sys/class/net/{pf}/device/sriov_numvfs"),
        format!("ip link set {pf} vf 0 mac {mac}"),
        format!("echo 1 >/sys/class/net/{pf}/device/sriov_drivers_autoprobe"),
        format!(
            "basename $(readlink /sys/class/net/{pf}/device/virtfn0) >/sys/bus/pci/drivers/igbvf/bind"
        ),
    ];
    for step in steps {
        guest
            .vm
            .sh(&step)
            .with_context(|| guest.vm.sh("dmesg | tail -n 20").unwrap_or_default())?;
    }
    Ok(pf)
}

#[test]
fn a_vf_that_may_not_change_its_mac() {
    let Some(lab) = Lab::for_test("refused MAC") else {
        return;
    };
    refused_mac(&lab).unwrap();
}

fn refused_mac(lab: &Lab) -> Result<()> {
    let mut setup = Setup::new()?;
    let mut guest = guest_with_pf(lab, &setup)?;
    let client = lab.client()?;
    let pf = make_vf(&guest, setup.vf)?;
    let vf = guest.vm.wait_interface(setup.vf, STEP_LIMIT)?;
    let driver = format!("readlink /sys/class/net/{vf}/device/driver");
    let driver = guest.vm.sh(&driver)?;
    ensure!(driver.trim().ends_with("/igbvf"), "{vf} is a {driver}");

    // The standby's MAC for both: the VF stays out, and the operator learns why and what to do.
    guest.start(&[])?;
    let started = uptime(&guest)?;
    let mut channel = guest.channel()?;
    let status = channel.await_status("MAC refused", STEP_LIMIT, |status| {
        problem(status, ProblemCode::MacRefused).is_some()
    })?;
    drop(channel);
    let (message, remedy) = problem(&status, ProblemCode::MacRefused).context("checked")?;
    ensure!(
        message == format!("could not make {vf} a port of {BOND}: {NO_SUCH_MAC}"),
        "not in one clear sentence: {message}"
    );
    ensure!(remedy.contains("mac = \"follow\""), "no help: {remedy}");

    // It is tried again, ever more rarely.
    let refusals =
        format!("dmesg | grep '{BOND}: (slave {vf}): Error -.* calling set_mac_address'");
    let thrice = format!("[ $({refusals} | wc -l) -ge 3 ]");
    guest.vm.wait_sh(&thrice, STEP_LIMIT)?;
    let tries = guest.vm.sh(&refusals)?.lines().count();
    let elapsed = uptime(&guest)?.saturating_sub(started);
    let waits = elapsed.as_millis() / FIRST_WAIT.as_millis() + 1;
    let most = 2 + usize::try_from(waits.ilog2())?;
    ensure!(tries <= most, "{tries} tries in {elapsed:?}: a busy loop");
    guest.check()?;
    let bond = guest.status()?.bonds.remove(0);
    ensure!(bond.traffic == Traffic::Standby, "{:?}", bond.traffic);
    let port = bond.vf.context("the VF is there")?;
    ensure!(
        !port.enslaved && port.held == Some(Held::Refused),
        "it should be held back: {port:?}"
    );
    eprintln!("{tries} tries in {elapsed:?}; {message}");

    // What the remedy says: the bond follows its port's MAC, and is made anew.
    setup.bond_lines.push("mac = \"follow\"".to_owned());
    guest.kill_service()?;
    guest.vm.sh(&format!("ip link del {BOND}"))?;
    guest
        .vm
        .write_file(CONFIG, setup.config().as_bytes(), false)?;
    guest.put_addresses_on_standby()?;
    guest.start(&[])?;
    guest.await_state(&mut guest.channel()?, BondState::Accelerated)?;
    guest.check()?;
    let neighbour = || {
        client
            .namespace()
            .ip(&["neigh", "show", &GUEST_V4.to_string()])
    };
    let known = neighbour()?;
    ensure!(
        known.contains(&setup.vf.to_string()),
        "the client sends to {known}, not to the VF {}",
        setup.vf
    );

    // Surprise removal: it was the PF's driver that took the VF away.
    guest
        .vm
        .sh(&format!("echo 0 >/sys/class/net/{pf}/device/sriov_numvfs"))?;
    guest.await_state(&mut guest.channel()?, BondState::Standby)?;
    guest.check()?;
    let known = neighbour()?;
    ensure!(
        known.contains(&setup.standby.to_string()),
        "the client sends to {known}, not to the standby {}",
        setup.standby
    );
    Ok(())
}

#[test]
fn a_vf_whose_driver_rewrites_its_permanent_mac() {
    let Some(lab) = Lab::for_test("rewritten MAC") else {
        return;
    };
    rewritten_mac(&lab).unwrap();
}

fn rewritten_mac(lab: &Lab) -> Result<()> {
    let setup = Setup::new()?;
    let mut guest = guest_with_pf(lab, &setup)?;
    lab.client()?;
    let pf = make_vf(&guest, setup.vf)?;
    guest.vm.sh(&format!("ip link set {pf} vf 0 trust on"))?;
    let vf = guest.vm.wait_interface(setup.vf, STEP_LIMIT)?;
    guest.start(&[])?;
    in_use(&guest, &setup)?;

    one(&guest, &["prepare-unplug"])?;
    let port = guest.status()?.bonds.remove(0).vf.context("it is there")?;
    ensure!(
        !port.enslaved && port.held == Some(Held::UnplugPrepared),
        "not prepared: {port:?}"
    );
    // Without this the driver does not do what all this is about.
    let shown = guest.vm.sh(&format!("ip -d link show {vf}"))?;
    ensure!(
        shown.contains(&format!("permaddr {}", setup.standby)),
        "its permanent MAC is still its own: {shown}"
    );
    one(&guest, &["resume"])?;
    in_use(&guest, &setup).context("after prepare and resume")?;

    guest.vm.sh(&format!("ip link set {BOND} mtu 1400"))?;
    let mtu = format!("[ $(cat /sys/class/net/{vf}/mtu) = 1400 ]");
    guest.vm.wait_sh(&mtu, STEP_LIMIT)?;
    in_use(&guest, &setup).context("with another MTU")?;

    guest.reload()?;
    in_use(&guest, &setup).context("after a reload")?;

    guest.kill_service()?;
    guest.start(&[])?;
    in_use(&guest, &setup).context("after a restart")?;

    one(&guest, &["prepare-unplug"])?;
    guest.kill_service()?;
    guest.start(&[])?;
    guest.reach(BondState::Standby)?;
    one(&guest, &["resume"])?;
    in_use(&guest, &setup).context("prepared, restarted, resumed")
}

fn one(guest: &Guest, arguments: &[&str]) -> Result<()> {
    let output = guest.tandem(arguments)?;
    ensure!(
        output.success(),
        "{arguments:?}: {}{}",
        output.text(),
        output.error_text()
    );
    Ok(())
}

/// The VF carries the traffic and is known by its own MAC, and nothing is wrong.
fn in_use(guest: &Guest, setup: &Setup) -> Result<()> {
    guest.reach(BondState::Accelerated)?;
    let bond = guest.status()?.bonds.remove(0);
    let port = bond.vf.context("there is a VF")?;
    ensure!(port.mac == Some(setup.vf), "the VF is {port:?}");
    ensure!(bond.problems.is_empty(), "{:?}", bond.problems);
    Ok(())
}

#[test]
fn mtus_and_a_vlan() {
    let Some(lab) = Lab::for_test("MTU and VLAN") else {
        return;
    };
    mtus_and_vlan(&lab).unwrap();
}

fn mtus_and_vlan(lab: &Lab) -> Result<()> {
    // More than the VF takes (e1000e: 9212 bytes), not more than the standby does.
    let mut setup = Setup::new()?;
    setup.model = NicModel::E1000e;
    setup.bond_lines = vec!["mtu = 9500".to_owned()];
    lab.client()?;
    let mut guest = setup.boot(lab, &lab.host("a")?)?;
    let mut channel = guest.channel()?;
    let status = channel.await_status("MTU refused", STEP_LIMIT, |status| {
        problem(status, ProblemCode::MtuRefused).is_some()
            && status.bonds[0].traffic == Traffic::Standby
    })?;
    drop(channel);
    let (message, remedy) = problem(&status, ProblemCode::MtuRefused).context("checked")?;
    ensure!(message.contains("9500"), "no figure: {message}");
    ensure!(remedy.contains("lower `mtu`"), "no help: {remedy}");
    guest.check()?;

    setup.bond_lines = vec!["mtu = 1400".to_owned()];
    guest
        .vm
        .write_file(CONFIG, setup.config().as_bytes(), false)?;
    guest.reload()?;
    guest.await_state(&mut guest.channel()?, BondState::Accelerated)?;
    guest.check()?;
    let vf = guest.vm.wait_interface(setup.vf, STEP_LIMIT)?;
    let standby = guest.vm.wait_interface(setup.standby, STEP_LIMIT)?;
    let mtus = format!("cd /sys/class/net && cat {BOND}/mtu {standby}/mtu {vf}/mtu");
    let found = guest.vm.sh(&mtus)?;
    ensure!(found == "1400\n1400\n1400", "the MTUs are {found:?}");
    // Changed by hand, it is set right again, on the ports too.
    guest.vm.sh(&format!("ip link set {BOND} mtu 1450"))?;
    let right = format!("[ \"$({mtus} | uniq)\" = 1400 ]");
    guest.vm.wait_sh(&right, STEP_LIMIT)?;
    guest.check()?;
    vlan(lab, &setup, &mut guest)
}

/// A VLAN on the bond keeps its address and its peers through failover and failback. The peer is a guest
/// too: not every kernel that the lab runs on knows VLANs.
fn vlan(lab: &Lab, setup: &Setup, guest: &mut Guest) -> Result<()> {
    let peer_mac = test_mac(60);
    let peer = lab
        .small_guest()
        .kernel(setup.kernel)
        .standby(peer_mac)
        .without_channel()
        .cpus(1)
        .memory_mib(256)
        .boot(&lab.host("b")?)?;
    let lower = peer.wait_interface(peer_mac, STEP_LIMIT)?;
    // arp_accept: an announcement makes an entry in its table.
    peer.sh(&format!(
        "modprobe 8021q && ip link set {lower} up && \
         ip link add link {lower} name vlan5 type vlan id 5 && \
         echo 1 >/proc/sys/net/ipv6/conf/vlan5/disable_ipv6 && \
         echo 1 >/proc/sys/net/ipv4/conf/vlan5/arp_accept && \
         ip address add 10.78.5.1/24 dev vlan5 && ip link set vlan5 up"
    ))?;
    guest.vm.sh(&format!(
        "modprobe 8021q && ip link add link {BOND} name {BOND}.5 type vlan id 5 && \
         echo 1 >/proc/sys/net/ipv6/conf/{BOND}.5/disable_ipv6 && \
         ip address add 10.78.5.2/24 dev {BOND}.5 && ip link set {BOND}.5 up"
    ))?;
    guest.vm.sh("ping -c 1 -W 10 10.78.5.1")?;
    for state in [BondState::Standby, BondState::Accelerated] {
        // With both tables empty only an announcement can tell the peer of the guest.
        guest.vm.sh(&format!("ip neigh flush dev {BOND}.5"))?;
        peer.sh("ip neigh flush dev vlan5")?;
        if state == BondState::Standby {
            guest.vm.unplug_vf()?;
        } else {
            guest.vm.plug_vf(setup.model, setup.vf)?;
        }
        guest.await_state(&mut guest.channel()?, state)?;
        peer.wait_sh(
            &format!(
                "ip neigh show 10.78.5.2 dev vlan5 | grep -q {}",
                setup.standby
            ),
            STEP_LIMIT,
        )
        .with_context(|| format!("the VLAN was not announced: {state:?}"))?;
        let address = guest
            .vm
            .sh(&format!("ip -o address show dev {BOND}.5 up"))?;
        ensure!(address.contains("10.78.5.2/24"), "the VLAN has {address:?}");
        guest.vm.sh("ping -c 1 -W 10 10.78.5.1")?;
        peer.sh("ping -c 1 -W 10 10.78.5.2")?;
        guest.check()?;
    }
    Ok(())
}

/// How long the guest has been running.
fn uptime(guest: &Guest) -> Result<Duration> {
    let text = guest.vm.sh("cut -d ' ' -f 1 /proc/uptime")?;
    Ok(Duration::from_secs_f64(text.trim().parse()?))
}

/// The message of a problem and its remedy, if the first bond has it.
fn problem(status: &Status, code: ProblemCode) -> Option<(&str, &str)> {
    let problems = &status.bonds.first()?.problems;
    let problem = problems.iter().find(|problem| problem.code == code)?;
    Some((&problem.message, &problem.remedy))
}
