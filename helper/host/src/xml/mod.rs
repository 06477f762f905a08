//! The `<bond>` of the RFC "Live Migration with Pass-through Devices proposal" (Chen Fan, libvir-list,
//! 2015), in Tandem's own namespace inside libvirt's `<metadata>`.
//!
//! libvirt keeps elements of other namespaces there and takes them along when the
//! domain migrates. `schema/bonds.rng` describes the same grammar as [`bonds`];
//! `schema/examples/` shows it.

pub mod bonds;
mod bounds;
pub mod device;
pub mod domain;
mod element;
mod error;
pub(crate) mod network;
mod node;
mod policy;
#[cfg(test)]
mod tests;
pub(crate) mod types;
mod unmigratable;
pub(crate) mod write;

pub use bonds::Document;
pub use error::{Place, XmlError};
pub use types::{
    Addressing, BONDS_NAMESPACE, Bond, BondDevice, Bonds, CLAIM_NAMESPACE, PROGRESS_NAMESPACE,
};
