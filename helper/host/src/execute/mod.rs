//! Carries out what [`crate::evacuate`] wants, over a [`crate::hypervisor::Host`] on either side and
//! the guest's agent, and hands back what came of it. Decides nothing itself.

mod calls;
pub(crate) mod guest;
mod lock;
mod record;
mod records;
mod runner;

pub use lock::{Lock, LockError, default_folder, file_of};
pub use records::{Records, RecordsError, default_records_folder};
pub use runner::{Hosts, RunEnd, Runner, Stops, Watcher};
