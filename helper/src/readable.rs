//! Waiting for file descriptors of foreign types.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Something with a file descriptor that can be waited for.
#[derive(Debug)]
pub(crate) struct Readable<T> {
    inner: T,
    descriptor: AsyncFd<OwnedFd>,
}

impl<T: AsFd> Readable<T> {
    /// Registers it with the runtime that the caller runs in. `inner` has to be non-blocking.
    pub(crate) fn new(inner: T) -> io::Result<Self> {
        // A duplicate: it can't be closed or exchanged behind the runtime's back, whatever
        // `inner` does.
        let descriptor = watch(inner.as_fd().try_clone_to_owned()?)?;
        Ok(Self { inner, descriptor })
    }

    /// Waits until a read may succeed. Safe to cancel.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.descriptor.readable().await?.retain_ready();
        Ok(())
    }

    /// Reads; if that would block, [`Readable::readable`] waits again.
    pub(crate) fn try_read<R>(
        &mut self,
        read: impl FnOnce(&mut T) -> io::Result<R>,
    ) -> io::Result<R> {
        let inner = &mut self.inner;
        self.descriptor.try_io(Interest::READABLE, |_| read(inner))
    }

    /// The thing itself.
    pub(crate) fn get(&self) -> &T {
        &self.inner
    }
}

/// Registers a descriptor with the runtime that the caller runs in.
#[expect(unsafe_code, reason = "tokio has no safe registration of a descriptor")]
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open, and the same, until it is dropped, and
    // nothing but the `AsyncFd` has it.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(watched?)
}
