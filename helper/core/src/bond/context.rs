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
    /// The ports of the bond that Tandem keeps in order: the standby and the chosen VFs, unless they leave.
    pub(crate) fn kept_ports(&self) -> impl Iterator<Item = &'a Port<'a>> {
        let memory = self.memory;
        let nics = self.view.standby.iter().chain(self.choice.vfs());
        nics.filter(move |nic| nic.enslaved && !memory.is_leaving(nic))
    }

    /// The VFs that the bond takes in next, each as soon as it may.
    pub(crate) fn next_vfs(&self, bond: &Bond<'_>) -> impl Iterator<Item = &'a Port<'a>> {
        let mtu = bond.link.mtu;
        let served = self.standby_is_served();
        let (memory, now) = (self.memory, self.now);
        let may_join = move |vf: &&Port<'_>| {
            served
                && vf.takes_mtu(mtu)
                && !vf.enslaved
                && !vf.is_occupied()
                && !memory.is_leaving(vf)
                && memory.vfs.may_join(vf, now)
        };
        self.choice.vfs().filter(may_join)
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
