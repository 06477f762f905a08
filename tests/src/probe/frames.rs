//! The lab's side of a frame probe: starts both ends, marks phases, collects and analyses.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

use super::analysis::{FrameReport, Mark};
use super::proto::{FrameSpec, SideLog};
use crate::agent::Agent;
use crate::agent::proto::Op;

/// Both ends must hear each other within this time.
const START_LIMIT: Duration = Duration::from_secs(60);
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// Frames under way when sending stops arrive within this time, or count as lost.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// Each probe has a port of its own, from here on.
const FIRST_PORT: u16 = 40_000;

static NEXT_PROBE: AtomicU32 = AtomicU32::new(1);

/// A number no other probe of this process has.
pub(super) fn next_number() -> u32 {
    NEXT_PROBE.fetch_add(1, Ordering::Relaxed)
}

/// The port of a probe.
pub(super) fn port_of(probe: u32) -> u16 {
    FIRST_PORT + u16::try_from(probe % 10_000).unwrap_or(0)
}

/// How a frame probe sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameOptions {
    /// Frames a second in each direction.
    pub rate_hz: u32,
    /// Size of the UDP payload, in bytes.
    pub payload_bytes: u16,
}

impl Default for FrameOptions {
    fn default() -> Self {
        Self {
            rate_hz: 200,
            payload_bytes: 64,
        }
    }
}

/// Numbered UDP datagrams both ways between the client and a guest, one a frame.
#[derive(Debug)]
pub struct FrameProbe {
    probe: u32,
    client: Agent,
    guest: Agent,
    client_log: PathBuf,
    marks: Vec<Mark>,
}

impl FrameProbe {
    /// Starts sending and counting. Comes back once both directions work; the first phase is `rest`.
    /// `folder` takes the client's log.
    pub fn start(
        client: (&Agent, IpAddr),
        guest: (&Agent, IpAddr),
        options: FrameOptions,
        folder: &std::path::Path,
    ) -> Result<Self> {
        let probe = next_number();
        let port = port_of(probe);
        let sides = [(client, guest), (guest, client)];
        for ((agent, local), (_, remote)) in sides {
            let spec = FrameSpec {
                probe,
                local: SocketAddr::new(local, port),
                remote: SocketAddr::new(remote, port),
                rate_hz: options.rate_hz,
                payload_bytes: options.payload_bytes,
            };
            agent.call(Op::FramesStart(spec), CALL_LIMIT)?;
        }
        let limit_ms = crate::agent::milliseconds(START_LIMIT);
        for ((agent, _), _) in sides {
            agent.call(Op::FramesWait { probe, limit_ms }, START_LIMIT + CALL_LIMIT)?;
        }
        let mut started = Self {
            probe,
            client: client.0.clone(),
            guest: guest.0.clone(),
            client_log: folder.join(format!("frames-{probe}")),
            marks: Vec::new(),
        };
        started.mark("rest");
        Ok(started)
    }

    /// Its number, which each of its frames carries.
    pub fn number(&self) -> u32 {
        self.probe
    }

    /// Begins a phase: what is sent from here on counts for it.
    pub fn mark(&mut self, phase: &str) {
        self.mark_at(phase, Instant::now());
    }

    /// The same for a phase that began before now, but after the last one.
    pub fn mark_at(&mut self, phase: &str, began: Instant) {
        let ago_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.marks.push(Mark {
            phase: phase.to_owned(),
            at_us: monotonic_us().saturating_sub(ago_us),
        });
    }

    /// Stops, and tells what was lost where.
    pub fn finish(self) -> Result<FrameReport> {
        let probe = self.probe;
        for agent in [&self.client, &self.guest] {
            agent.call(Op::FramesStop { probe }, CALL_LIMIT)?;
        }
        // No event tells that a frame will not come.
        std::thread::sleep(DRAIN_TIME);
        let client_log = self.client_log.to_string_lossy().into_owned();
        let client = collect(&self.client, probe, &client_log)?;
        let guest = collect(&self.guest, probe, &format!("/tmp/frames-{probe}"))?;
        Ok(FrameReport::new(&client, &guest, &self.marks))
    }
}

fn collect(agent: &Agent, probe: u32, path: &str) -> Result<SideLog> {
    agent.call(
        Op::FramesEnd {
            probe,
            log: path.to_owned(),
        },
        CALL_LIMIT,
    )?;
    let bytes = agent.read_file(path)?;
    SideLog::decode(&bytes).with_context(|| format!("the log {path} of a frame probe is damaged"))
}

fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}
