//! Frames and a TCP connection at once.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

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
}

impl ProbePair {
    /// Starts both; comes back once they work.
    pub fn start(lab: &Lab, vm: &Vm, guest: IpAddr, options: FrameOptions) -> Result<Self> {
        Ok(Self {
            stream: StreamProbe::start(
                lab.client()?.agent(),
                (vm.agent(), guest),
                RECORD_INTERVAL,
                STEP_LIMIT,
            )?,
            frames: lab.probe_frames(vm, guest, options)?,
        })
    }

    /// Ends both and tells how they fared.
    pub fn finish(self) -> Result<(FrameReport, StreamReports)> {
        let stream = self.stream.finish()?;
        Ok((self.frames.finish()?, stream))
    }
}
