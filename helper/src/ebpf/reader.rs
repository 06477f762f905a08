//! Reads the ring buffer: bounded batches, and what was lost.

use std::{io, os::fd::AsRawFd};

use aya::maps::{Map, MapData, MapError, PerCpuArray, RingBuf};
use tandem_ebpf::ParseError;
use tokio::io::{Interest, unix::AsyncFd};

use super::event::Event;

/// Events taken per wake-up at most; the rest follow at the next call.
pub const MAX_BATCH: usize = 256;

/// What one wake-up brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Events, oldest first; at most [`MAX_BATCH`].
    pub events: Vec<Event>,
    /// Events that found the ring buffer full since the last batch: observe anew.
    pub lost: u64,
    /// The last record that could not be understood, if there was one.
    pub malformed: Option<ParseError>,
}

/// The service's end of the ring buffer.
pub(super) struct Reader {
    ring: AsyncFd<RingBuf<MapData>>,
    lost: PerCpuArray<MapData, u64>,
    lost_before: u64,
}

impl Reader {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(events: Map, lost: Map) -> io::Result<Self> {
        let ring = RingBuf::try_from(events).map_err(io::Error::other)?;
        let lost = PerCpuArray::try_from(lost).map_err(io::Error::other)?;
        Ok(Self {
            ring: watch_readable(ring)?,
            lost_before: count(&lost).map_err(io::Error::other)?,
            lost,
        })
    }

    /// Waits for events. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> io::Result<Batch> {
        let mut guard = self.ring.readable_mut().await?;
        let mut batch = Batch::default();
        let mut taken = 0;
        let ring = guard.get_inner_mut();
        while taken < MAX_BATCH {
            let Some(record) = ring.next() else {
                guard.clear_ready();
                break;
            };
            taken += 1;
            match Event::from_bytes(&record) {
                Ok(event) => batch.events.push(event),
                Err(error) => batch.malformed = Some(error),
            }
        }
        let lost = count(&self.lost).map_err(io::Error::other)?;
        batch.lost = lost.wrapping_sub(self.lost_before);
        self.lost_before = lost;
        Ok(batch)
    }
}

/// Registers aya's reader of a ring buffer with the tokio runtime.
pub(super) fn watch_readable<T: AsRawFd>(ring: T) -> io::Result<AsyncFd<T>> {
    #[expect(
        unsafe_code,
        reason = "tokio cannot check that the descriptor stays open"
    )]
    // SAFETY: only called with aya's `RingBuf` and `EbpfLogger`, which own the map's
    // descriptor, never change it, and are owned by the `AsyncFd` from here on.
    let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    Ok(registered?)
}

/// Sum over the CPUs.
fn count(lost: &PerCpuArray<MapData, u64>) -> Result<u64, MapError> {
    let per_cpu = lost.get(&0, 0)?;
    Ok(per_cpu.iter().fold(0, |sum, n| sum.wrapping_add(*n)))
}
