//! What people and programs are told of a domain, and of an evacuation.

mod domain;
mod line;
mod outcome;
mod plan;

pub use domain::{BondReport, ChannelUse, DomainReport, EvacuationReport, domain_text};
pub(crate) use domain::{device, word};
pub use line::ProgressLine;
pub use outcome::{Folders, left, text_of};
pub use plan::{plan_json, plan_text};
