//! Faults of the service and of the NICs, each followed by the same check.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tandem_core::status::{BondState, Held, ProblemCode};
use tandem_lab::net::{CLIENT_V4, GUEST_V4, GUEST_V6};
use tandem_lab::tandem::switchover::{is_armed, is_measured};
use tandem_lab::tandem::{BOND, CONFIG, Guest, STEP_LIMIT, Setup};
use tandem_lab::{Kernel, Lab, Mac, NicModel};

/// Unplugs and re-plugs in a row.
const ROUNDS: u32 = 50;
/// The round after which everything has been used once: what the service holds then it may hold at the end.
const SETTLED: u32 = 5;
/// By how much its resident memory may have grown then, in KiB: 45 VFs that left anything to speak of would show.
const MAX_GROWTH_KIB: u64 = 512;
/// Descriptors that may still be open for the look itself: its connection to the service, and what the last
/// switchover needed, which is closed within the same turn or the next.
const MAX_PASSING_DESCRIPTORS: u64 = 8;

/// Boots the guest of the set-up and waits until its VF carries the traffic.
fn accelerated(lab: &Lab, setup: &Setup) -> Result<Guest> {
    let guest = setup.boot(lab, &lab.host("a")?)?;
    guest.await_state(&mut guest.channel()?, BondState::Accelerated)?;
    guest.check()?;
    Ok(guest)
}

fn restart(guest: &mut Guest, state: BondState) -> Result<()> {
    guest.start(&[])?;
    guest.reach(state)
}

fn prepare(guest: &Guest) -> Result<()> {
    let answer = guest
        .channel()?
        .call("tandem-prepare-unplug", json!({}), STEP_LIMIT)?;
    ensure!(answer["ready"] == json!(true), "not ready: {answer}");
    Ok(())
}

#[test]
fn the_service_may_be_killed_in_every_phase() {
    let Some(lab) = Lab::for_test("killed") else {
        return;
    };
    killed_in_every_phase(&lab).unwrap();
}

fn killed_in_every_phase(lab: &Lab) -> Result<()> {
    let setup = Setup::new()?;
    let other_vf = setup.later_vfs[0];
    let mut guest = accelerated(lab, &setup)?;

    // At rest: the bond goes on without the service, and is found as it was.
    guest.kill_service()?;
    guest.vm.sh(&format!("ping -c 1 -W 10 {CLIENT_V4}"))?;
    restart(&mut guest, BondState::Accelerated)?;
    ensure!(
        guest.status()?.bonds[0].switchover_count == 0,
        "the restart moved the traffic"
    );

    // As prepare arrives, so before it, in its middle or after it: the host asks again.
    let mut channel = guest.channel()?;
    channel.send_bytes(b"{\"execute\":\"tandem-prepare-unplug\"}\n")?;
    guest.kill_service()?;
    drop(channel);
    guest.start(&[])?;
    prepare(&guest)?;
    guest.reach(BondState::Standby)?;

    // Prepared: the promise not to take the VF outlives the service.
    guest.kill_service()?;
    restart(&mut guest, BondState::Standby)?;
    let vf = guest.status()?.bonds[0]
        .vf
        .clone()
        .context("the VF is still plugged in")?;
    ensure!(
        vf.held == Some(Held::UnplugPrepared),
        "the VF was taken again: {vf:?}"
    );

    // Unplug without the service, migration without the service.
    guest.kill_service()?;
    guest.vm.unplug_vf()?;
    guest.vm.migrate_to(&lab.host("b")?)?;
    restart(&mut guest, BondState::Standby)?;

    // Plug without the service.
    guest.kill_service()?;
    guest.vm.plug_vf(setup.model, other_vf)?;
    restart(&mut guest, BondState::Accelerated)?;

    // In the middle of failback.
    guest.vm.unplug_vf()?;
    guest.reach(BondState::Standby)?;
    guest.vm.plug_vf(setup.model, other_vf)?;
    guest
        .channel()?
        .await_status("a VF in the bond", STEP_LIMIT, |status| {
            status.bonds[0].vf.as_ref().is_some_and(|vf| vf.enslaved)
        })?;
    guest.kill_service()?;
    restart(&mut guest, BondState::Accelerated)
}

#[test]
fn vfs_come_and_go_abruptly_and_strangers_are_left_alone() {
    let Some(lab) = Lab::for_test("come and go") else {
        return;
    };
    come_and_go(&lab).unwrap();
}

fn come_and_go(lab: &Lab) -> Result<()> {
    let mut setup = Setup::new()?;
    setup.model = NicModel::E1000e;
    setup
        .bond_lines
        .push("timing = { hold-ms = 100 }\npath-check = \"standby\"".to_owned());
    let mut guest = accelerated(lab, &setup)?;
    cut_off(&guest)?;

    guest.vm.unplug_vf()?;
    guest.reach(BondState::Standby)?;

    // Nothing usable: said so, and recovered from.
    let mut channel = guest.channel()?;
    set_standby_carrier(&guest, false)?;
    let status = guest.await_state(&mut channel, BondState::Down)?;
    let codes: Vec<_> = status.bonds[0]
        .problems
        .iter()
        .map(|problem| problem.code)
        .collect();
    ensure!(
        codes.contains(&ProblemCode::NothingUsable),
        "not said: {codes:?}"
    );
    set_standby_carrier(&guest, true)?;
    drop(channel);
    guest.reach(BondState::Standby)?;

    // A NIC that nobody configured.
    let stranger = Mac::test(99);
    guest.vm.plug_vf(setup.model, stranger)?;
    let name = guest.vm.wait_interface(stranger, STEP_LIMIT)?;
    // Whatever the service does about an arrival it has done once it knows the next one.
    guest.tandem(&["announce"])?;
    let link = guest.vm.sh(&format!("ip -o link show {name}"))?;
    ensure!(
        !link.contains("master") && !link.contains(",UP"),
        "the stranger was touched: {link}"
    );
    ensure!(
        guest.status()?.bonds[0].vf.is_none(),
        "the stranger passes for a VF"
    );
    guest.check()?;
    guest.vm.unplug_vf()?;

    let mut settled = None;
    for round in 1..=ROUNDS {
        let mac = if round % 2 == 0 {
            setup.vf
        } else {
            setup.later_vfs[0]
        };
        let step = || format!("round {round} of {ROUNDS}");
        guest.vm.plug_vf(setup.model, mac).with_context(step)?;
        let mut channel = guest.channel()?;
        guest
            .await_state(&mut channel, BondState::Accelerated)
            .with_context(step)?;
        if round % 10 == 0 {
            guest.check().with_context(step)?;
        }
        guest.vm.unplug_vf().with_context(step)?;
        guest
            .await_state(&mut channel, BondState::Standby)
            .with_context(step)?;
        if round == SETTLED {
            settled = Some(Holdings::of(&guest)?);
        }
    }
    guest.check()?;
    let (early, late) = (settled.context("too few rounds")?, Holdings::of(&guest)?);
    eprintln!("the service after round {SETTLED}: {early:?}; after {ROUNDS}: {late:?}");
    ensure!(
        late.descriptors <= early.descriptors + MAX_PASSING_DESCRIPTORS
            && late.memory_kib <= early.memory_kib + MAX_GROWTH_KIB,
        "the service grows with each VF: {early:?} after {SETTLED} rounds, {late:?} after {ROUNDS}"
    );
    let ports = guest
        .vm
        .sh(&format!("cat /sys/class/net/{BOND}/bonding/slaves"))?;
    ensure!(
        ports.split_whitespace().count() == 1,
        "ports are left behind: {ports}"
    );
    Ok(())
}

/// What the service's process holds.
#[derive(Debug)]
struct Holdings {
    memory_kib: u64,
    descriptors: u64,
}

impl Holdings {
    fn of(guest: &Guest) -> Result<Self> {
        let pid = guest.pid()?;
        // What a switchover needs is given back once it is measured, and before a later command is done.
        guest.await_here("measured", |status| {
            let last = status.bonds[0].switchovers.last();
            last.is_some_and(|switchover| switchover.gap.is_some())
        })?;
        let announced = guest.tandem(&["announce"])?;
        ensure!(announced.success(), "{}", announced.text());
        let number = |script: &str| -> Result<u64> {
            let text = guest.vm.sh(script)?;
            text.trim()
                .parse()
                .with_context(|| format!("{script}: {text}"))
        };
        Ok(Self {
            memory_kib: number(&format!("grep VmRSS /proc/{pid}/status | tr -cd 0-9"))?,
            descriptors: number(&format!("ls /proc/{pid}/fd | wc -l"))?,
        })
    }
}

/// A VF with a carrier, and nothing behind it, does not get the traffic; QEMU's NIC
/// knows nothing of the state of its tap.
fn cut_off(guest: &Guest) -> Result<()> {
    guest.tandem(&["failover"])?;
    guest.reach(BondState::Standby)?;
    let tap = guest.vm.tap("vf")?;
    guest.vm.host().set_tap(tap, false)?;
    let answer = guest.tandem(&["failback"])?;
    ensure!(
        !answer.success(),
        "failed back to nothing: {}",
        answer.text()
    );
    let mut channel = guest.channel()?;
    let status = channel.await_status("a VF that fails its path check", STEP_LIMIT, |status| {
        let vf = status.bonds[0].vf.as_ref();
        vf.is_some_and(|vf| vf.held == Some(Held::PathBroken))
    })?;
    let told = &status.bonds[0].problems;
    ensure!(
        told.iter().any(|one| one.code == ProblemCode::PathBroken),
        "not told: {told:?}"
    );
    drop(channel);
    guest.check()?;
    guest.vm.host().set_tap(tap, true)?;
    guest.reach(BondState::Accelerated)
}

/// Connects or cuts the cable of the virtio NIC, as QEMU's `set_link` does.
fn set_standby_carrier(guest: &Guest, up: bool) -> Result<()> {
    guest
        .vm
        .qmp()
        .execute("set_link", json!({ "name": "standby", "up": up }))?;
    Ok(())
}

#[test]
fn the_programs_follow_a_bond_that_is_made_anew_and_leave_one_that_is_given_up() {
    let Some(lab) = Lab::for_test("made anew") else {
        return;
    };
    made_anew(&lab).unwrap();
}

fn made_anew(lab: &Lab) -> Result<()> {
    let setup = Setup::new()?;
    let guest = accelerated(lab, &setup)?;
    let armed = guest.await_here("guarded", is_armed)?;
    let before = armed.bonds[0].ifindex;
    let attached = attached(&guest)?;
    ensure!(
        attached > 0 || setup.kernel == Kernel::V6_1,
        "no program is attached to any device"
    );

    // The ports live on, and so would what is attached to them.
    guest.vm.sh(&format!("ip link del {BOND}"))?;
    let again = guest.await_here("guarded again", |status| {
        let bond = &status.bonds[0];
        bond.ifindex.is_some()
            && bond.ifindex != before
            && bond.state == BondState::Accelerated
            && is_armed(status)
    })?;
    let problems = &again.bonds[0].problems;
    ensure!(problems.is_empty(), "not all is well: {problems:?}");
    ensure!(
        self::attached(&guest)? == attached,
        "something is left of the bond that was there before"
    );
    guest.vm.sh(&format!(
        "ip address add {GUEST_V4}/24 dev {BOND} && ip -6 address add {GUEST_V6}/64 dev {BOND} nodad"
    ))?;
    let wanted: [IpAddr; 2] = [GUEST_V4.into(), GUEST_V6.into()];
    guest.await_here("aware of the addresses", |status| {
        let known = &status.bonds[0].addresses;
        wanted
            .iter()
            .all(|ip| known.iter().any(|one| one.ip == *ip))
    })?;
    guest.check()?;

    // Its switchover is seen and measured as before.
    prepare(&guest)?;
    guest.reach(BondState::Standby)?;
    guest.await_here("measured", is_measured)?;
    guest
        .channel()?
        .call("tandem-resume", json!({}), STEP_LIMIT)?;
    guest.reach(BondState::Accelerated)?;
    guest.await_here("guarded after all", is_armed)?;

    // A bond that nobody wants guarded any more keeps its ports and nothing else.
    guest.vm.sh(&format!("rm {CONFIG}"))?;
    guest.reload()?;
    guest.await_here("without a bond", |status| status.bonds.is_empty())?;
    let none = format!("[ \"$({})\" = 0 ]", tcx_links(&guest)?);
    guest.vm.wait_sh(&none, STEP_LIMIT)?;
    guest.vm.sh(&format!("ping -c 1 -W 10 {CLIENT_V4}"))?;
    Ok(())
}

/// Counts the service's programs on devices (tcx links: `tcx_link_fdinfo`, kernel/bpf/tcx.c, 6.6).
fn tcx_links(guest: &Guest) -> Result<String> {
    let pid = guest.pid()?;
    Ok(format!(
        "grep -l 'link_type:.*tcx' /proc/{pid}/fdinfo/* | wc -l"
    ))
}

fn attached(guest: &Guest) -> Result<usize> {
    Ok(guest.vm.sh(&tcx_links(guest)?)?.trim().parse()?)
}
