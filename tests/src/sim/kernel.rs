//! What a kernel has to offer so that the contract suite can examine it.

use anyhow::Result;
use tandem_core::action::ActionKind;
use tandem_core::input::Outcome;
use tandem_core::link::{Addressing, Link};
use tandem_core::{IfName, Ifindex, Mac};

/// A kernel with a standby NIC and a slot for a VF: the fake one of the
/// simulation, or a real one in a guest.
pub trait Kernel {
    /// Carries an action out and says what came of it.
    fn act(&mut self, action: &ActionKind) -> Result<Outcome>;

    /// All links.
    fn links(&mut self) -> Result<Vec<Link>>;

    /// Addresses and routes of all links that have any.
    fn addressings(&mut self) -> Result<Vec<Addressing>>;

    /// The NIC that is always there.
    fn standby(&mut self) -> Result<Ifindex>;

    /// Plugs a VF in and waits until its interface is there.
    fn plug_vf(&mut self, mac: Mac) -> Result<Ifindex>;

    /// Plugs the VF out and waits until its interface is gone.
    fn unplug_vf(&mut self, vf: Ifindex) -> Result<()>;

    /// Plugs a cable in or out.
    fn set_carrier(&mut self, nic: Ifindex, up: bool) -> Result<()>;

    /// Renames an interface.
    fn rename(&mut self, link: Ifindex, name: &IfName) -> Result<()>;

    /// Removes a bond, so that the next case starts clean.
    fn delete_bond(&mut self, bond: Ifindex) -> Result<()>;

    /// Waits until drivers and link monitors had time to notice what happened.
    fn settle(&mut self) -> Result<()>;
}
