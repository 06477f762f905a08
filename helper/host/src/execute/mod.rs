//! Carries out what [`crate::evacuate`] wants, over a [`crate::hypervisor::Host`] on either side and
//! the guest's agent, and hands back what came of it. Decides nothing itself.

mod calls;
mod carried;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod guest;
mod hosts;
mod lock;
mod owner;
mod record;
mod records;
mod runner;

pub use hosts::Hosts;
pub use lock::{Lock, LockError, file_of};
pub(crate) use owner::{is_of_this_machine, owner_is_dead, random_name, this_process};
pub use records::{Records, RecordsError, default_records_folder};
pub use runner::{RunEnd, Runner, Stops, Watcher};
