//! What plan and report depend on: a bond as a turn has left it.

use crate::bond::choice::Choice;
use crate::bond::memory::Memory;
use crate::bond::view::{Bond, BondView, Port};
use crate::model::policy::MacPolicy;
use crate::model::types::Time;

pub(crate) struct Context<'a> {
    pub(crate) view: &'a BondView<'a>,
    pub(crate) choice: &'a Choice<'a>,
    pub(crate) memory: &'a Memory,
    pub(crate) now: Time,
}

impl<'a> Context<'a> {
    /// The ports of the bond that Tandem keeps in order: the standby and the chosen VF, unless they leave.
    pub(crate) fn kept_ports(&self) -> impl Iterator<Item = &'a Port<'a>> {
        let memory = self.memory;
        let nics = self.view.standby.iter().chain(self.choice.vf);
        nics.filter(move |nic| nic.enslaved && !memory.is_leaving(nic))
    }

    /// The VF that the bond takes in next.
    pub(crate) fn next_vf(&self, bond: &Bond<'_>) -> Option<&'a Port<'a>> {
        let vf = self.choice.vf?;
        let may_join = vf.takes_mtu(bond.link.mtu)
            && !vf.enslaved
            && !vf.is_occupied()
            && !self.memory.is_leaving(vf)
            && self.memory.vfs.may_join(vf, self.now)
            && self.standby_is_served();
        may_join.then_some(vf)
    }

    /// The standby is in the bond, or is nothing the VF should wait for. A VF with
    /// the standby's MAC must not join while the standby itself is up outside.
    fn standby_is_served(&self) -> bool {
        let policy = self.view.policy;
        self.view.standby.as_ref().is_none_or(|standby| {
            let inherits = policy.addressing.inherits();
            let follows = policy.mac == MacPolicy::Follow;
            let aside = if standby.taken {
                follows
            } else if self.memory.is_left_alone(self.view, standby) {
                follows && !inherits
            } else {
                self.memory.is_refused(self.view, standby) && !inherits
            };
            standby.enslaved || aside
        })
    }
}
