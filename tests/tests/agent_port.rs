//! The channel over a real virtio-serial port: a host that configures the guest.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tandem_core::policy::Origin;
use tandem_core::status::BondState;
use tandem_lab::Lab;
use tandem_lab::net::{GUEST_V4, GUEST_V6};
use tandem_lab::tandem::{BOND, CONFIG, Channel, Guest, STEP_LIMIT, Setup};

#[test]
fn the_host_configures_a_guest_that_has_no_file() {
    let Some(lab) = Lab::for_test("host config") else {
        return;
    };
    configured_by_host(&lab).unwrap();
}

fn configured_by_host(lab: &Lab) -> Result<()> {
    lab.client()?;
    let setup = Setup::new()?;
    let vm = setup.guest(lab)?.boot(&lab.host("a")?)?;
    vm.sh(&format!("rm {CONFIG}"))?;
    let mut guest = Guest::new(vm, setup.standby);
    guest.start(&[])?;
    let mut channel = guest.channel()?;
    let status = channel.status(STEP_LIMIT)?;
    ensure!(
        status.policy == Origin::None && status.bonds.is_empty(),
        "there are bonds that nobody configured: {status:#?}"
    );

    let mut wrong = policy(&setup);
    wrong["bonds"][0]["vfs"][0] = wrong["bonds"][0]["standby"].clone();
    refused(&mut channel, wrong, "invalid")?;

    let answer = channel.call("tandem-configure", policy(&setup), STEP_LIMIT)?;
    ensure!(
        answer == json!({ "bonds": [BOND], "changed": true }),
        "the guest answers {answer}"
    );
    by_host(&guest, &mut channel)?;
    let answer = channel.call("tandem-configure", policy(&setup), STEP_LIMIT)?;
    ensure!(
        answer["changed"] == json!(false),
        "the same again: {answer}"
    );
    drop(channel);

    // A restart of the service finds it again.
    guest.kill_service()?;
    guest.vm.sh("test -s /run/tandem/host-policy.json")?;
    guest.start(&[])?;
    by_host(&guest, &mut guest.channel()?)?;

    // The guest's administrator has the last word.
    guest.kill_service()?;
    guest
        .vm
        .write_file(CONFIG, b"accept-host-config = false\n", false)?;
    guest.start(&[])?;
    let mut channel = guest.channel()?;
    refused(&mut channel, policy(&setup), "not-allowed")?;
    let status = channel.status(STEP_LIMIT)?;
    ensure!(
        status.policy == Origin::None && status.bonds.is_empty(),
        "the host's bonds are used though that is forbidden: {status:#?}"
    );
    // What is there stays as it is.
    guest.vm.sh("ping -c 1 -W 10 10.77.0.1")?;

    // And the guest's own files come before the host.
    guest
        .vm
        .write_file(CONFIG, setup.config().as_bytes(), false)?;
    guest.signal(1)?;
    guest.await_state(&mut channel, BondState::Accelerated)?;
    refused(&mut channel, policy(&setup), "defined-by-file")?;
    let status = channel.status(STEP_LIMIT)?;
    ensure!(
        status.policy == Origin::File,
        "configured by {:?}",
        status.policy
    );
    guest.check()
}

/// The guest's network as the host describes it, addresses included.
fn policy(setup: &Setup) -> Value {
    json!({ "bonds": [{
        "name": BOND,
        "standby": { "mac": setup.standby.to_string() },
        "vfs": [{ "mac": setup.vf.to_string() }],
        "addressing": { "static": { "addresses": [
            { "ip": GUEST_V4, "prefix": 24 },
            { "ip": GUEST_V6, "prefix": 64 },
        ] } },
    }] })
}

fn refused(channel: &mut Channel, policy: Value, code: &str) -> Result<()> {
    let answer = channel.raw_call("tandem-configure", policy, STEP_LIMIT)?;
    ensure!(
        answer["error"]["code"] == json!(code) && answer["error"]["desc"].is_string(),
        "not refused as {code}: {answer}"
    );
    Ok(())
}

/// The host's policy is in effect: VF in use, the host's addresses on the bond and in use.
fn by_host(guest: &Guest, channel: &mut Channel) -> Result<()> {
    let status = guest.await_state(channel, BondState::Accelerated)?;
    ensure!(
        status.policy == Origin::Host,
        "configured by {:?}",
        status.policy
    );
    channel.await_status("with both addresses", STEP_LIMIT, |status| {
        status.bonds[0].addresses.len() >= 2
    })?;
    // Duplicate address detection takes the kernel about a second.
    guest.vm.wait_sh(
        &format!("test -z \"$(ip -6 address show tentative dev {BOND} scope global)\""),
        STEP_LIMIT,
    )?;
    guest.check()
}
