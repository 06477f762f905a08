//! Two real libvirt hosts on one machine, and a domain with the product that moves between them.
//!
//! A host is one of the lab's (a network namespace with a bridge) with a libvirtd of its own: in a mount,
//! UTS and process namespace, so that its files, its name and its QEMUs are its own and end with it.

mod daemon;
mod domain;
mod guest;
mod service;
mod story;
mod tool;
mod world;

pub use daemon::LibvirtHost;
pub(crate) use daemon::QEMU_CONFIG;
pub use domain::{CHANNEL_ALIAS, DISK_FILE, DomainSpec, MoreBond, VF_ALIAS, vf_xml};
pub use guest::{EVACUATION_LIMIT, LibvirtGuest};
pub use story::run as demo;
pub use tool::{
    Ran, Running, await_phase, file, operate, phase_of, program as host_program, serve,
    tandem_host, tandem_host_of,
};
pub use world::{DOMAIN, SLOW, Told, World, words};

use crate::Lab;
use crate::artifacts::host_tools::{self, HostTool};
use crate::command;

impl Lab {
    /// As [`Self::for_test`], on a machine with libvirt.
    ///
    /// # Panics
    /// If the lab cannot be made although this machine should be able to.
    pub fn for_libvirt_test(name: &str) -> Option<Self> {
        let lab = Self::for_test(name)?;
        let Err(error) = host_tools::ensure(&HostTool::LIBVIRT) else {
            return Some(lab);
        };
        let required = std::env::var("LAB_REQUIRE").is_ok_and(|value| value == "all");
        assert!(!required, "{name}: LAB_REQUIRE=all is set, but {error:#}");
        command::progress(&format!("skip: {name}: {error:#}"));
        None
    }
}
