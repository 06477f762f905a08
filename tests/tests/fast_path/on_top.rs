//! The bond's upper devices, a VLAN and a macvlan, while the fast path runs. With the older way of attaching programs (a
//! `clsact` queueing discipline, before Linux 6.6): suite `long-fast-path-on-6-1`.
//!
//! The other end of the traffic is a guest too: the lab's client has the kernel of this machine, which may know no
//! VLANs.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tandem_lab::net::GUEST_V4;
use tandem_lab::probe::{FrameProbe, FrameReport};
use tandem_lab::{Host, Kernel, Lab, Mac, Vm, test_mac};

use crate::programs::FastPaths;
use crate::{
    E1000E, FEW, LIMIT, STANDBY, STEP, announcement, await_active, enslave, guest, mac_of_bond,
    make_bond, options, pci_address_of, show,
};

const PEER: Mac = test_mac(9);
const PEER_MEMORY_MIB: u32 = 256;
const VLAN: u16 = 5;
const PEER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
const PEER_ON_VLAN: Ipv4Addr = Ipv4Addr::new(10, 77, 5, 1);
const GUEST_ON_VLAN: Ipv4Addr = Ipv4Addr::new(10, 77, 5, 2);
const GUEST_ON_MACVLAN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);

/// A guest at the other end, with the VLAN.
fn boot_peer(lab: &Lab, host: &Host, kernel: Kernel) -> Result<Vm> {
    let peer = lab
        .small_guest()
        .kernel(kernel)
        .standby(PEER)
        .memory_mib(PEER_MEMORY_MIB)
        .without_channel()
        .boot(host)?;
    let nic = peer.wait_interface(PEER, LIMIT)?;
    peer.sh(&format!(
        "modprobe 8021q && ip link set {nic} up && ip address add {PEER_V4}/24 dev {nic} && \
         ip link add vlan{VLAN} link {nic} type vlan id {VLAN} && \
         ip address add {PEER_ON_VLAN}/24 dev vlan{VLAN} && ip link set vlan{VLAN} up"
    ))?;
    Ok(peer)
}

/// Probes of the bond itself, of the VLAN and of the macvlan.
fn probes(peer: &Vm, vm: &Vm) -> Result<[FrameProbe; 3]> {
    let start = |theirs: IpAddr, own: IpAddr| {
        FrameProbe::start(
            (peer.agent(), theirs),
            (vm.agent(), own),
            options(),
            Path::new("/tmp"),
        )
    };
    Ok([
        start(PEER_V4.into(), GUEST_V4.into())?,
        start(PEER_ON_VLAN.into(), GUEST_ON_VLAN.into())?,
        start(PEER_V4.into(), GUEST_ON_MACVLAN.into())?,
    ])
}

#[test]
fn the_fast_path_carries_what_is_on_top_of_the_bond() -> Result<()> {
    let Some(lab) = Lab::for_test("fast path of VLAN and macvlan") else {
        return Ok(());
    };
    let kernel = Kernel::from_environment()?;
    let host = lab.host("a")?;
    let mut vm = guest(&lab, kernel)?.boot(&host)?;
    eprintln!("{}", vm.sh("uname -r")?);
    let standby = vm.wait_interface(STANDBY, LIMIT)?;
    make_bond(&vm, &standby)?;
    vm.sh(&format!(
        "modprobe -a 8021q macvlan && \
         echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore && \
         ip link add vlan{VLAN} link bond0 type vlan id {VLAN} && \
         ip link add mac0 link bond0 type macvlan mode bridge && \
         ip address add {GUEST_ON_VLAN}/24 dev vlan{VLAN} && \
         ip address add {GUEST_ON_MACVLAN}/32 dev mac0 && \
         ip link set vlan{VLAN} up && ip link set mac0 up && \
         ip route add {PEER_V4}/32 dev mac0 src {GUEST_ON_MACVLAN} table 7 && \
         ip rule add from {GUEST_ON_MACVLAN} table 7"
    ))?;
    let peer = boot_peer(&lab, &host, kernel)?;
    let fast_paths = FastPaths::start(&vm)?;
    let macs = [mac_of_bond(&vm)?, vm.sh("cat /sys/class/net/mac0/address")?];
    let announced: Vec<_> = macs
        .iter()
        .map(|mac| format!("announce={}", announcement(mac)))
        .collect();

    let mut nics = vm.nics().iter().map(|(nic, _)| nic);
    let nic = nics.find(|nic| nic.mac == E1000E).cloned();
    let nic = nic.context("the guest has no e1000e")?;
    // The kernel alone first, then with the fast path's thread.
    for (round, frozen) in [(1, true), (2, false)] {
        let vf = vm.wait_interface(E1000E, LIMIT)?;
        enslave(&vm, &vf)?;
        let device = pci_address_of(&vm, &vf)?;
        let applied = fast_paths.command(&format!(
            "apply bond0 watch={vf},{standby} vf={vf} device={device} standby={standby} mac={} {}",
            macs[0],
            announced.join(" ")
        ))?;
        ensure!(applied.contains("armed: true, missing: []"), "{applied}");
        let running = probes(&peer, &vm)?;
        if frozen {
            fast_paths.freeze()?;
        }
        vm.unplug(&nic.id)?;
        std::thread::sleep(STEP);
        let mut reports: Vec<FrameReport> = Vec::new();
        for probe in running {
            reports.push(probe.finish()?);
        }
        let user_space = if frozen { "stopped" } else { "running" };
        for (what, report) in ["bond", "VLAN", "macvlan"].into_iter().zip(&reports) {
            show(
                &format!("{kernel:?}, user space {user_space}, {what}"),
                report,
            );
        }
        await_active(&vm, &standby)?;
        if frozen {
            fast_paths.thaw()?;
        }
        let reaction = fast_paths.await_nth_line(round, "woke the fast path's thread", LIMIT)?;
        let on_standby = fast_paths.frames(&standby)?;
        eprintln!("standby {on_standby:?}, {reaction}");
        assert!(on_standby.tx > 0 && on_standby.rx > 0, "{on_standby:?}");
        for report in &reports {
            assert_eq!(report.to_client.total.lost, 0, "{report:?}");
            assert!(report.to_guest.total.lost <= FEW, "{report:?}");
        }
        fast_paths.command("forget bond0")?;
        vm.plug(nic.clone())?;
    }
    Ok(())
}
