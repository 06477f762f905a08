//! What happens to a guest whose network is on the bond, and the network stays there: VFs come and go, the service is killed
//! or stopped.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tandem_core::status::BondState;

use super::Machine;
use crate::dhcp::Lease;
use crate::tandem::{BOND, Guest, STEP_LIMIT};

const UNIT: &str = "tandem.service";
/// How often the service is killed, as soon as it is there again.
const KILLS: usize = 5;

impl Machine<'_> {
    /// A VF leaves as the host has asked for, one with another MAC comes, leaves without a word, and the first one comes
    /// back. `words` as in [`Self::is_as_without_tandem`].
    pub fn vfs_come_and_go(&self, guest: &mut Guest, plain: &Lease, words: &str) -> Result<()> {
        let mut channel = guest.channel()?;
        channel.call("tandem-prepare-unplug", json!({}), STEP_LIMIT)?;
        let status = channel.status(STEP_LIMIT)?;
        let state = status.bonds.first().map(|bond| bond.state);
        ensure!(
            state == Some(BondState::Standby),
            "prepared, and the bond is {state:?}"
        );
        drop(channel);
        guest.vm.unplug_vf()?;
        let is_so = self.is_on_the_standby(guest, plain);
        is_so.context("after an unplug that the host asked for")?;

        let setup = &self.setup;
        guest.vm.plug_vf(setup.model, setup.later_vfs[0])?;
        let is_so = self.is_as_without_tandem(guest, plain, words);
        is_so.context("with a VF that has another MAC")?;
        guest.vm.unplug_vf()?;
        let is_so = self.is_on_the_standby(guest, plain);
        is_so.context("after an unplug without a word")?;
        guest.vm.plug_vf(setup.model, setup.vf)?;
        let is_so = self.is_as_without_tandem(guest, plain, words);
        is_so.context("with the first VF again")
    }

    fn is_on_the_standby(&self, guest: &Guest, plain: &Lease) -> Result<()> {
        guest.await_state(&mut guest.channel()?, BondState::Standby)?;
        self.has_network(guest, BOND, &plain.address)
    }

    /// The service is killed again and again, and then left alone.
    pub fn outlives_kills(&self, guest: &Guest, plain: &Lease, words: &str) -> Result<()> {
        let restarts = || -> Result<usize> {
            let shown = format!("systemctl show --property=NRestarts --value {UNIT}");
            Ok(guest.vm.sh(&shown)?.trim().parse()?)
        };
        let before = restarts()?;
        for _ in 0..KILLS {
            // Where that is dead already, it is tried again with the next one.
            let kill = format!(
                "pid=$(systemctl show --property=MainPID --value {UNIT}) && test $pid -gt 0 && \
                 kill -9 $pid && while test -d /proc/$pid; do sleep 0.01; done"
            );
            guest.vm.wait_sh(&kill, STEP_LIMIT)?;
            self.has_network(guest, BOND, &plain.address)
                .context("just after a kill of the service")?;
        }
        let is_so = self.is_as_without_tandem(guest, plain, words);
        is_so.context("after kills of the service")?;
        let killed = restarts()? - before;
        ensure!(
            killed >= KILLS,
            "killed {KILLS} times, the service was started {killed} times"
        );
        Ok(())
    }

    /// The service is stopped for more than a lease, which whoever configures the bond renews.
    pub fn lives_without_the_service(
        &self,
        guest: &Guest,
        plain: &Lease,
        words: &str,
    ) -> Result<()> {
        let lease = self.lease()?;
        guest.vm.sh(&format!("systemctl stop {UNIT}"))?;
        let has_renewed = self.has_renewed(guest, &lease);
        has_renewed.context("with the service stopped")?;
        guest.vm.sh(&format!("systemctl start {UNIT}"))?;
        let is_so = self.is_as_without_tandem(guest, plain, words);
        is_so.context("with the service started again")
    }
}
