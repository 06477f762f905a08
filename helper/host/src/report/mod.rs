//! What people and programs are told of a domain.

mod domain;

pub use domain::{BondReport, ChannelUse, DomainReport, EvacuationReport, domain_text};
pub(crate) use domain::{device, word};
