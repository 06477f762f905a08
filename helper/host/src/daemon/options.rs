//! How to serve, and why that can't begin.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::files::default_folder;
use crate::hypervisor::HostError;

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether a domain or guest changed unnoticed is asked this often.
    pub interval: Duration,
    /// File for `OpenMetrics`, written anew after changes.
    pub metrics: Option<PathBuf>,
    /// Loopback address on which `GET /metrics` is answered.
    pub listen: Option<SocketAddr>,
    /// The control socket.
    pub socket: Option<PathBuf>,
    /// Where lock files are, by which other tools' evacuations are known.
    pub state: PathBuf,
    /// From where domains that came without their VF shall get it, if at all.
    pub replug: Option<Sources>,
}

/// Where it stands what `serve` may plug in. A domain's metadata does not say.
#[derive(Debug, Clone)]
pub struct Sources {
    /// This host's own records.
    pub records: PathBuf,
    /// The file of networks, see [`crate::trust::ReplugFile`].
    pub file: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(300),
            metrics: None,
            listen: None,
            socket: None,
            state: default_folder(),
            replug: None,
        }
    }
}

/// Why the service can't begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The hypervisor has no events at all.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Another one has the socket.
    #[error("another `tandem-host serve` listens on {}; end it, or name another --serve-socket", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// The socket can't be made.
    #[error("the control socket {} can't be made: {source}; run this command as root, or name another --serve-socket", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Others could reach it.
    #[error("--listen {address} could be reached from other machines; use 127.0.0.1:{} or [::1]:{}", address.port(), address.port())]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The service's sandbox has no network (socket(2), EAFNOSUPPORT).
    #[error(
        "the metrics can't be served on {address}: the unit's sandbox has no network; --listen needs its drop-in tandem-host-listen.conf"
    )]
    NoNetwork {
        /// The address.
        address: SocketAddr,
    },
    /// The port can't be had.
    #[error("the metrics can't be served on {address}: {source}; name another --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
}
