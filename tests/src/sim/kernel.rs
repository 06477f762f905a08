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

    /// All links that matter to the service: NICs and bonds.
    fn links(&mut self) -> Result<Vec<Link>>;

    /// Addresses and routes of all those links that have any.
    fn addressings(&mut self) -> Result<Vec<Addressing>>;

    /// The NIC that is always there.
    fn standby(&mut self) -> Result<Ifindex>;

    /// Plugs a VF in and waits until its interface is there.
    fn plug_vf(&mut self, mac: Mac) -> Result<Ifindex>;

    /// As [`Kernel::plug_vf`], a VF of a real kind, driven by `igbvf`. If it is pinned, its PF lets nobody change
    /// its MAC.
    fn plug_igbvf(&mut self, mac: Mac, pinned: bool) -> Result<Ifindex>;

    /// Plugs the VF out and waits until its interface is gone.
    fn unplug_vf(&mut self, vf: Ifindex) -> Result<()>;

    /// Plugs a cable in or out; does not wait until anything takes note.
    fn set_cable(&mut self, nic: Ifindex, plugged: bool) -> Result<()>;

    /// Renames an interface as another manager may; an error if the kernel refuses.
    fn rename(&mut self, link: Ifindex, name: &IfName) -> Result<()>;

    /// Puts a device of that kind on top of a NIC, such as a `macvlan`, or takes it away.
    fn occupy(&mut self, nic: Ifindex, kind: Option<&str>) -> Result<()>;

    /// Makes a port the active one, as another manager may; false if the kernel refuses.
    fn set_active(&mut self, bond: Ifindex, port: Ifindex) -> Result<bool>;

    /// Removes a bond, so that the next case starts clean.
    fn delete_bond(&mut self, bond: Ifindex) -> Result<()>;

    /// Waits until the links fulfil a condition, as long as drivers and link
    /// monitors may take: the fake kernel in its own time, a real one in ours.
    /// An error if they don't in that time.
    fn wait(&mut self, condition: &dyn Fn(&[Link]) -> bool) -> Result<()>;
}
