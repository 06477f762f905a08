//! The host's half of Tandem: takes a guest's VF away, has the hypervisor migrate
//! the guest, plugs in another VF, and undoes it all when something fails.
//!
//! ```text
//! hypervisor (virsh | qemu), agent  --observe-->  decide (pure)  --Action-->  act
//! ```
//!
//! The hypervisor moves the guest; nothing here touches its memory. All bytes of
//! a guest, and every wait on a hypervisor, have a bound.

pub mod act;
pub mod agent;
pub mod cli;
pub mod commands;
pub mod control;
pub mod decide;
pub mod hypervisor;
pub mod qemu;
pub mod report;
pub mod serve;
pub mod virsh;
pub mod xml;
