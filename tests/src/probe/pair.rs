//! Frames and a TCP connection at once.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::agent::Agent;

use super::{FrameOptions, FrameProbe, FrameReport, StreamProbe, StreamReports};
use crate::tandem::STEP_LIMIT;
use crate::{Lab, Vm};

/// Time between two records of the TCP connection.
const RECORD_INTERVAL: Duration = Duration::from_millis(10);

/// Both probes between the client and a guest.
#[derive(Debug)]
pub struct ProbePair {
    /// Numbered frames both ways.
    pub frames: FrameProbe,
    /// The connection.
    pub stream: StreamProbe,
    /// Both ends, and what each of their kernels had sent again before.
    ends: [(Agent, u64); 2],
}

impl ProbePair {
    /// Starts both; comes back once they work.
    pub fn start(lab: &Lab, vm: &Vm, guest: IpAddr, options: FrameOptions) -> Result<Self> {
        let client = lab.client()?;
        let ends = [client.agent(), vm.agent()];
        let ends = ends.map(|agent| Ok((agent.clone(), sent_again(agent)?)));
        let [here, there]: [Result<_>; 2] = ends;
        Ok(Self {
            ends: [here?, there?],
            stream: StreamProbe::start(
                client.agent(),
                (vm.agent(), guest),
                RECORD_INTERVAL,
                STEP_LIMIT,
            )?,
            frames: lab.probe_frames(vm, guest, options)?,
        })
    }

    /// TCP segments that both kernels have sent again since the start.
    pub fn sent_again(&self) -> Result<u64> {
        let mut sum = 0;
        for (agent, before) in &self.ends {
            sum += sent_again(agent)?.saturating_sub(*before);
        }
        Ok(sum)
    }

    /// Ends both and tells how they fared.
    pub fn finish(self) -> Result<(FrameReport, StreamReports)> {
        let stream = self.stream.finish()?;
        Ok((self.frames.finish()?, stream))
    }
}

/// TCP segments that a kernel has ever sent again.
fn sent_again(agent: &Agent) -> Result<u64> {
    let told = agent.read_file("/proc/net/snmp")?;
    let told = String::from_utf8_lossy(&told);
    retransmitted(&told).with_context(|| format!("no `RetransSegs` is in {told}"))
}

/// A line of names, and one of values.
fn retransmitted(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let mut names = lines.next()?.split(' ');
    let at = names.position(|name| name == "RetransSegs")?;
    lines.next()?.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_count_is_found_by_its_name() {
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: InSegs RetransSegs InErrs\nTcp: 100 7 0\n";
        assert_eq!(retransmitted(snmp), Some(7));
        assert_eq!(retransmitted("Tcp: InSegs\nTcp: 100\n"), None);
    }
}
