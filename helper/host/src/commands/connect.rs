//! From a URI to a hypervisor.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::control::{self, Lessor};
use crate::hypervisor::Host;
use crate::qemu::Qemu;
use crate::virsh::Virsh;

/// How to reach the hypervisor.
#[derive(Debug, Clone, Args)]
pub struct Connect {
    /// How to reach the domain's hypervisor: a libvirt URI, or qmp:SOCKET[,agent=SOCKET]
    #[arg(
        long = "connect",
        short = 'c',
        default_value = "qemu:///system",
        value_name = "URI"
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
        open(&self.uri)
    }

    /// The way to one domain's channel; nothing is asked yet.
    pub fn lessor(&self) -> Lessor {
        Lessor::new(&self.serve_socket)
    }
}

/// The driver for that URI; nothing is opened yet.
pub fn open(uri: &str) -> Arc<dyn Host> {
    match Qemu::from_uri(uri) {
        Some(qemu) => Arc::new(qemu),
        None => Arc::new(Virsh::new(uri)),
    }
}

/// A unix socket that this hypervisor shows can be opened here: the URI names no other machine.
pub fn is_local(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return true;
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    host.is_empty() || scheme.ends_with("+unix")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_with_a_host_is_another_machine() {
        for local in [
            "qemu:///system",
            "qemu+unix:///system?socket=/run/a",
            "qmp:/run/a",
            "test:///default",
        ] {
            assert!(is_local(local), "{local}");
        }
        for remote in ["qemu+ssh://b/system", "qemu+tls://192.0.2.1/system"] {
            assert!(!is_local(remote), "{remote}");
        }
    }
}
