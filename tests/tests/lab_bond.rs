//! The lab's network: a guest with a bond loses nothing at rest, gives up a NIC, moves, gets another.

use std::time::Duration;

use anyhow::Result;
use tandem_lab::net::{GUEST_V4, GUEST_V6};
use tandem_lab::probe::FrameOptions;
use tandem_lab::{Lab, Mac, NicModel, Vm, test_mac};

const STANDBY: Mac = test_mac(1);
const VF: Mac = test_mac(2);
const OTHER_VF: Mac = test_mac(3);
const LIMIT: Duration = Duration::from_secs(60);

/// An active-backup bond over the standby and, as its primary, the VF.
fn make_bond(vm: &Vm, vf: Mac) -> Result<()> {
    let standby = vm.wait_interface(STANDBY, LIMIT)?;
    vm.sh(&format!(
        "ip link add bond0 type bond mode active-backup miimon 100 all_slaves_active 1 && \
         ip link set {standby} down && ip link set {standby} master bond0 && ip link set bond0 up && \
         ip address add {GUEST_V4}/24 dev bond0 && ip address add {GUEST_V6}/64 dev bond0 nodad"
    ))?;
    enslave(vm, vf)
}

fn enslave(vm: &Vm, vf: Mac) -> Result<()> {
    let vf = vm.wait_interface(vf, LIMIT)?;
    vm.sh(&format!(
        "ip link set {vf} down && ip link set {vf} master bond0"
    ))?;
    vm.wait_sh(&format!("ip link show {vf} | grep -q LOWER_UP"), LIMIT)?;
    vm.sh(&format!("ip link set bond0 type bond primary {vf}"))?;
    vm.wait_sh(
        &format!("grep -qx {vf} /sys/class/net/bond0/bonding/active_slave"),
        LIMIT,
    )?;
    Ok(())
}

#[test]
fn a_bond_lives_through_unplug_migration_and_plug() {
    let Some(lab) = Lab::for_test("bond, unplug, migration, plug") else {
        return;
    };
    let (here, there) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    let mut vm = lab
        .small_guest()
        .standby(STANDBY)
        .vf(NicModel::E1000e, VF)
        .boot(&here)
        .unwrap();
    make_bond(&vm, VF).unwrap();

    let stream = lab.probe_stream(&vm, GUEST_V4.into()).unwrap();
    let mut frames = lab
        .probe_frames(&vm, GUEST_V4.into(), FrameOptions::default())
        .unwrap();
    let mut frames_v6 = lab
        .probe_frames(&vm, GUEST_V6.into(), FrameOptions::default())
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let mut mark = |phase: &str| {
        frames.mark(phase);
        frames_v6.mark(phase);
    };

    mark("unplug");
    let unplugged = vm.unplug_vf().unwrap();
    assert_eq!(vm.find_interface(VF).unwrap(), None);
    stream.wait_progress(LIMIT).unwrap();

    mark("migration");
    let background = vm.agent().clone();
    let across = std::thread::spawn(move || background.sh("sleep 2; echo across"));
    let moved = vm.migrate_to(&there).unwrap();
    assert_eq!(across.join().unwrap().unwrap(), "across");
    stream.wait_progress(LIMIT).unwrap();

    mark("plug");
    vm.plug_vf(NicModel::Igb, OTHER_VF).unwrap();
    enslave(&vm, OTHER_VF).unwrap();
    stream.wait_progress(LIMIT).unwrap();
    mark("after");
    std::thread::sleep(Duration::from_secs(2));

    let report = frames.finish().unwrap();
    let report_v6 = frames_v6.finish().unwrap();
    eprintln!(
        "unplug took {} ms; {moved:?}\n{report}\nIPv6\n{report_v6}",
        unplugged.as_millis()
    );
    for direction in [
        &report.to_guest,
        &report.to_client,
        &report_v6.to_guest,
        &report_v6.to_client,
    ] {
        let rest = direction.phase("rest").unwrap();
        assert!(rest.sent > 100, "{rest:?}");
        assert_eq!(rest.lost, 0, "lost at rest");
        // An abrupt unplug of the active NIC that nobody prepared cannot be without loss: if the
        // probe saw none, it does not see.
        assert!(direction.total.sent > direction.total.lost);
    }
    assert!(report.to_guest.phase("unplug").unwrap().lost > 0);
    let stream = stream.finish().unwrap();
    assert_eq!(stream.broken(), None);
    vm.check().unwrap();
}
