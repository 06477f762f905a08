//! Tandem's lab: real kernels in QEMU, real hot-plug, real migrations, on namespaces of one machine.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use tandem_lab::{Lab, NicModel, test_mac};
//!
//! let lab = Lab::new("example")?;
//! let (here, there) = (lab.host("a")?, lab.host("b")?);
//! let mut vm = lab
//!     .small_guest()
//!     .standby(test_mac(1))
//!     .vf(NicModel::Igb, test_mac(2))
//!     .boot(&here)?;
//! vm.sh("ip link")?;
//! vm.unplug_vf()?;
//! vm.migrate_to(&there)?;
//! vm.plug_vf(NicModel::Igb, test_mac(3))?;
//! # Ok(())
//! # }
//! ```
//!
//! | variable | meaning |
//! |---|---|
//! | `LAB_CACHE` | where fetched things are kept; else `target/lab` |
//! | `LAB_KERNEL`, `LAB_MODULES` | a kernel image and its `lib/modules/RELEASE`, instead of Debian's |
//! | `LAB_KERNEL_VERSION` | which of Debian's kernels suites use: 6.1, 6.12 or 7.3 |
//! | `LAB_GUEST_SUITE` | which Debian full guests are: `trixie`, `forky`, or `bookworm`, best with `LAB_KERNEL_VERSION=6.1` |
//! | `LAB_BUSYBOX` | a static busybox, instead of Debian's |
//! | `LAB_QEMU` | a `qemu-system-x86_64` of 11.0 or later, instead of this machine's or Debian's |
//! | `LAB_LIBVIRT_QEMU` | the same for libvirt: 10.0.4 or later, but not 11 |
//! | `LAB_ACCEL` | `tcg` or `kvm`, instead of trying |
//! | `LAB_SAVED_STATES` | `off`: each guest boots, none goes on from where another had booted |
//! | `LAB_REQUIRE` | `all`: a suite that would be skipped fails |

pub mod addressing;
pub mod agent;
pub mod artifacts;
mod boot;
pub mod carried;
pub mod command;
pub mod demo;
pub mod dhcp;
pub mod evacuation;
pub mod full_guest;
mod guest_net;
pub mod initramfs;
mod lab;
pub mod libvirt;
pub mod net;
pub mod probe;
pub mod process;
pub mod qemu;
pub mod readme;
mod run_folder;
mod saved_state;
pub mod sim;
pub mod situation;
mod small_guest;
pub mod soak;
pub mod tandem;
pub mod timeline;
pub mod usage;
pub mod vfio;
mod vm;

pub use artifacts::Kernel;
pub use lab::Lab;
pub use net::{Client, Host};
pub use qemu::{DOWNTIME_LIMIT_MS, HotPlug, Mac, MigrationReport, Nic, NicModel, Slot, test_mac};
pub use small_guest::SmallGuest;
pub use vm::{CHANNEL_PORT_NAME, GuestImage, Hardware, Vm, Waiting};
