//! Who sends to the guest, and how much.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tandem_carry_kernel::Injector;

use crate::network::{GUEST, PEER, frame, send};

pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];
/// Numbers of broadcasts are beyond these.
pub(crate) const GROUP: u64 = 1 << 32;

/// Sends until it is told to stop; how many to the guest, and to all.
pub(crate) struct Peer {
    stop: Arc<AtomicBool>,
    pub(crate) sent: Arc<[AtomicU64; 2]>,
    thread: JoinHandle<()>,
}

impl Peer {
    pub(crate) fn start() -> Self {
        Self::every(Duration::from_micros(200))
    }

    /// One to the guest so often.
    pub(crate) fn every(pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent: Arc<[AtomicU64; 2]> = Arc::default();
        let (told, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let peer = Injector::new("peer").unwrap();
            let (mut numbers, mut round) = ([0, 0], 0);
            while !told.load(Ordering::Relaxed) {
                numbers[0] += 1;
                send(&peer, &frame(GUEST, PEER, numbers[0]));
                if round % 10 == 0 {
                    numbers[1] += 1;
                    send(&peer, &frame(BROADCAST, PEER, GROUP + numbers[1]));
                }
                round += 1;
                count[0].store(numbers[0], Ordering::Relaxed);
                count[1].store(numbers[1], Ordering::Relaxed);
                thread::sleep(pause);
            }
        });
        Self { stop, sent, thread }
    }

    pub(crate) fn end(self) -> [u64; 2] {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        [0, 1].map(|at| self.sent[at].load(Ordering::Relaxed))
    }
}
