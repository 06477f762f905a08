//! Where several VFs could carry the traffic and nothing speaks for one of them, the first of the policy has to.

use tandem_core::Ifindex;
use tandem_core::status::{BondStatus, Held};

use super::{CALM_MS, Chaos};
use crate::sim::fake::name;

/// Time in which the traffic has gone to the standby, in ms.
const ASIDE_MS: u64 = 5_000;

impl Chaos {
    /// Once all is calm, and the service itself calls a second VF ready: both lose their cables, the service starts
    /// anew, so that it knows of no past, and both get them back.
    pub(super) fn try_policys_order(&mut self) -> Result<(), String> {
        let Some([first, second]) = self.vfs_of_choice() else {
            return Ok(());
        };
        self.note("PolicysOrder");
        for vf in [first, second] {
            self.stage.change(|kernel| kernel.set_cable(vf, false));
        }
        self.stage.run_ms(ASIDE_MS);
        self.stage.stop_service();
        self.stage.start_service();
        self.stage.run_ms(ASIDE_MS);
        for vf in [first, second] {
            self.stage.change(|kernel| kernel.set_cable(vf, true));
        }
        self.stage.run_ms(CALM_MS);
        self.check()?;
        let bond = self.stage.kernel.index_of(&name("bond0"));
        let link = bond.and_then(|bond| self.stage.kernel.dump_link(bond));
        let active = link.and_then(|link| link.bond).and_then(|bond| bond.active);
        let fault = format!(
            "{active:?} carries the traffic; {first} and {second} came at once, in the policy's order"
        );
        self.judge(Vec::from_iter((active != Some(first)).then_some(fault)))
    }

    /// The two VFs of the first bond in the policy's order, if both could carry its traffic and have a whole path, the
    /// standby could too, and the first gets its carrier no later than the second.
    fn vfs_of_choice(&self) -> Option<[Ifindex; 2]> {
        let status = self.stage.machine.as_ref()?.status();
        let bond = status.bonds.first()?;
        let ([backup], Some(vf), Some(standby)) = (&bond.backup_vfs[..], &bond.vf, &bond.standby)
        else {
            return None;
        };
        let ready = vf.active && backup.held == Some(Held::Backup);
        let aside = standby.enslaved && standby.carrier && standby.held.is_none();
        let mut vfs = [vf.ifindex, backup.ifindex];
        let place = |vf: &Ifindex| {
            let (spec, _) = self.stage.kernel.nic(*vf)?;
            let mut entries = self.stage.policy().bonds[0].vfs.iter();
            entries.position(|entry| entry.mac == Some(spec.mac))
        };
        vfs.sort_by_key(place);
        let delay = |vf: Ifindex| {
            self.stage
                .kernel
                .nic(vf)
                .map(|(spec, _)| spec.carrier_delay_ms)
        };
        let together = delay(vfs[0]) <= delay(vfs[1]);
        let whole = vfs.iter().all(|vf| self.stage.kernel.reaches_others(*vf));
        (ready && aside && together && whole && !has_hold(bond)).then_some(vfs)
    }
}

/// The host or an operator keeps a VF from being used.
fn has_hold(bond: &BondStatus) -> bool {
    let holds = [Held::Operator, Held::UnplugPrepared, Held::RemovalExpected];
    let mut vfs = bond.vf.iter().chain(&bond.backup_vfs);
    vfs.any(|vf| vf.held.is_some_and(|held| holds.contains(&held)))
}
