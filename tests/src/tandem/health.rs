//! The same check after every fault: what the service says is what the kernel does, and traffic flows.

use anyhow::{Context, Result, ensure};
use tandem_core::status::{BondState, Traffic};

use super::{BOND, Guest};
use crate::agent::Agent;
use crate::net::{CLIENT_V4, CLIENT_V6, GUEST_V4, GUEST_V6};

impl Guest {
    /// One active port, the addresses on the bond and on no port, traffic both ways over IPv4 and IPv6,
    /// and a status that says all this.
    pub fn check(&self) -> Result<()> {
        self.check_all()
            .with_context(|| format!("the service's log ends:\n{}", self.log_tail()))
    }

    fn check_all(&self) -> Result<()> {
        let status = self.status()?;
        let bond = status.bonds.first().context("the status knows no bond")?;
        let active = self
            .vm
            .sh(&format!("cat /sys/class/net/{BOND}/bonding/active_slave"))?;
        let active = active.trim();
        ensure!(
            !active.is_empty(),
            "the bond has no active port; status: {bond:?}"
        );
        let port = match bond.traffic {
            Traffic::Vf => bond.vf.as_ref(),
            Traffic::Standby => bond.standby.as_ref(),
            Traffic::None | Traffic::Other | Traffic::Unknown => None,
        };
        let said = port.context("the status names no active port")?;
        ensure!(
            said.name.as_str() == active && said.active,
            "the kernel's active port is {active}, the status says {said:?}"
        );
        ensure!(
            matches!(
                bond.state,
                BondState::Accelerated | BondState::Standby | BondState::Unprotected
            ),
            "the status says {:?}: {}",
            bond.state,
            bond.reason
        );
        addresses_are_on_the_bond(self.vm.agent())?;
        for address in [GUEST_V4.to_string(), GUEST_V6.to_string()] {
            ensure!(
                bond.addresses
                    .iter()
                    .any(|known| known.ip.to_string() == address),
                "the status does not know {address}"
            );
        }
        for peer in [CLIENT_V4.to_string(), CLIENT_V6.to_string()] {
            self.vm
                .sh(&format!("ping -c 1 -W 10 {peer}"))
                .with_context(|| format!("no answer from {peer}; {}", self.network()))?;
        }
        Ok(())
    }

    /// Addresses, neighbours, and the kernel's last words.
    fn network(&self) -> String {
        let script = "ip address show; ip neigh show; ip -6 route show; dmesg | tail -n 20";
        match self.vm.sh(script) {
            Ok(text) => format!("the guest's network:\n{text}"),
            Err(error) => format!("the guest's network can't be told: {error:#}"),
        }
    }
}

/// The addresses that the lab's client knows the guest by are on the bond, and on no port.
pub fn addresses_are_on_the_bond(guest: &Agent) -> Result<()> {
    let addresses = guest.sh("ip -o address show scope global")?;
    for address in [GUEST_V4.to_string(), GUEST_V6.to_string()] {
        let holders: Vec<_> = addresses
            .lines()
            .filter(|line| line.contains(&format!(" {address}/")))
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        ensure!(
            holders == [BOND],
            "{address} is on {holders:?}, not on {BOND} alone"
        );
    }
    ensure!(
        !addresses.contains("dadfailed"),
        "an address failed its DAD: {addresses}"
    );
    Ok(())
}
