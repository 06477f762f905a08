//! The guest's service: observes the kernel and the host, lets `tandem-core`
//! decide, and acts.
//!
//! ```text
//! observe/  ebpf/  channel/   ->  tandem_core::Machine  ->  act/  channel/
//!                        (all driven by run.rs, and by nothing else)
//! ```

pub mod act;
mod agent_port;
mod alarm;
pub mod ask;
pub mod channel;
pub mod check;
pub mod cli;
pub mod client;
pub mod config;
pub mod ebpf;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod heap;
pub mod initramfs;
pub mod journal;
pub mod logging;
mod managers;
mod netlink;
pub mod networkd;
pub mod nic_watch;
pub mod nics;
pub mod observe;
mod packet;
mod programs;
mod readable;
pub mod render;
pub mod replay;
pub mod run;
pub mod runtime;
pub mod service_manager;
pub mod setup;
mod socket_option;
pub mod surroundings;
pub mod system_files;
pub mod udev_marks;
mod udev_state;
