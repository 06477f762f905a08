//! From a URI to a hypervisor.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::control::{self, LeaseClient};
use crate::hypervisor::Host;
use crate::libvirt::Virsh;
use crate::qemu::Qemu;
use crate::trust::{UriError, UriOrigin, check_uri};

/// How to reach the hypervisor.
#[derive(Debug, Clone, Args)]
pub struct Connect {
    /// Hypervisor of the domain: a libvirt URI, or qmp:SOCKET[,agent=SOCKET]
    #[arg(
        long = "connect",
        short = 'c',
        default_value = "qemu:///system",
        value_name = "URI",
        value_parser = typed
    )]
    pub uri: String,
    /// Socket of `tandem-host serve`, which lends its guests' channels
    #[arg(
        long,
        value_name = "SOCKET",
        default_value_os_t = control::default_socket()
    )]
    pub serve_socket: PathBuf,
    /// A folder in which the sockets of guests' channels may be too, besides libvirt's own; may be repeated
    #[arg(long = "channel-folder", value_name = "FOLDER")]
    pub channel_folders: Vec<PathBuf>,
}

impl Connect {
    /// The driver; nothing is opened yet.
    pub fn open(&self) -> Arc<dyn Host> {
        self.driver(&self.uri)
    }

    /// The driver for another URI; nothing is opened yet.
    ///
    /// # Errors
    /// If it may not be opened.
    pub fn other(&self, uri: &str, origin: UriOrigin) -> Result<Arc<dyn Host>, UriError> {
        check_uri(uri, origin)?;
        Ok(self.driver(uri))
    }

    fn driver(&self, uri: &str) -> Arc<dyn Host> {
        match Qemu::from_uri(uri) {
            Some(qemu) => Arc::new(qemu),
            None => Arc::new(Virsh::new(uri).with_channel_folders(&self.channel_folders)),
        }
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
    check_uri(uri, UriOrigin::CommandLine)?;
    Ok(uri.to_owned())
}
