//! Why the programs on a switchover's paths can't do what is wanted.

use aya::maps::MapError;
use tandem_ebpf::{MAX_BONDS, MAX_PORTS};
use thiserror::Error;

/// Why a setup was not applied.
#[derive(Debug, Error)]
pub enum FastPathError {
    /// The monitor was stopped.
    #[error("the eBPF monitor has been stopped")]
    Stopped,
    /// A later order about the same bond was carried out before.
    #[error("a later order about link {bond} has overtaken this one")]
    Overtaken {
        /// Ifindex of the bond.
        bond: u32,
    },
    /// There is room for [`MAX_BONDS`] bonds.
    #[error("{MAX_BONDS} bonds have a fast path already; link {bond} has to do without")]
    TooManyBonds {
        /// Ifindex of the bond that is too many.
        bond: u32,
    },
    /// There is room for [`MAX_PORTS`] ports.
    #[error("{MAX_PORTS} ports are watched already; those of link {bond} have to do without")]
    TooManyPorts {
        /// Ifindex of the bond whose ports are too many.
        bond: u32,
    },
    /// The kernel refused a change of a map.
    #[error("the maps of the eBPF programs can't be used: {0}")]
    Map(#[from] MapError),
    /// The fast path's thread could not be started.
    #[error("the fast path's thread can't be started: {0}")]
    Threads(#[source] std::io::Error),
    /// Something about the running system can't be read.
    #[error("cannot read {what}: {error}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        error: std::io::Error,
    },
}
