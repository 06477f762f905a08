//! What people and programs are told of a domain, and of an evacuation.

mod domain;
mod dry_run;
mod line;
mod outcome;

pub use domain::{BondReport, ChannelUse, DomainReport, EvacuationReport, domain_text};
pub(crate) use domain::{device, word};
pub use dry_run::{dry_run_json, dry_run_text};
pub use line::ProgressLine;
pub use outcome::{Folders, left, text_of};
