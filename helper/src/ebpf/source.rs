//! The eBPF monitor as a source of inputs. Without it the guest behaves the same, later.

use tandem_core::input::{Input, Source};
use tandem_core::status::{CheckItem, SourceHealth};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::fast_path::FastPaths;
use super::load::Report;
use super::monitor::Monitor;
use super::support::give_up_loading;

/// Why the status may say that there is no early warning.
const CONSEQUENCE: &str = "no early warning of an unplug that the host does not announce";

/// The monitor as a source of inputs; works without one, and then says nothing.
pub struct EbpfSource {
    stage: Stage,
    health: SourceHealth,
    parts: Vec<CheckItem>,
}

enum Stage {
    /// The programs are being loaded, on a thread of their own: it takes some 0.2 s,
    /// in which the guest's network shall not wait.
    Loading(oneshot::Receiver<(Option<Monitor>, Vec<Report>)>),
    Running(Box<Monitor>),
    Absent,
}

impl EbpfSource {
    /// Begins to load what can be loaded. Must be called inside a tokio runtime.
    ///
    /// The programs report every NIC with a parent device, not those of configured MACs: a
    /// policy may know its NICs by driver or PCI address only, their MACs change as the
    /// host likes and with the bond they join, and the machine goes by PCI addresses here. A
    /// guest has a handful of such NICs.
    pub fn start() -> Self {
        let (loaded, loading) = oneshot::channel();
        let runtime = Handle::current();
        // No thread of tokio's pool: whichever is free first takes the work there, perhaps one that was started after
        // this thread gave up what it takes.
        let load = move || {
            let _entered = runtime.enter();
            let started = Monitor::start();
            give_up_loading();
            // Nobody waits for it any more where the service ends.
            let _ = loaded.send(started);
        };
        let thread = std::thread::Builder::new().name("tandem-load".to_owned());
        if let Err(error) = thread.spawn(load) {
            tracing::warn!(%error, "no thread to load the kernel programs");
        }
        // Programs are loaded once, whatever NICs come later.
        give_up_loading();
        Self {
            stage: Stage::Loading(loading),
            health: SourceHealth::Missing {
                reason: "the kernel programs are being loaded".to_string(),
            },
            parts: Vec::new(),
        }
    }

    /// Takes what came of the loading.
    fn loaded(&mut self, monitor: Option<Monitor>, reports: &[Report]) {
        self.parts = reports.iter().map(Report::part).collect();
        let lack = self.parts.iter().find(|part| !part.ok);
        self.health = match (&monitor, lack) {
            (Some(_), None) => SourceHealth::Working,
            (Some(_), Some(_)) => SourceHealth::Partial,
            (None, lack) => {
                let reason = lack.map_or("no program works", |part| part.detail.as_str());
                SourceHealth::Missing {
                    reason: format!("{reason}; {CONSEQUENCE}"),
                }
            }
        };
        self.stage = monitor.map_or(Stage::Absent, |monitor| Stage::Running(Box::new(monitor)));
    }

    /// There is no monitor, or no longer.
    fn absent(&mut self, why: &str) {
        self.stage = Stage::Absent;
        self.health = SourceHealth::Missing {
            reason: format!("{why}; {CONSEQUENCE}"),
        };
    }

    /// How it fares.
    pub fn health(&self) -> Input {
        Input::SourceHealth {
            source: Source::Ebpf,
            health: self.health.clone(),
            parts: self.parts.clone(),
        }
    }

    /// The fast-path programs, once they are loaded.
    pub fn fast_paths(&self) -> Option<FastPaths> {
        match &self.stage {
            Stage::Running(monitor) => monitor.fast_paths(),
            Stage::Loading(_) | Stage::Absent => None,
        }
    }

    /// The next inputs, never none; never ends without a monitor. Safe to cancel.
    pub async fn next(&mut self) -> Vec<Input> {
        match &mut self.stage {
            Stage::Running(monitor) => match monitor.next().await {
                Ok(inputs) => return inputs,
                Err(error) => self.absent(&format!("the events can't be read any more: {error}")),
            },
            Stage::Loading(loading) => match loading.await {
                Ok((monitor, reports)) => self.loaded(monitor, &reports),
                Err(error) => {
                    self.absent(&format!("loading the programs ended abnormally: {error}"));
                }
            },
            Stage::Absent => return std::future::pending().await,
        }
        let supported = Input::FastPathSupported(self.fast_paths().is_some());
        vec![self.health(), supported]
    }
}
