//! The systems that Tandem is compared with, each set up as its users do, and at its best: it knows all VFs by
//! MAC, looks at carriers every 100 ms, and goes back to the VF when that comes.

mod managed;
mod unmanaged;

use anyhow::Result;

pub(super) use managed::START_LIMIT;
pub(super) use managed::boot as managed;

use super::case::{Case, System};
use crate::net::{GUEST_V4, GUEST_V6};
use crate::tandem::{BOND, STEP_LIMIT, Setup};
use crate::{Host, Lab, Vm};

/// Boots the guest of a system other than Tandem; its VF carries the traffic then.
pub(super) fn boot(lab: &Lab, host: &Host, case: Case, setup: &Setup) -> Result<Vm> {
    lab.client()?;
    match case.system {
        System::Floor | System::FloorCarried => unmanaged::floor(lab, host, setup),
        System::NetFailover => unmanaged::net_failover(lab, host, setup),
        System::Networkd | System::NetworkManager => managed(lab, host, case.system, setup),
        // Tandem's guests are not made here.
        System::UnmanagedBond
        | System::TandemPlanned
        | System::TandemCarried
        | System::TandemWarned
        | System::TandemKernelAlone
        | System::TandemWithoutEbpf => unmanaged::bond(lab, host, setup),
    }
}

/// Text with the guest's addresses put in.
fn with_addresses(text: &str) -> String {
    text.replace("@ADDRESS4@", &format!("{GUEST_V4}/24"))
        .replace("@ADDRESS6@", &format!("{GUEST_V6}/64"))
}

/// Waits until the bond's active port is the NIC with the setup's first VF MAC.
pub(super) fn await_vf_active(vm: &Vm, setup: &Setup) -> Result<()> {
    let bond = format!("/sys/class/net/{BOND}/bonding/active_slave");
    vm.wait_sh(&format!("test -s {bond}"), STEP_LIMIT)?;
    let vf = vm.wait_interface(setup.vf, STEP_LIMIT)?;
    vm.wait_sh(&format!("grep -x {vf} {bond}"), STEP_LIMIT)?;
    Ok(())
}
