//! Guests without a network manager: a bare virtio NIC, a bond by a script, `net_failover`.

use anyhow::Result;
use serde_json::json;

use super::{await_vf_active, with_addresses};
use crate::small_guest::SmallGuest;
use crate::tandem::{Guest, STEP_LIMIT, Setup};
use crate::{Host, Lab, Nic, NicModel, Slot, Vm};

const BOND_SCRIPT: &str = include_str!("bond.sh");
const FAILOVER_SCRIPT: &str = include_str!("net_failover.sh");
const SCRIPT: &str = "/sbin/set-up";
const LOG: &str = "/tmp/set-up.log";

fn guest<'lab>(lab: &'lab Lab, setup: &Setup) -> SmallGuest<'lab> {
    let control = setup.control.clone();
    lab.small_guest()
        .kernel(setup.kernel)
        .hot_plug(setup.hot_plug)
        .hardware(|hardware| hardware.extra_arguments = control)
}

pub(super) fn floor(lab: &Lab, host: &Host, setup: &Setup) -> Result<Vm> {
    let vm = guest(lab, setup).standby(setup.standby).boot(host)?;
    let guest = Guest::new(vm, setup.standby);
    guest.put_addresses_on_standby()?;
    Ok(guest.vm)
}

pub(super) fn bond(lab: &Lab, host: &Host, setup: &Setup) -> Result<Vm> {
    let vm = guest(lab, setup)
        .standby(setup.standby)
        .vf(setup.model, setup.vf)
        .text(SCRIPT, &with_addresses(BOND_SCRIPT))
        .boot(host)?;
    let macs: Vec<_> = [setup.standby, setup.vf]
        .iter()
        .chain(&setup.later_vfs)
        .map(ToString::to_string)
        .collect();
    let mut argv = vec!["sh", SCRIPT];
    argv.extend(macs.iter().map(String::as_str));
    vm.spawn(&argv, &[], LOG)?;
    await_vf_active(&vm, setup)?;
    Ok(vm)
}

/// One MAC for both NICs, as QEMU's `docs/system/virtio-net-failover.rst` (10.0) has it.
pub(super) fn net_failover(lab: &Lab, host: &Host, setup: &Setup) -> Result<Vm> {
    let vm = guest(lab, setup)
        .standby(setup.standby)
        .text(SCRIPT, &with_addresses(FAILOVER_SCRIPT))
        .hardware(|hardware| {
            for standby in &mut hardware.nics {
                standby
                    .properties
                    .push(("failover".to_owned(), json!(true)));
            }
            hardware.nics.push(Nic {
                id: "vf".to_owned(),
                model: NicModel::E1000e,
                mac: setup.standby,
                slot: Slot::RootPort(0),
                properties: vec![("failover_pair_id".to_owned(), json!("standby"))],
            });
        })
        .boot(host)?;
    vm.wait_sh(&format!("sh {SCRIPT} 2>{LOG}"), STEP_LIMIT)?;
    // QEMU plugs the VF in when virtio_net has agreed on the failover.
    vm.wait_sh(
        "grep -l 1 $(for net in /sys/bus/pci/drivers/e1000e/*/net/*; do [ -e $net/master ] && echo $net/carrier; done)",
        STEP_LIMIT,
    )?;
    Ok(vm)
}
