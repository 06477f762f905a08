//! One side of a frame probe: sends numbered datagrams at a fixed rate and notes what arrives.

use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::net::sockopt;
use rustix::time::{ClockId, clock_gettime};
use tandem_lab::probe::proto::{DATAGRAM_BYTES, Datagram, FrameSpec, Received, Sent, SideLog};

/// Frames noted in each direction at most: over an hour at 1000 a second.
const LOG_LIMIT: usize = 4 << 20;
/// Room for what arrives while this process does not run, in bytes.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Frames that are late by no more than this are sent at once: an emulated guest often does not run for some ms, and the
/// rate is to be kept.
const CATCH_UP: Duration = Duration::from_millis(50);
/// include/uapi/asm-generic/sockios.h: the time of the last datagram read, for 64-bit machines.
const SIOCGSTAMPNS: rustix::ioctl::Opcode = 0x8907;
/// How soon the receiver notices that it shall end.
const RECEIVE_WAIT: Duration = Duration::from_millis(200);

/// The frame probes under way, by number.
#[derive(Default)]
pub(crate) struct FrameProbes {
    sides: Mutex<BTreeMap<u32, Arc<Side>>>,
}

impl FrameProbes {
    pub(crate) fn start(&self, spec: FrameSpec) -> Result<()> {
        if spec.rate_hz == 0 || usize::from(spec.payload_bytes) < DATAGRAM_BYTES {
            bail!("a frame probe needs a rate and at least {DATAGRAM_BYTES} bytes of payload");
        }
        let mut sides = self.lock();
        if sides.contains_key(&spec.probe) {
            bail!("frame probe {} is already under way", spec.probe);
        }
        sides.insert(spec.probe, Side::start(spec)?);
        Ok(())
    }

    pub(crate) fn wait(&self, probe: u32, limit: Duration) -> Result<()> {
        self.find(probe)?.wait_running(limit)
    }

    pub(crate) fn stop(&self, probe: u32) -> Result<()> {
        self.find(probe)?.stop_sending();
        Ok(())
    }

    pub(crate) fn end(&self, probe: u32) -> Result<SideLog> {
        let side = self.find(probe)?;
        self.lock().remove(&probe);
        Ok(side.end())
    }

    fn find(&self, probe: u32) -> Result<Arc<Side>> {
        self.lock()
            .get(&probe)
            .cloned()
            .with_context(|| format!("there is no frame probe {probe}"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Side>>> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Handshake {
    heard: bool,
    peer_heard: bool,
}

struct Side {
    spec: FrameSpec,
    socket: UdpSocket,
    handshake: Mutex<Handshake>,
    changed: Condvar,
    sent: Mutex<Vec<Sent>>,
    received: Mutex<Vec<Received>>,
    sending: AtomicBool,
    receiving: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Side {
    fn start(spec: FrameSpec) -> Result<Arc<Self>> {
        let socket = UdpSocket::bind(spec.local)
            .with_context(|| format!("cannot receive at {}", spec.local))?;
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES)
            .context("cannot enlarge the receive buffer")?;
        // The other side may be all stations of a network.
        socket
            .set_broadcast(true)
            .context("cannot send broadcasts")?;
        socket
            .set_read_timeout(Some(RECEIVE_WAIT))
            .context("cannot bound reads")?;
        let side = Arc::new(Self {
            spec,
            socket,
            handshake: Mutex::default(),
            changed: Condvar::new(),
            sent: Mutex::default(),
            received: Mutex::default(),
            sending: AtomicBool::new(true),
            receiving: AtomicBool::new(true),
            threads: Mutex::default(),
        });
        let (sender, receiver) = (Arc::clone(&side), Arc::clone(&side));
        lock(&side.threads).extend([
            std::thread::spawn(move || sender.send()),
            std::thread::spawn(move || receiver.receive()),
        ]);
        Ok(side)
    }

    fn wait_running(&self, limit: Duration) -> Result<()> {
        let waited = self
            .changed
            .wait_timeout_while(lock(&self.handshake), limit, |handshake| {
                !(handshake.heard && handshake.peer_heard)
            });
        let (handshake, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            bail!(
                "no frames between {} and {}: this side heard the other: {}; the other heard this one: {}",
                self.spec.local,
                self.spec.remote,
                handshake.heard,
                handshake.peer_heard
            );
        }
        Ok(())
    }

    fn stop_sending(&self) {
        self.sending.store(false, Ordering::Relaxed);
    }

    fn end(&self) -> SideLog {
        self.stop_sending();
        self.receiving.store(false, Ordering::Relaxed);
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A thread that panicked has told so; what it noted before still counts.
            let _ = thread.join();
        }
        SideLog {
            sent: std::mem::take(&mut lock(&self.sent)),
            received: std::mem::take(&mut lock(&self.received)),
        }
    }

    fn send(&self) {
        let interval = Duration::from_secs(1) / self.spec.rate_hz;
        let mut payload = vec![0; usize::from(self.spec.payload_bytes)];
        let mut next = Instant::now();
        let mut sequence = 0;
        while self.sending.load(Ordering::Relaxed) && lock(&self.sent).len() < LOG_LIMIT {
            let (datagram, counted) = {
                let handshake = lock(&self.handshake);
                match handshake.heard && handshake.peer_heard {
                    true => (Datagram::Numbered { sequence }, true),
                    false => (
                        Datagram::Hello {
                            heard: handshake.heard,
                        },
                        false,
                    ),
                }
            };
            let mut head = [0; DATAGRAM_BYTES];
            datagram.encode(self.spec.probe, &mut head);
            payload[..DATAGRAM_BYTES].copy_from_slice(&head);
            let at_us = monotonic_us();
            let accepted = self.socket.send_to(&payload, self.spec.remote).is_ok();
            if counted {
                lock(&self.sent).push(Sent { at_us, accepted });
                sequence += 1;
            }
            next += interval;
            let now = Instant::now();
            // After a longer stand-still they are left out, so that no burst follows it.
            if next + CATCH_UP < now {
                next = now + interval;
            }
            std::thread::sleep(next.saturating_duration_since(now));
        }
    }

    fn receive(&self) {
        let mut bytes = vec![0; 65536];
        while self.receiving.load(Ordering::Relaxed) {
            let count = match self.socket.recv(&mut bytes) {
                Ok(count) => count,
                Err(error) if is_temporary(&error) => continue,
                Err(_) => return,
            };
            let at_us = monotonic_us().saturating_sub(taken_in_ago_us(&self.socket));
            let Some(datagram) = Datagram::decode(self.spec.probe, &bytes[..count]) else {
                continue;
            };
            let mut handshake = lock(&self.handshake);
            handshake.heard = true;
            match datagram {
                Datagram::Hello { heard } => handshake.peer_heard |= heard,
                // Only a side that was heard sends numbers.
                Datagram::Numbered { .. } => handshake.peer_heard = true,
            }
            drop(handshake);
            self.changed.notify_all();
            if let Datagram::Numbered { sequence } = datagram {
                let mut received = lock(&self.received);
                if received.len() < LOG_LIMIT {
                    received.push(Received { sequence, at_us });
                }
            }
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    matches!(
        error.kind(),
        WouldBlock | TimedOut | Interrupted | ConnectionRefused
    )
}

/// How long ago the kernel took in the datagram that was read last, in µs: this thread may have come to it late.
/// 0 for the first one, which has the kernel note such times (socket(7), `SIOCGSTAMP`).
fn taken_in_ago_us(socket: &UdpSocket) -> u64 {
    #[expect(
        unsafe_code,
        reason = "rustix offers ioctls without names as unsafe only"
    )]
    // SAFETY: SIOCGSTAMPNS writes one timespec (`sock_gettstamp`, net/core/sock.c, 6.12).
    let stamp = unsafe {
        let ask = rustix::ioctl::Getter::<SIOCGSTAMPNS, rustix::fs::Timespec>::new();
        rustix::ioctl::ioctl(socket, ask)
    };
    let us = |time: rustix::fs::Timespec| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
    };
    let now = us(clock_gettime(ClockId::Realtime));
    stamp.map_or(0, |stamp| now.saturating_sub(us(stamp)))
}

fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
