//! Two emulated hypervisors with a real `vfio-pci`: what emulated NICs in a guest can't show.
//!
//! A hypervisor is a guest of the lab (L1) with an emulated IOMMU, an igb PF with SR-IOV and a libvirt of its own. Its
//! own guest (L2) runs on KVM, nested by QEMU's emulation of the processor's virtualisation, and gets a VF of that PF
//! by vfio-pci, which the guest's igbvf drives. `tandem-host` runs on this machine; the hypervisors' sockets are
//! brought to it ([`relay`]).
//!
//! ```text
//!  this machine:  tandem-host, virsh ---- sockets ----+------------------------------+
//!                                                     |                              |
//!  hypervisor a (QEMU, TCG):  libvirtd - QEMU (KVM) - guest    hypervisor b:  libvirtd - …
//!                             br0 - virtio uplink              the same
//!                             igb PF - VF (vfio-pci)
//!                              |        |
//!  the lab's host a:          br0 ------+---- switch ---- host b …
//! ```
//!
//! A bridge over the PF itself does not work with QEMU's igb (11.1): it brings a sender's broadcasts back to it. So
//! the bridge's uplink is another NIC.

mod domain;
mod guest;
mod hypervisor;
mod image;
pub mod relay;
pub mod remote;
mod story;
mod vhost;

pub use domain::{Form, NETWORK, VF_ALIAS};

/// Frames a second in each direction: an emulated guest of an emulated hypervisor has no time for more.
pub const RATE_HZ: u32 = 20;

pub use guest::VfioGuest;
pub use hypervisor::Hypervisor;
pub use story::{run as demo, start};
pub use vhost::VhostStage;
