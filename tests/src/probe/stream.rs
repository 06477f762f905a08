//! The lab's side of a stream probe: one TCP connection that shall live through everything.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::frames::{next_number, port_of};
use super::proto::{StreamReport, StreamRole, StreamSpec};
use crate::agent::proto::{Op, Reply};
use crate::agent::{Agent, unexpected};

const CALL_LIMIT: Duration = Duration::from_secs(60);
/// How often both ends are asked while something is waited for.
const STEP: Duration = Duration::from_millis(100);

/// A TCP connection between the client and a guest with numbered records both ways.
#[derive(Debug)]
pub struct StreamProbe {
    probe: u32,
    client: Agent,
    guest: Agent,
}

/// What both ends of a stream probe tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReports {
    /// The client's end.
    pub client: StreamReport,
    /// The guest's end.
    pub guest: StreamReport,
}

impl StreamReports {
    /// Why the connection is over, or nothing while it lives.
    pub fn broken(&self) -> Option<&str> {
        self.client
            .broken
            .as_deref()
            .or(self.guest.broken.as_deref())
    }

    /// The longest time either end waited for a record, in ms.
    pub fn longest_stall_ms(&self) -> u64 {
        self.client
            .longest_stall_ms
            .max(self.guest.longest_stall_ms)
    }
}

impl StreamProbe {
    /// Connects the client to the guest; comes back once records go both ways.
    pub fn start(
        client: &Agent,
        guest: (&Agent, IpAddr),
        interval: Duration,
        limit: Duration,
    ) -> Result<Self> {
        let probe = next_number();
        let address = SocketAddr::new(guest.1, port_of(probe));
        let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        let ends = [
            (guest.0, StreamRole::Listen(address)),
            (client, StreamRole::Connect(address)),
        ];
        for (agent, role) in ends {
            agent.call(
                Op::StreamStart(StreamSpec {
                    probe,
                    role,
                    interval_ms,
                }),
                CALL_LIMIT,
            )?;
        }
        let started = Self {
            probe,
            client: client.clone(),
            guest: guest.0.clone(),
        };
        started.wait_progress(limit)?;
        Ok(started)
    }

    /// How it fares.
    pub fn report(&self) -> Result<StreamReports> {
        self.reports(false)
    }

    /// Waits until each end has received records sent after this call; fails if the connection is broken
    /// or `limit` passes.
    pub fn wait_progress(&self, limit: Duration) -> Result<StreamReports> {
        let deadline = Instant::now() + limit;
        let before = self.report()?;
        loop {
            let now = self.report()?;
            if let Some(why) = now.broken() {
                bail!("the stream probe's connection is broken: {why}");
            }
            if now.client.received > before.guest.sent && now.guest.received > before.client.sent {
                return Ok(now);
            }
            if Instant::now() >= deadline {
                bail!(
                    "the stream probe's connection made no progress within {} s: {now:?}",
                    limit.as_secs()
                );
            }
            std::thread::sleep(STEP);
        }
    }

    /// Ends it and tells how it fared.
    pub fn finish(self) -> Result<StreamReports> {
        // Both are asked before either closes: the other would call that broken.
        let reports = self.report()?;
        self.reports(true)?;
        Ok(reports)
    }

    fn reports(&self, end: bool) -> Result<StreamReports> {
        let of = |agent: &Agent| match agent.call(
            Op::StreamReport {
                probe: self.probe,
                end,
            },
            CALL_LIMIT,
        )? {
            Reply::Stream(report) => Ok(report),
            other => unexpected(&other),
        };
        Ok(StreamReports {
            client: of(&self.client)?,
            guest: of(&self.guest)?,
        })
    }
}
