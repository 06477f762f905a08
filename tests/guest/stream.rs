//! One end of a stream probe: a TCP connection that carries numbered records both ways.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags};
use tandem_lab::probe::proto::{StreamReport, StreamRole, StreamSpec};
use tandem_lab::process::poll_until;

const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// The stream probes under way, by number.
#[derive(Default)]
pub(crate) struct StreamProbes {
    ends: Mutex<BTreeMap<u32, Arc<End>>>,
}

impl StreamProbes {
    pub(crate) fn start(&self, spec: StreamSpec) -> Result<()> {
        let mut ends = lock(&self.ends);
        if ends.contains_key(&spec.probe) {
            bail!("stream probe {} is already under way", spec.probe);
        }
        let end = Arc::new(End {
            state: Mutex::default(),
            interval: interval(&spec)?,
        });
        ends.insert(spec.probe, Arc::clone(&end));
        let listener = match spec.role {
            StreamRole::Listen(local) => Some(
                TcpListener::bind(local).with_context(|| format!("cannot listen at {local}"))?,
            ),
            StreamRole::Connect(_) => None,
        };
        std::thread::spawn(move || end.run(spec.role, listener));
        Ok(())
    }

    pub(crate) fn report(&self, probe: u32, end: bool) -> Result<StreamReport> {
        let mut ends = lock(&self.ends);
        let found = ends
            .get(&probe)
            .cloned()
            .with_context(|| format!("there is no stream probe {probe}"))?;
        if end {
            ends.remove(&probe);
        }
        drop(ends);
        Ok(found.report(end))
    }
}

fn interval(spec: &StreamSpec) -> Result<Duration> {
    if spec.interval_ms == 0 {
        bail!("a stream probe needs an interval");
    }
    Ok(Duration::from_millis(spec.interval_ms.into()))
}

#[derive(Default)]
struct State {
    report: StreamReport,
    last_received: Option<Instant>,
    stream: Option<TcpStream>,
    ended: bool,
}

struct End {
    state: Mutex<State>,
    interval: Duration,
}

impl End {
    fn run(self: Arc<Self>, role: StreamRole, listener: Option<TcpListener>) {
        if let Err(error) = self.connect_and_run(role, listener) {
            self.broken(format!("{error:#}"));
        }
    }

    fn connect_and_run(
        self: &Arc<Self>,
        role: StreamRole,
        listener: Option<TcpListener>,
    ) -> Result<()> {
        let stream = connect(role, listener)?;
        stream
            .set_nodelay(true)
            .context("cannot send records at once")?;
        let mut reader = stream.try_clone().context("cannot share the connection")?;
        let mut writer = stream.try_clone().context("cannot share the connection")?;
        {
            let mut state = lock(&self.state);
            state.report.connected = true;
            state.last_received = Some(Instant::now());
            state.stream = Some(stream);
        }
        let sender = Arc::clone(self);
        std::thread::spawn(move || {
            if let Err(error) = sender.send(&mut writer) {
                sender.broken(format!("sending: {error:#}"));
            }
        });
        self.receive(&mut reader).context("receiving")
    }

    fn send(&self, writer: &mut TcpStream) -> Result<()> {
        for number in 0_u64.. {
            if lock(&self.state).ended {
                break;
            }
            writer.write_all(&number.to_le_bytes())?;
            lock(&self.state).report.sent = number + 1;
            std::thread::sleep(self.interval);
        }
        Ok(())
    }

    fn receive(&self, reader: &mut TcpStream) -> Result<()> {
        for expected in 0_u64.. {
            let mut record = [0; 8];
            reader.read_exact(&mut record)?;
            let number = u64::from_le_bytes(record);
            if number != expected {
                bail!("record {number} came instead of {expected}");
            }
            let mut state = lock(&self.state);
            let now = Instant::now();
            let stall = state
                .last_received
                .replace(now)
                .map_or(Duration::ZERO, |last| now - last);
            state.report.received = expected + 1;
            state.report.longest_stall_ms = state.report.longest_stall_ms.max(milliseconds(stall));
        }
        Ok(())
    }

    fn broken(&self, why: String) {
        let mut state = lock(&self.state);
        if !state.ended {
            state.report.broken.get_or_insert(why);
        }
    }

    fn report(&self, end: bool) -> StreamReport {
        let mut state = lock(&self.state);
        let mut report = state.report.clone();
        report.silent_ms = state
            .last_received
            .map_or(0, |last| milliseconds(last.elapsed()));
        report.longest_stall_ms = report.longest_stall_ms.max(report.silent_ms);
        if end {
            state.ended = true;
            if let Some(stream) = state.stream.take() {
                // It may be broken already.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        report
    }
}

fn connect(role: StreamRole, listener: Option<TcpListener>) -> Result<TcpStream> {
    match (role, listener) {
        (StreamRole::Connect(remote), _) => connect_to(remote),
        (StreamRole::Listen(local), Some(listener)) => {
            let mut fds = [PollFd::new(&listener, PollFlags::IN)];
            if !poll_until(&mut fds, Instant::now() + CONNECT_LIMIT)? {
                bail!(
                    "nobody connected to {local} within {} s",
                    CONNECT_LIMIT.as_secs()
                );
            }
            Ok(listener.accept().context("cannot accept the connection")?.0)
        }
        (StreamRole::Listen(local), None) => bail!("nothing listens at {local}"),
    }
}

fn connect_to(remote: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect_timeout(&remote, CONNECT_LIMIT)
        .with_context(|| format!("cannot connect to {remote}"))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
