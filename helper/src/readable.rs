//! Waiting for file descriptors of foreign types.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Something with a file descriptor that can be waited for.
#[derive(Debug)]
pub(crate) struct Readable<T> {
    inner: T,
    /// A duplicate: it can't be closed or exchanged behind the runtime's back,
    /// whatever `inner` does.
    descriptor: AsyncFd<OwnedFd>,
}

impl<T: AsFd> Readable<T> {
    /// Registers it with the runtime that the caller runs in. `inner` has to be non-blocking.
    #[expect(unsafe_code, reason = "tokio has no safe registration of a descriptor")]
    pub(crate) fn new(inner: T) -> io::Result<Self> {
        let duplicate = inner.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` stays open, and the same, until it is dropped, and
        // nothing but the `AsyncFd` has it.
        let descriptor = unsafe { AsyncFd::register_with_interest(duplicate, Interest::READABLE) }?;
        Ok(Self { inner, descriptor })
    }

    /// Waits until a read may succeed. Safe to cancel.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.descriptor.readable().await?.retain_ready();
        Ok(())
    }

    /// Reads; if that would block, [`Readable::readable`] waits again.
    pub(crate) fn try_read<R>(&self, read: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        self.descriptor
            .try_io(Interest::READABLE, |_| read(&self.inner))
    }

    /// The thing itself.
    pub(crate) fn get(&self) -> &T {
        &self.inner
    }
}
