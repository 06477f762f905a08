//! The fast path's programs, on a real kernel: frames counted and stamped, duplicates
//! kept away, and a bond's frames redirected by the kernel alone, with user space stopped.
//!
//! Beside the fast path stands what a bond loses that nobody takes care of, in the same guest.

use std::time::Duration;

use anyhow::{Result, ensure};
use tandem_lab::artifacts::cargo::{self, Profile};
use tandem_lab::net::{CLIENT_V4, GUEST_V4};
use tandem_lab::probe::{FrameOptions, FrameReport};
use tandem_lab::qemu::{Nic, Slot};
use tandem_lab::{Kernel, Lab, Mac, NicModel, SmallGuest, Vm, test_mac};

use programs::{FastPaths, PROGRAM};

mod on_top;
mod programs;
mod silent;

const LIMIT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(200);
/// Longer than the fast path runs when nothing comes of a removal (3 s); nothing tells of its end.
const EXPIRY: Duration = Duration::from_secs(5);
/// Frames that may be lost on the fast path: those on the wire when the traffic moves to and fro.
const FEW: u64 = 10;

const STANDBY: Mac = test_mac(1);
const E1000E: Mac = test_mac(2);
const IGB: Mac = test_mac(3);

fn guest(lab: &Lab, kernel: Kernel) -> Result<SmallGuest<'_>> {
    let program = cargo::example("tandem-guest", "fast_path", Profile::Dev)?;
    Ok(lab
        .small_guest()
        .kernel(kernel)
        .standby(STANDBY)
        .vf(NicModel::E1000e, E1000E)
        .vf(NicModel::Igb, IGB)
        // What programs on devices take before 6.6.
        .module("sch_ingress")
        .module("cls_bpf")
        .program(&program, PROGRAM))
}

fn pci_address_of(vm: &Vm, interface: &str) -> Result<String> {
    vm.sh(&format!(
        "basename $(readlink -f /sys/class/net/{interface}/device)"
    ))
}

/// `bond0` over the standby; late frames are not accepted.
fn make_bond(vm: &Vm, standby: &str) -> Result<()> {
    vm.sh(&format!(
        "modprobe bonding && ip link add bond0 type bond mode active-backup miimon 100 && \
         ip link set {standby} down && ip link set {standby} master bond0 && \
         ip link set bond0 up && ip address add {GUEST_V4}/24 dev bond0"
    ))?;
    Ok(())
}

/// Adds a VF to `bond0` and waits until it is the active port.
fn enslave(vm: &Vm, vf: &str) -> Result<()> {
    vm.sh(&format!(
        "ip link set {vf} down && ip link set {vf} master bond0 && \
         ip link set bond0 type bond primary {vf}"
    ))?;
    await_active(vm, vf)
}

fn await_active(vm: &Vm, port: &str) -> Result<()> {
    let active = "/sys/class/net/bond0/bonding/active_slave";
    vm.wait_sh(&format!("grep -qx {port} {active}"), LIMIT)?;
    Ok(())
}

/// A reverse ARP request from this MAC: enough for the fabric.
fn announcement(mac: &str) -> String {
    let mac = mac.replace(':', "");
    let zeros = "0".repeat(36);
    format!("ffffffffffff{mac}80350001080006040003{mac}00000000{mac}00000000{zeros}")
}

fn mac_of_bond(vm: &Vm) -> Result<String> {
    vm.sh("cat /sys/class/net/bond0/address")
}

fn options() -> FrameOptions {
    FrameOptions {
        rate_hz: 200,
        ..FrameOptions::default()
    }
}

fn show(what: &str, report: &FrameReport) {
    for (way, direction) in [
        ("to guest", &report.to_guest),
        ("to client", &report.to_client),
    ] {
        let total = &direction.total;
        eprintln!(
            "{what}, {way}: {} of {} lost, {} twice, longest gap {} ms",
            total.lost, total.sent, total.duplicated, total.longest_gap_ms
        );
    }
}

fn lost(report: &FrameReport) -> u64 {
    report.to_guest.total.lost + report.to_client.total.lost
}

#[test]
fn frames_are_counted_and_duplicates_kept_away() -> Result<()> {
    let Some(lab) = Lab::for_test("path counters") else {
        return Ok(());
    };
    let host = lab.host("a")?;
    let vm = guest(&lab, Kernel::from_environment()?)?.boot(&host)?;
    eprintln!("{}", vm.sh("uname -r")?);
    let (standby, vf) = (
        vm.wait_interface(STANDBY, LIMIT)?,
        vm.wait_interface(E1000E, LIMIT)?,
    );
    make_bond(&vm, &standby)?;
    enslave(&vm, &vf)?;
    let fast_paths = FastPaths::start(&vm)?;
    let boot_s = |vm: &Vm| Ok::<f64, anyhow::Error>(vm.sh("cut -d' ' -f1 /proc/uptime")?.parse()?);

    let plan = format!("apply bond0 watch={vf},{standby}");
    let index = |port: &str| vm.sh(&format!("cat /sys/class/net/{port}/ifindex"));
    assert_eq!(
        fast_paths.command(&plan)?,
        format!(
            "Applied {{ watched: [{}, {}], armed: false, missing: [], blocked: None }}",
            index(&vf)?,
            index(&standby)?
        )
    );
    let before_s = boot_s(&vm)?;
    let probe = lab.probe_frames(&vm, GUEST_V4.into(), options())?;
    // Applied again, it goes on counting.
    fast_paths.command(&plan)?;
    std::thread::sleep(STEP);
    let report = probe.finish()?;
    let after_s = boot_s(&vm)?;
    show("counted", &report);
    let (on_vf, on_standby) = (fast_paths.frames(&vf)?, fast_paths.frames(&standby)?);
    eprintln!("{on_vf:?} {on_standby:?}");
    // What the probe sent, and a few of ARP and of the probe's own greeting.
    assert!(
        on_vf.rx >= report.to_guest.total.sent - report.to_guest.total.lost,
        "{on_vf:?}"
    );
    assert!(on_vf.tx >= report.to_client.total.sent, "{on_vf:?}");
    assert_eq!((on_standby.rx, on_standby.tx), (0, 0));
    for (first, last) in [on_vf.rx_stamps, on_vf.tx_stamps] {
        let (first_s, last_s) = (first as f64 / 1e9, last as f64 / 1e9);
        // /proc/uptime counts hundredths.
        assert!(before_s - 0.01 <= first_s && first_s < last_s && last_s <= after_s + 0.01);
    }
    fast_paths.command("reset bond0")?;
    let idle = fast_paths.frames(&vf)?;
    assert!(
        idle.rx < on_vf.rx && idle.rx_stamps.0 != on_vf.rx_stamps.0,
        "{idle:?}"
    );

    // Frames of all ports are delivered: without the programs, broadcast would come twice.
    vm.sh("echo 1 >/sys/class/net/bond0/bonding/all_slaves_active")?;
    fast_paths.await_duplicates(&lab, &standby, 101)?;
    assert_eq!(fast_paths.frames(&vf)?.duplicates, 0);
    // And after a switchover it is the other way round.
    vm.sh(&format!("ip link set bond0 type bond primary {standby}"))?;
    await_active(&vm, &standby)?;
    fast_paths.command("reset bond0")?;
    fast_paths.await_duplicates(&lab, &vf, 102)?;
    assert_eq!(fast_paths.frames(&standby)?.duplicates, 0);

    assert_eq!(fast_paths.command("forget bond0")?, "forgotten");
    assert_eq!(fast_paths.command(&format!("frames {vf}"))?, "unwatched");
    Ok(())
}

#[test]
fn the_kernel_alone_redirects_until_the_bond_follows_or_the_time_is_over() -> Result<()> {
    let Some(lab) = Lab::for_test("path redirect") else {
        return Ok(());
    };
    let host = lab.host("a")?;
    let vm = guest(&lab, Kernel::from_environment()?)?.boot(&host)?;
    eprintln!("{}", vm.sh("uname -r")?);
    let [standby, vf, other] = [STANDBY, E1000E, IGB].map(|mac| vm.wait_interface(mac, LIMIT));
    let (standby, vf, other) = (standby?, vf?, other?);
    make_bond(&vm, &standby)?;
    enslave(&vm, &vf)?;
    let fast_paths = FastPaths::start(&vm)?;
    // The sign comes from a NIC that is not in the bond, so that the VF stays as it is.
    let device = pci_address_of(&vm, &other)?;
    let driver = |file: &str| format!("echo {device} >/sys/bus/pci/drivers/igb/{file}");
    let mac = mac_of_bond(&vm)?;
    let applied = fast_paths.command(&format!(
        "apply bond0 watch={vf},{standby} vf={vf} device={device} standby={standby} mac={mac} announce={}",
        announcement(&mac)
    ))?;
    ensure!(applied.contains("armed: true, missing: []"), "{applied}");

    let mut probe = lab.probe_frames(&vm, GUEST_V4.into(), options())?;
    fast_paths.freeze()?;
    probe.mark("redirected");
    vm.sh(&driver("unbind"))?;
    std::thread::sleep(EXPIRY);
    probe.mark("after");
    fast_paths.thaw()?;
    fast_paths.await_line("a late thread", LIMIT, |line| line.contains("TooLate"))?;
    let (on_vf, on_standby) = (fast_paths.frames(&vf)?, fast_paths.frames(&standby)?);
    let report = probe.finish()?;
    show("redirected", &report);
    eprintln!("VF {on_vf:?} standby {on_standby:?}");
    assert!(on_standby.rx > 0 && on_standby.tx > 0, "{on_standby:?}");
    // Out of the standby only between VF and VF again.
    assert!(
        on_vf.tx_stamps.0 < on_standby.tx_stamps.0,
        "{on_vf:?} {on_standby:?}"
    );
    assert!(
        on_vf.tx_stamps.1 > on_standby.tx_stamps.1,
        "{on_vf:?} {on_standby:?}"
    );
    assert!(lost(&report) <= FEW, "{report:?}");
    await_active(&vm, &vf)?;

    // With user space the bond follows, and that ends the redirection.
    vm.sh(&driver("bind"))?;
    vm.wait_interface(IGB, LIMIT)?;
    fast_paths.command("reset bond0")?;
    vm.sh(&driver("unbind"))?;
    let reaction = fast_paths.await_line("a reaction", LIMIT, |line| line.contains("Done"))?;
    eprintln!("{reaction}");
    assert!(reaction.contains("announced: 1"), "{reaction}");
    await_active(&vm, &standby)?;
    assert_eq!(fast_paths.command("running bond0")?, "false");
    assert_eq!(fast_paths.frames(&vf)?.tx, 0);

    // Disarmed, no sign does anything.
    vm.sh(&format!("ip link set bond0 type bond primary {vf}"))?;
    await_active(&vm, &vf)?;
    vm.sh(&driver("bind"))?;
    vm.wait_interface(IGB, LIMIT)?;
    fast_paths.command(&format!("apply bond0 watch={vf},{standby}"))?;
    vm.sh(&driver("unbind"))?;
    assert_eq!(fast_paths.command("running bond0")?, "false");
    vm.sh(&format!("ping -c 2 -W 5 {CLIENT_V4}"))?;
    assert_eq!(fast_paths.frames(&standby)?.tx, 0);
    await_active(&vm, &vf)?;
    Ok(())
}

/// One removal that the host does not announce, with frames under way both ways.
fn remove(lab: &Lab, vm: &mut Vm, id: &str) -> Result<FrameReport> {
    let probe = lab.probe_frames(vm, GUEST_V4.into(), options())?;
    vm.unplug(id)?;
    std::thread::sleep(STEP);
    probe.finish()
}

#[test]
fn a_removal_loses_next_to_nothing_even_with_user_space_stopped() -> Result<()> {
    let Some(lab) = Lab::for_test("fast path") else {
        return Ok(());
    };
    let host = lab.host("a")?;
    let mut vm = guest(&lab, Kernel::from_environment()?)?.boot(&host)?;
    eprintln!("{}", vm.sh("uname -r")?);
    let standby = vm.wait_interface(STANDBY, LIMIT)?;
    make_bond(&vm, &standby)?;
    let fast_paths = FastPaths::start(&vm)?;
    let mac = mac_of_bond(&vm)?;
    let slots = [
        ("vf", NicModel::E1000e, E1000E, 0),
        ("vf2", NicModel::Igb, IGB, 1),
    ];
    let mut reactions = 0;
    for (id, model, own_mac, port) in slots {
        let nic = Nic {
            id: id.to_owned(),
            model,
            mac: own_mac,
            slot: Slot::RootPort(port),
            properties: Vec::new(),
        };
        // The kernel alone first, then with the fast path's thread.
        let mut redirected = Vec::new();
        for frozen in [true, false] {
            let vf = vm.wait_interface(own_mac, LIMIT)?;
            enslave(&vm, &vf)?;
            let device = pci_address_of(&vm, &vf)?;
            let applied = fast_paths.command(&format!(
                "apply bond0 watch={vf},{standby} vf={vf} device={device} standby={standby} mac={mac} announce={}",
                announcement(&mac)
            ))?;
            ensure!(applied.contains("armed: true, missing: []"), "{applied}");
            if frozen {
                fast_paths.freeze()?;
            }
            let report = remove(&lab, &mut vm, id)?;
            let user_space = if frozen { "stopped" } else { "running" };
            show(&format!("{model:?}, user space {user_space}"), &report);
            await_active(&vm, &standby)?;
            if frozen {
                fast_paths.thaw()?;
            }
            reactions += 1;
            let reaction =
                fast_paths.await_nth_line(reactions, "woke the fast path's thread", LIMIT)?;
            ensure!(frozen || reaction.contains("Done"), "{reaction}");
            let on_standby = fast_paths.frames(&standby)?;
            eprintln!("standby {on_standby:?}, {reaction}");
            assert!(on_standby.tx > 0 && on_standby.rx > 0, "{on_standby:?}");
            // Also while user space is stopped: the kernel side announces by itself.
            redirected.push(lost(&report));
            fast_paths.command("forget bond0")?;
            vm.plug(nic.clone())?;
        }

        let vf = vm.wait_interface(own_mac, LIMIT)?;
        enslave(&vm, &vf)?;
        let unmanaged = remove(&lab, &mut vm, id)?;
        show(&format!("{model:?}, nobody cares"), &unmanaged);
        await_active(&vm, &standby)?;
        for lost_on_fast_path in redirected {
            assert!(
                lost_on_fast_path == 0 || lost_on_fast_path <= lost(&unmanaged) / 2,
                "{model:?}: {lost_on_fast_path} lost, {} unmanaged",
                lost(&unmanaged)
            );
        }
    }
    Ok(())
}
