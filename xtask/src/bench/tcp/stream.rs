//! Bytes over TCP between two network namespaces, and what they took.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fd::AsFd;
use rustix::thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use tandem_lab::net::Namespace;

use super::{GUEST, PEER, Way};

const CHUNK_BYTES: usize = 128 << 10;
/// More than a round takes on a machine that does something else meanwhile.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// What one round took.
#[derive(Clone, Copy)]
pub(super) struct Round {
    pub(super) bytes: u64,
    pub(super) wall_s: f64,
    pub(super) cpu_s: f64,
}

/// A TCP connection between the two namespaces, whose ends share a processor.
pub(super) struct Stream {
    sender: TcpStream,
    receiver: TcpStream,
    processor: usize,
    softirq_threads: Vec<String>,
}

impl Stream {
    pub(super) fn open(guest: &Namespace, peer: &Namespace, way: Way) -> Result<Self> {
        let (server, client, address) = match way {
            Way::FromGuest => (peer, guest, PEER),
            Way::ToGuest => (guest, peer, GUEST),
        };
        let listener = inside(server, move || Ok(TcpListener::bind((address, 0))?))?;
        let address: SocketAddr = listener.local_addr()?;
        let sender = inside(client, move || {
            Ok(TcpStream::connect_timeout(&address, STALL_LIMIT)?)
        })?;
        let (receiver, _) = listener.accept()?;
        receiver.set_read_timeout(Some(STALL_LIMIT))?;
        sender.set_write_timeout(Some(STALL_LIMIT))?;
        Ok(Self {
            sender,
            receiver,
            processor: last_processor()?,
            softirq_threads: softirq_threads()?,
        })
    }

    /// Moves so many bytes.
    pub(super) fn round(&mut self, bytes: u64) -> Result<Round> {
        let bytes = bytes.next_multiple_of(CHUNK_BYTES as u64);
        let (sender, receiver, processor) = (&mut self.sender, &mut self.receiver, self.processor);
        let softirq_before_ns = softirq_ns(&self.softirq_threads)?;
        let start = Instant::now();
        let (sent, received) = std::thread::scope(|scope| {
            let sending = scope.spawn(move || {
                on_processor(processor)?;
                let chunk = vec![0; CHUNK_BYTES];
                for _ in 0..bytes / CHUNK_BYTES as u64 {
                    sender.write_all(&chunk).context("cannot send")?;
                }
                Ok::<_, anyhow::Error>(thread_cpu_s())
            });
            let receiving = scope.spawn(move || {
                on_processor(processor)?;
                let mut chunk = vec![0; CHUNK_BYTES];
                let mut left = bytes;
                while left > 0 {
                    let most = chunk.len().min(usize::try_from(left)?);
                    match receiver
                        .read(&mut chunk[..most])
                        .context("cannot receive")?
                    {
                        0 => bail!("the connection ended"),
                        count => left -= count as u64,
                    }
                }
                Ok((thread_cpu_s(), start.elapsed()))
            });
            (joined(sending), joined(receiving))
        });
        let (sent_cpu_s, (received_cpu_s, wall)) = (sent?, received?);
        let softirq_ns = softirq_ns(&self.softirq_threads)?.saturating_sub(softirq_before_ns);
        Ok(Round {
            bytes,
            wall_s: wall.as_secs_f64(),
            cpu_s: sent_cpu_s + received_cpu_s + softirq_ns as f64 / 1e9,
        })
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow!("a thread of the measurement panicked"))?
}

/// Does something in a network namespace; a socket stays in the one it was made in.
pub(in crate::bench) fn inside<T: Send>(
    namespace: &Namespace,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let path = format!("/run/netns/{}", namespace.name());
    let file = fs::File::open(&path).with_context(|| format!("cannot open {path}"))?;
    std::thread::scope(|scope| {
        joined(scope.spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter a network namespace")?;
            work()
        }))
    })
}

fn last_processor() -> Result<usize> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    (0..CpuSet::MAX_CPU)
        .rev()
        .find(|&cpu| allowed.is_set(cpu))
        .context("no processor is allowed")
}

fn on_processor(processor: usize) -> Result<()> {
    let mut one = CpuSet::new();
    one.set(processor);
    sched_setaffinity(None, &one).context("cannot stay on one processor")
}

/// This thread's processor time. Softirqs that interrupt it count (kernel/sched/cputime.c, 6.18, without
/// `CONFIG_IRQ_TIME_ACCOUNTING`), so what the veth does in them is in there.
fn thread_cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// `/proc/PID/schedstat` of the kernel's threads that take over softirqs.
fn softirq_threads() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list processes")? {
        let path = entry?.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.starts_with("ksoftirqd/") {
            found.push(path.join("schedstat").to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

fn softirq_ns(threads: &[String]) -> Result<u64> {
    let of = |path: &String| -> Result<u64> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let first = text
            .split_whitespace()
            .next()
            .context("an empty schedstat")?;
        Ok(first.parse()?)
    };
    threads.iter().map(of).sum()
}

impl Round {
    pub(super) fn mib_per_s(&self) -> f64 {
        mib(self.bytes) / self.wall_s
    }

    pub(super) fn cpu_us_per_mib(&self) -> f64 {
        self.cpu_s * 1e6 / mib(self.bytes)
    }
}

pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
