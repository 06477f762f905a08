//! The loaded programs, and what they say.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya_log::EbpfLogger;
use log::Log;
use tandem_core::input::{Input, Source};
use tokio::sync::mpsc;

use super::{
    event,
    fast_path::{self, FastPathError, FastPaths, Maps},
    hooks::Program,
    load::{self, LoadError, Loaded, Programs, Report, lock, take_map},
    support::{Lockdown, Obstacle, Support},
};
use crate::{heap, readable::Readable};

/// The programs, as `cargo xtask ebpf` built them.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../helper-ebpf/tandem.bpf.o");

/// Records taken per wake-up at most; the rest follow at the next call.
const MAX_BATCH: usize = 256;
/// Longest wait for the programs to be detached when the monitor goes.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// The running programs. Dropping it detaches them all.
pub(super) struct Monitor {
    ring: Readable<RingBuf<MapData>>,
    lost: PerCpuArray<MapData, u64>,
    lost_before: u64,
    logs: Readable<EbpfLogger<&'static dyn Log>>,
    /// What the fast path's thread did.
    reactions: mpsc::Receiver<Input>,
    fast_paths: Option<FastPaths>,
    programs: Programs,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let (fast_paths, programs) = (self.fast_paths.take(), self.programs.clone());
        let (done, ended) = std::sync::mpsc::channel();
        // Detaching takes RTNL, which a driver may hold for seconds; who stops the
        // service shall not wait for that. What is left goes with the process.
        std::thread::spawn(move || {
            if let Some(fast_paths) = fast_paths {
                fast_paths.stop();
            }
            *lock(&programs) = None;
            let _ = done.send(());
        });
        let _ = ended.recv_timeout(STOP_LIMIT);
    }
}

impl Monitor {
    /// Loads and attaches what can be; no monitor if no program works. Must be called inside a
    /// tokio runtime, which it blocks for about 0.1 s: aya reads all of the kernel's types, though only once. The
    /// programs write messages up to the level that `log` has by then.
    pub(super) fn start() -> (Option<Self>, Vec<Report>) {
        let support = Support::probe();
        let hindered = support.obstacles().into_iter().find(Obstacle::is_total);
        let started = match hindered {
            Some(obstacle) => Err(obstacle.to_string()),
            None => Self::try_start(&support).map_err(|error| error.to_string()),
        };
        heap::return_unused();
        match started {
            Ok((monitor, reports)) => {
                let works = reports.iter().any(Report::works);
                (works.then_some(monitor), reports)
            }
            Err(reason) => {
                let missing = |program| Report {
                    program,
                    missing: Some(reason.clone()),
                };
                (None, Program::ALL.map(missing).into())
            }
        }
    }

    fn try_start(support: &Support) -> Result<(Self, Vec<Report>), LoadError> {
        let Loaded {
            mut ebpf,
            mut reports,
        } = load::load(OBJECT, support)?;
        let ring: RingBuf<_> = take_map(&mut ebpf, "EVENTS")?.try_into()?;
        let lost = take_map(&mut ebpf, "LOST")?.try_into()?;
        let logger = EbpfLogger::init(&mut ebpf)?;
        let works = |program| {
            let mut reports = reports.iter();
            reports.any(|report| report.program == program && report.works())
        };
        let ports_known =
            works(Program::BondPortState) && support.lockdown != Lockdown::Confidentiality;
        let all_work = Program::TRAFFIC.into_iter().all(works);
        // What they need and the rest does not is no reason to go without the warnings.
        let maps = all_work.then(|| Maps::take(&mut ebpf));
        let programs = Arc::new(Mutex::new(Some(ebpf)));
        let (sender, reactions) = mpsc::channel(fast_path::MAX_REACTIONS);
        let start = |maps: Result<Maps, LoadError>| {
            let fast_paths = FastPaths::start(programs.clone(), maps?, ports_known, sender);
            fast_paths.map_err(|error: FastPathError| LoadError::FastPaths(error.to_string()))
        };
        let fast_paths = match maps.map(start) {
            Some(Err(error)) => {
                load::give_up(&mut reports, &Program::TRAFFIC, &error.to_string());
                None
            }
            Some(Ok(fast_paths)) => Some(fast_paths),
            None => None,
        };
        let monitor = Self {
            ring: Readable::new(ring)?,
            lost_before: count(&lost)?,
            lost,
            logs: Readable::new(logger)?,
            reactions,
            fast_paths,
            programs,
        };
        Ok((monitor, reports))
    }

    /// The fast paths; `None` when they can't be loaded, and
    /// then their reports say why.
    pub(super) fn fast_paths(&self) -> Option<FastPaths> {
        self.fast_paths.clone()
    }

    /// Waits for inputs, and passes the programs' own messages on to `log`.
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> io::Result<Vec<Input>> {
        loop {
            tokio::select! {
                readable = self.ring.readable() => {
                    readable?;
                    let inputs = self.drain()?;
                    if !inputs.is_empty() {
                        return Ok(inputs);
                    }
                }
                Some(reaction) = self.reactions.recv() => return Ok(vec![reaction]),
                readable = self.logs.readable() => {
                    readable?;
                    // Then waits for the next ones.
                    let _ = self.logs.try_read(|logs| -> io::Result<()> {
                        logs.flush();
                        Err(io::ErrorKind::WouldBlock.into())
                    });
                }
            }
        }
    }

    fn drain(&mut self) -> io::Result<Vec<Input>> {
        let mut inputs = Vec::new();
        for _ in 0..MAX_BATCH {
            let taken = self.ring.try_read(|ring| match ring.next() {
                Some(record) => Ok(event::input(&record)),
                None => Err(io::ErrorKind::WouldBlock.into()),
            });
            match taken {
                Ok(Ok(input)) => inputs.extend(input),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "an event of the kernel programs was left out");
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let lost = count(&self.lost).map_err(io::Error::other)?;
        if std::mem::replace(&mut self.lost_before, lost) != lost {
            inputs.insert(0, Input::Lost(Source::Ebpf));
        }
        Ok(inputs)
    }
}

/// Events that found the ring buffer full, on all CPUs.
fn count(lost: &PerCpuArray<MapData, u64>) -> Result<u64, aya::maps::MapError> {
    let per_cpu = lost.get(&0, 0)?;
    Ok(per_cpu.iter().fold(0, |sum, n| sum.wrapping_add(*n)))
}
