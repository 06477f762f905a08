//! Day one on a guest as clouds ship it: Debian 13 with cloud-init, netplan, systemd-networkd and resolved, a `NoCloud`
//! seed, and DHCPv4, DHCPv6, router advertisements and DNS from outside. Tandem comes with the seed, or was there before
//! the first boot; the network is as without it each time, and nothing waits in vain.

use anyhow::{Context, Result, ensure};
use tandem_lab::Lab;
use tandem_lab::addressing::{Machine, said};
use tandem_lab::artifacts::packages;
use tandem_lab::dhcp::Lease;
use tandem_lab::full_guest::{Flavor, Manager, systemd};
use tandem_lab::tandem::{BOND, CONFIG, Guest, STEP_LIMIT, Setup};

/// The standby's name, by the seed.
const STANDBY: &str = "eth0";
const WORDS: &str = "systemd-networkd, as 10-netplan-eth0.network";
const WAIT_ONLINE: &str = "systemd-networkd-wait-online.service";
const NETPLAN: &str = "/etc/netplan/50-cloud-init.yaml";
const DEB: &str = "/var/lib/lab/tandem.deb";
/// Another address that somebody adds to the standby's.
const ADDED: &str = "10.77.0.240";

/// cloud-init finds its seed here, and does only what this is about. It would write for ifupdown, which clouds' images
/// lack.
fn seed(setup: &Setup, user_data: &str) -> Vec<(String, String)> {
    let folder = "/var/lib/cloud/seed/nocloud";
    let network = format!(
        "version: 2\nethernets:\n  {STANDBY}:\n    match: {{macaddress: \"{}\"}}\n    set-name: {STANDBY}\n    \
         dhcp4: true\n    dhcp6: true\n",
        setup.standby
    );
    let modules = "datasource_list: [NoCloud]\nsystem_info: {network: {renderers: [netplan]}}\n\
                   cloud_init_modules: [write_files]\ncloud_config_modules: [runcmd]\n\
                   cloud_final_modules: [scripts_user]\n";
    [
        (format!("{folder}/meta-data"), "instance-id: lab-1\n"),
        (format!("{folder}/network-config"), &network),
        (format!("{folder}/user-data"), user_data),
        ("/etc/cloud/cloud.cfg.d/99-lab.cfg".to_owned(), modules),
    ]
    .map(|(path, text)| (path, text.to_owned()))
    .into()
}

#[test]
fn a_guest_of_a_cloud_has_its_network_from_the_first_boot_on() {
    let Some(lab) = Lab::for_test("first boot") else {
        return;
    };
    let story = || -> Result<()> {
        let machine = Machine::new(&lab, Manager::Networkd)?
            .flavor(Flavor::Stock)
            .without_tandem()
            .copy(&packages::deb("tandem")?, DEB);
        let plain = the_seed_installs_it(&machine)?;
        let machine = machine.with_empty_disk()?.with_tandem();
        it_was_there_before(&machine, &plain)
    };
    story().unwrap();
}

/// The commands of README.md, as cloud-init's `runcmd`, and a restart.
fn the_seed_installs_it(machine: &Machine<'_>) -> Result<Lease> {
    let files = seed(
        &machine.setup,
        &format!(
            "#cloud-config\nruncmd:\n- [apt-get, install, -y, {DEB}]\n- [tandem, setup, --write]\n"
        ),
    );
    let guest = machine.boot(&files)?;
    let plain = machine.lease()?;
    let installs = || -> Result<()> {
        has_ended_well(&guest)?;
        guest.vm.sh(&format!("test -s {CONFIG}"))?;
        machine.has_network(&guest, STANDBY, &plain.address)
    };
    installs()
        .context("the first boot, whose seed installs Tandem")
        .with_context(|| said(&guest))?;
    guest.vm.sh("sync")?;
    drop(guest);
    let guest = machine.boot(&[])?;
    is_as_without_tandem(machine, &guest, &plain).context("the next boot")?;
    netplan_applies(machine, &guest, &plain).with_context(|| said(&guest))?;
    Ok(plain)
}

/// An image with Tandem in it becomes an instance.
fn it_was_there_before(machine: &Machine<'_>, plain: &Lease) -> Result<()> {
    let guest = machine.boot(&seed(&machine.setup, "#cloud-config\n{}\n"))?;
    is_as_without_tandem(machine, &guest, plain).context("the first boot of an image with it")?;
    guest.vm.sh("sync")?;
    drop(guest);
    let guest = machine.boot(&[])?;
    is_as_without_tandem(machine, &guest, plain).context("the boot after that")
}

fn is_as_without_tandem(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    let story = || -> Result<()> {
        has_ended_well(guest)?;
        machine.is_as_without_tandem(guest, plain, WORDS)?;
        let waited = systemd::properties(&guest.vm, WAIT_ONLINE, &["Result", "ActiveState"])?;
        ensure!(
            waited["Result"] == "success" && waited["ActiveState"] == "active",
            "{WAIT_ONLINE}: {waited:?}"
        );
        let check = guest.tandem(&["check"])?;
        ensure!(check.success(), "`tandem check`: {}", check.text());
        Ok(())
    };
    story().with_context(|| said(guest))
}

/// cloud-init is done, and complains of nothing.
fn has_ended_well(guest: &Guest) -> Result<()> {
    let result = guest.vm.sh("cat /run/cloud-init/result.json")?;
    let result: serde_json::Value = serde_json::from_str(&result)?;
    let errors = result["v1"]["errors"].as_array();
    ensure!(
        errors.is_some_and(Vec::is_empty),
        "cloud-init: {result}\n{}",
        guest.vm.sh("tail -n 99 /var/log/cloud-init-output.log")?
    );
    Ok(())
}

/// With the same file, with another one, and with the first again: the bond follows each time.
fn netplan_applies(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    let apply = || guest.vm.sh("netplan apply 2>&1");
    eprintln!("{}", apply()?);
    machine.is_as_without_tandem(guest, plain, WORDS)?;

    guest.vm.sh(&format!(
        "cp -p {NETPLAN} {NETPLAN}.aside && sed -i 's|^\\( *\\)dhcp4: true|&\\n\\1addresses: [{ADDED}/24]|' {NETPLAN}"
    ))?;
    let said = apply()?;
    let shown = format!("ip -o -4 address show dev {BOND} | grep ' {ADDED}/'");
    guest
        .vm
        .wait_sh(&shown, STEP_LIMIT)
        .with_context(|| format!("`netplan apply` with another address: {said}"))?;
    guest.vm.sh(&format!("mv {NETPLAN}.aside {NETPLAN}"))?;
    apply()?;
    guest.vm.wait_sh(&format!("! {shown}"), STEP_LIMIT)?;
    machine.is_as_without_tandem(guest, plain, WORDS)
}
