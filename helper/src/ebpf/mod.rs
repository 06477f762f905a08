//! The eBPF monitor: loads the kernel programs of `helper-ebpf/` and reads their
//! events.
//!
//! It gives earlier and finer knowledge, never the only knowledge: each program may
//! be missing on its own, and [`Start::programs`] says which and why.

pub mod btf;
mod event;
pub mod fast_path;
mod hooks;
mod load;
mod messages;
mod reader;
mod support;

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{HashMap, MapError},
};
use aya_log::EbpfLogger;
use tandem_ebpf::MAX_MACS;
use thiserror::Error;
use tokio::{io::unix::AsyncFd, sync::mpsc};

use crate::heap;

pub use event::{
    Cause, Event, FastPathReport, LinkChange, PortState, Press, SwitchoverResult, TracedLink, What,
};
use fast_path::FastPaths;
pub use hooks::Program;
pub use load::{ProgramReport, ProgramState};
pub use reader::{Batch, MAX_BATCH};
pub use support::{Lockdown, Obstacle, Support};

/// The programs, as `cargo xtask ebpf` built them.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../helper-ebpf/tandem.bpf.o");

/// Longest wait for the programs to be detached when the monitor goes.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// What the monitor looks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// MACs, current or permanent, of network devices to report; they stay as they are.
    pub macs: Vec<[u8; 6]>,
    /// Also report every network device that has a parent device: all hardware and
    /// paravirtual NICs, whatever their MAC.
    pub watch_parented: bool,
}

/// What came of [`Monitor::start`].
pub struct Start {
    /// The monitor, unless no program works.
    pub monitor: Option<Monitor>,
    /// Every program's state.
    pub programs: Vec<ProgramReport>,
}

/// Why MACs cannot be watched.
#[derive(Debug, Error)]
pub enum MacError {
    /// There is room for [`MAX_MACS`].
    #[error("{given} MACs are to be watched, the eBPF filter holds {MAX_MACS}; name fewer")]
    TooMany {
        /// How many were given.
        given: usize,
    },
    /// The kernel refused the change.
    #[error("the eBPF filter of MACs cannot be changed: {0}")]
    Map(#[from] MapError),
}

/// The loaded object. [`Paths`] attaches its programs when they are needed; with the
/// monitor it goes away.
type Programs = Arc<Mutex<Option<Ebpf>>>;

/// The running programs. Dropping it detaches them all.
pub struct Monitor {
    reader: reader::Reader,
    logs: AsyncFd<EbpfLogger<messages::Tracing>>,
    /// What the fast path's thread did.
    reactions: mpsc::Receiver<Event>,
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
            *programs.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let _ = done.send(());
        });
        let _ = ended.recv_timeout(STOP_LIMIT);
    }
}

#[derive(Debug, Error)]
enum StartError {
    #[error(transparent)]
    Load(#[from] load::LoadError),
    #[error("the eBPF object has no map `{0}`; it does not belong to this service")]
    NoMap(&'static str),
    #[error("the eBPF maps cannot be used: {0}")]
    Map(#[from] MapError),
    #[error("the messages of the eBPF programs cannot be read: {0}")]
    Log(#[from] aya_log::Error),
    #[error(transparent)]
    Macs(#[from] MacError),
    #[error(transparent)]
    FastPaths(#[from] fast_path::FastPathError),
    #[error("the eBPF events cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl Monitor {
    /// Loads and attaches what can be. Must be called inside a tokio runtime, which
    /// it blocks for about 0.2 s: aya reads all of the kernel's types twice. The
    /// programs write messages up to the level that `tracing` has by then.
    pub fn start(options: &Options) -> Start {
        let support = Support::probe();
        let hindered = support.obstacles().into_iter().find(Obstacle::is_total);
        let started = match hindered {
            Some(obstacle) => Err(obstacle.to_string()),
            None => Self::try_start(options, &support).map_err(|error| error.to_string()),
        };
        heap::return_unused();
        match started {
            Ok((monitor, programs)) => Start {
                monitor: programs.iter().any(ProgramReport::works).then_some(monitor),
                programs,
            },
            Err(reason) => Start {
                monitor: None,
                programs: Program::ALL
                    .map(|program| ProgramReport {
                        program,
                        state: ProgramState::Missing {
                            reason: reason.clone(),
                        },
                    })
                    .into(),
            },
        }
    }

    fn try_start(
        options: &Options,
        support: &Support,
    ) -> Result<(Self, Vec<ProgramReport>), StartError> {
        let load::Loaded {
            mut ebpf,
            mut reports,
        } = load::load(
            OBJECT,
            support,
            options.watch_parented,
            messages::kernel_level(),
        )?;
        let mut map = |name| ebpf.take_map(name).ok_or(StartError::NoMap(name));
        let reader = reader::Reader::new(map("EVENTS")?, map("LOST")?)?;
        let mut macs: HashMap<_, [u8; 6], u8> = HashMap::try_from(map("MACS")?)?;
        for mac in wanted_macs(&options.macs)? {
            macs.insert(mac, 0, 0)?;
        }
        let logger = EbpfLogger::init_with_logger(&mut ebpf, messages::Tracing)?;
        let (sender, reactions) = mpsc::channel(fast_path::MAX_REACTIONS);
        let works = |program| {
            reports
                .iter()
                .any(|report| report.program == program && report.works())
        };
        let ports_known =
            works(Program::BondPortState) && support.lockdown != Lockdown::Confidentiality;
        let all_work = Program::TRAFFIC.into_iter().all(works);
        // What they need and the rest does not is no reason to go without the warnings.
        let maps = all_work.then(|| fast_path::Maps::take(&mut ebpf));
        let programs = Arc::new(Mutex::new(Some(ebpf)));
        let start = |maps| {
            Ok(FastPaths::start(
                programs.clone(),
                maps,
                ports_known,
                sender,
            )?)
        };
        let fast_paths = match maps.map(|maps| maps.and_then(start)) {
            Some(Err(error)) => {
                load::give_up(&mut reports, &Program::TRAFFIC, &error.to_string());
                None
            }
            Some(Ok(fast_paths)) => Some(fast_paths),
            None => None,
        };
        let monitor = Self {
            reader,
            logs: reader::watch_readable(logger)?,
            reactions,
            fast_paths,
            programs,
        };
        Ok((monitor, reports))
    }

    /// The fast paths; `None` when they can't be loaded, and
    /// then [`Start::programs`] says why.
    pub fn fast_paths(&self) -> Option<FastPaths> {
        self.fast_paths.clone()
    }

    /// Waits for events, and passes the programs' own messages on to `tracing`.
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> io::Result<Batch> {
        loop {
            tokio::select! {
                batch = self.reader.next() => return batch,
                Some(reaction) = self.reactions.recv() => {
                    return Ok(Batch { events: vec![reaction], ..Batch::default() });
                }
                logs = self.logs.readable_mut() => {
                    let mut logs = logs?;
                    logs.get_inner_mut().flush();
                    logs.clear_ready();
                }
            }
        }
    }
}

/// Each MAC once, if there is room for them.
fn wanted_macs(macs: &[[u8; 6]]) -> Result<BTreeSet<[u8; 6]>, MacError> {
    // Many virtual devices have no permanent MAC: zero would match them all.
    let wanted: BTreeSet<[u8; 6]> = macs.iter().copied().filter(|mac| *mac != [0; 6]).collect();
    if wanted.len() > MAX_MACS as usize {
        return Err(MacError::TooMany {
            given: wanted.len(),
        });
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_count_once_and_zero_is_none() {
        let mac = |last: u8| [2, 0, 0, 0, 0, last];
        let wanted = wanted_macs(&[mac(1), [0; 6], mac(2), mac(1)]).unwrap();
        assert_eq!(Vec::from_iter(wanted), [mac(1), mac(2)]);
    }

    #[test]
    fn more_macs_than_the_filter_holds_are_refused() {
        let macs: Vec<[u8; 6]> = (1..=65).map(|last| [2, 0, 0, 0, 0, last]).collect();
        assert_eq!(wanted_macs(&macs[..64]).unwrap().len(), 64);
        let error = wanted_macs(&macs).unwrap_err().to_string();
        assert!(error.contains("65") && error.contains("64"), "{error}");
    }
}
