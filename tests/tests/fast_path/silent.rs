//! A guest that only receives: nothing that it sends tells the network where it is.

use std::time::Duration;

use anyhow::{Result, ensure};
use tandem_lab::net::{CLIENT_V4, GUEST_V4};
use tandem_lab::{Kernel, Lab};

use crate::programs::FastPaths;
use crate::{
    E1000E, EXPIRY, IGB, LIMIT, STANDBY, announcement, await_active, enslave, guest, mac_of_bond,
    make_bond, pci_address_of,
};

/// The client's frames, one each 20 ms, for longer than the test looks at them.
const SENDER: &str = "for i in $(seq 3000); do echo >/dev/udp/$0/9; sleep 0.02; done";
const SIGKILL: i32 = 9;
/// Several frames of the sender.
const A_WHILE: Duration = Duration::from_secs(1);

#[test]
fn the_kernel_alone_moves_what_a_silent_guest_receives() -> Result<()> {
    fast_path_on(Kernel::from_environment()?)
}

#[test]
fn the_kernel_alone_moves_what_a_silent_guest_receives_on_6_1() -> Result<()> {
    fast_path_on(Kernel::V6_1)
}

#[test]
fn the_kernel_alone_moves_what_a_silent_guest_receives_on_7_3() -> Result<()> {
    fast_path_on(Kernel::V7_3)
}

fn fast_path_on(kernel: Kernel) -> Result<()> {
    let Some(lab) = Lab::for_test("fast path of a silent guest") else {
        return Ok(());
    };
    let host = lab.host("a")?;
    let vm = guest(&lab, kernel)?.boot(&host)?;
    eprintln!("{}", vm.sh("uname -r")?);
    vm.sh("for i in all default; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done")?;
    let [standby, vf, other] = [STANDBY, E1000E, IGB].map(|mac| vm.wait_interface(mac, LIMIT));
    let (standby, vf, other) = (standby?, vf?, other?);
    make_bond(&vm, &standby)?;
    enslave(&vm, &vf)?;
    let mac = mac_of_bond(&vm)?;
    // It is known and answers nothing.
    vm.sh(&format!("ip route add blackhole {CLIENT_V4}"))?;
    let client = lab.client()?;
    let (guest_v4, bash) = (GUEST_V4.to_string(), "bash");
    client.namespace().ip(&[
        "neigh",
        "replace",
        &guest_v4,
        "lladdr",
        &mac,
        "dev",
        "eth0",
        "nud",
        "permanent",
    ])?;
    let sender = client
        .agent()
        .spawn(&[bash, "-c", SENDER, &guest_v4], &[], "/dev/null")?;
    let fast_paths = FastPaths::start(&vm)?;
    fast_paths.has_real_time_threads(&vm)?;
    // The sign comes from a NIC that is not in the bond, so that the VF stays as it is.
    let device = pci_address_of(&vm, &other)?;
    let applied = fast_paths.command(&format!(
        "apply bond0 watch={vf},{standby} vf={vf} device={device} standby={standby} mac={mac} announce={}",
        announcement(&mac)
    ))?;
    ensure!(applied.contains("armed: true, missing: []"), "{applied}");
    std::thread::sleep(A_WHILE);
    let before = fast_paths.frames(&vf)?;
    assert!(before.rx > 0, "{before:?}");
    assert_eq!(before.duplicates, 0, "{before:?}");

    fast_paths.freeze()?;
    // The kernel need not tell that it has its carrier still.
    let carrier = vm.sh(&format!(
        "ip link set {standby} down && ip link set {standby} up && cat /sys/class/net/{standby}/carrier"
    ))?;
    assert_eq!(carrier.trim(), "1");
    vm.sh(&format!("echo {device} >/sys/bus/pci/drivers/igb/unbind"))?;
    std::thread::sleep(EXPIRY);
    fast_paths.thaw()?;
    fast_paths.await_line("a late thread", LIMIT, |line| line.contains("TooLate"))?;
    client.agent().signal(sender, SIGKILL)?;
    let (on_vf, on_standby) = (fast_paths.frames(&vf)?, fast_paths.frames(&standby)?);
    eprintln!("VF {on_vf:?} standby {on_standby:?}");
    assert_eq!((on_vf.tx, on_standby.tx), (0, 0), "the guest is silent");
    assert!(
        on_standby.rx > 1,
        "the network has not learnt: {on_standby:?}"
    );
    // The announcement is a broadcast, and came back through the network.
    assert!(on_vf.duplicates > 0, "{on_vf:?}");
    await_active(&vm, &vf)?;
    Ok(())
}
