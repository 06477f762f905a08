//! From a URI to a hypervisor.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::control::{self, LeaseClient};
use crate::hypervisor::Host;
use crate::libvirt::Virsh;
use crate::qemu::Qemu;
use crate::trust::{Origin, UriError, check_uri};

/// How to reach the hypervisor.
#[derive(Debug, Clone, Args)]
pub struct Connect {
    /// How to reach the domain's hypervisor: a libvirt URI, or qmp:SOCKET[,agent=SOCKET]
    #[arg(
        long = "connect",
        short = 'c',
        default_value = "qemu:///system",
        value_name = "URI",
        value_parser = typed
    )]
    pub uri: String,
    /// Where `tandem-host serve` listens; its guests' channels are borrowed from it
    #[arg(
        long,
        value_name = "SOCKET",
        default_value_os_t = control::default_socket()
    )]
    pub serve_socket: PathBuf,
}

impl Connect {
    /// The driver; nothing is opened yet.
    pub fn open(&self) -> Arc<dyn Host> {
        driver(&self.uri)
    }

    /// The way to one domain's channel; nothing is asked yet.
    pub fn lease_client(&self) -> LeaseClient {
        LeaseClient::new(&self.serve_socket)
    }
}

/// A URI as it was typed, if it may be opened.
///
/// # Errors
/// If it may not.
pub(super) fn typed(uri: &str) -> Result<String, UriError> {
    check_uri(uri, Origin::CommandLine)?;
    Ok(uri.to_owned())
}

/// The driver for that URI; nothing is opened yet.
///
/// # Errors
/// If it may not be opened.
pub fn open(uri: &str, origin: Origin) -> Result<Arc<dyn Host>, UriError> {
    check_uri(uri, origin)?;
    Ok(driver(uri))
}

fn driver(uri: &str) -> Arc<dyn Host> {
    match Qemu::from_uri(uri) {
        Some(qemu) => Arc::new(qemu),
        None => Arc::new(Virsh::new(uri)),
    }
}
