//! The host's half of Tandem: takes a guest's VF away, has the hypervisor migrate
//! the guest, plugs in another VF, and undoes it all when something fails.
//!
//! ```text
//! hypervisor (libvirt | qemu), agent  --observe-->  evacuate (pure)  --Action-->  execute
//! ```
//!
//! The hypervisor moves the guest; nothing here touches its memory. All bytes of
//! a guest, and every wait on a hypervisor, have a bound.

pub mod agent;
pub mod carry;
pub mod cli;
pub mod commands;
pub mod control;
pub mod daemon;
pub mod evacuate;
pub mod execute;
mod files;
pub mod hypervisor;
pub mod libvirt;
mod pf;
pub mod qemu;
pub mod report;
pub mod trust;
pub mod words;
pub mod xml;
