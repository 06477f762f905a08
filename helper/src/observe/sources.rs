//! All sources behind one `next()`.

use std::path::PathBuf;

use tandem_core::types::IfName;

use super::{Completion, ObserveError, Observed};

/// Where to look; the default is the running system.
#[derive(Debug, Clone)]
pub struct Options {
    /// Root of sysfs.
    pub sysfs: PathBuf,
    /// udev's runtime folder: `control` in it tells that udevd runs.
    pub udev_run: PathBuf,
    /// Receive buffer of each multicast socket, in bytes.
    pub receive_buffer_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sysfs: PathBuf::from("/sys"),
            udev_run: PathBuf::from("/run/udev"),
            receive_buffer_bytes: 4 * 1024 * 1024,
        }
    }
}

/// Links, addressing, device events and the clock.
#[derive(Debug)]
pub struct Sources {}

impl Sources {
    /// Subscribes to everything. The first batches of [`Sources::next`] then hold the
    /// health of each source, all links and all addressing.
    ///
    /// Has to be called within a tokio runtime.
    pub fn open(options: Options) -> Result<Self, ObserveError> {
        let _ = options;
        Ok(Self {})
    }

    /// The next batch, never empty. Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> Result<Vec<Observed>, ObserveError> {
        std::future::pending().await
    }

    /// Links of these names are reported whatever their kind, so that a name taken by
    /// another device is seen. Call it with the policy's bond names when it changes.
    pub fn set_names(&mut self, names: &[IfName]) -> Result<(), ObserveError> {
        let _ = names;
        Ok(())
    }

    /// Takes an action that has ended; what it touched is read, then its `Input::Done`
    /// follows, both from [`Sources::next`].
    pub fn complete(&mut self, completion: Completion) {
        let _ = completion;
    }
}
