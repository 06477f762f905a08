//! What the eBPF monitor says, as inputs of the machine. It gives earlier and
//! finer knowledge, never the only knowledge: without it the guest behaves the
//! same, later.

use tandem_core::fast_path::Reaction;
use tandem_core::input::{Input, Removal, RemovalStage, Source};
use tandem_core::status::{CheckItem, SourceHealth};
use tandem_core::{Ifindex, Time};
use tokio::task::JoinHandle;

use crate::ebpf::fast_path::FastPaths;
use crate::ebpf::{
    self, Cause, Event, LinkChange, Monitor, Options, Press, ProgramState, Start, SwitchoverResult,
    What,
};

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
    Loading(JoinHandle<Start>),
    Running(Box<Monitor>),
    Absent,
}

impl EbpfSource {
    /// Begins to load what can be loaded. Must be called inside a tokio runtime.
    ///
    /// It reports every NIC with a parent device, not those of configured MACs: a policy may
    /// know its NICs by driver or PCI address only, their MACs change as the host likes and
    /// with the bond they join, and the machine goes by PCI addresses here. A guest has a
    /// handful of such NICs. Of virtual links it may have thousands; they have no parent, and
    /// all they cost is that comparison in the kernel.
    pub fn start() -> Self {
        let options = Options {
            macs: Vec::new(),
            watch_parented: true,
        };
        let loading = tokio::task::spawn_blocking(move || Monitor::start(&options));
        Self {
            stage: Stage::Loading(loading),
            health: SourceHealth::Missing {
                reason: "the kernel programs are being loaded".to_string(),
            },
            parts: Vec::new(),
        }
    }

    /// Takes what came of the loading.
    fn loaded(&mut self, start: Start) {
        let Start { monitor, programs } = start;
        let parts: Vec<_> = programs
            .into_iter()
            .map(|report| {
                let function = report.program.function();
                let (ok, detail) = match report.state {
                    ProgramState::Attached => (true, format!("attached to {function}")),
                    ProgramState::Ready => (true, format!("ready for {function}")),
                    ProgramState::Missing { reason } => (false, format!("{function}: {reason}")),
                };
                CheckItem {
                    name: report.program.name().to_string(),
                    ok,
                    detail,
                }
            })
            .collect();
        let lack = parts.iter().find(|part| !part.ok);
        let health = match (&monitor, lack) {
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
        self.health = health;
        self.parts = parts;
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

    fn paths_supported(&self) -> Input {
        Input::FastPathSupported(self.fast_paths().is_some())
    }

    /// The next inputs; never ends without a monitor. Safe to cancel.
    pub async fn next(&mut self) -> Vec<Input> {
        loop {
            let monitor = match &mut self.stage {
                Stage::Running(monitor) => monitor,
                Stage::Loading(loading) => {
                    match loading.await {
                        Ok(start) => self.loaded(start),
                        Err(error) => {
                            self.absent(&format!("loading the programs ended abnormally: {error}"));
                        }
                    }
                    return vec![self.health(), self.paths_supported()];
                }
                Stage::Absent => return std::future::pending().await,
            };
            let inputs = match monitor.next().await {
                Ok(batch) => {
                    if let Some(error) = batch.malformed {
                        tracing::warn!(%error, "an event of the kernel programs was left out");
                    }
                    let lost = (batch.lost > 0).then_some(Input::Lost(Source::Ebpf));
                    let events = batch.events.iter().inspect(|event| tracing::debug!(?event));
                    lost.into_iter().chain(events.filter_map(input)).collect()
                }
                Err(error) => {
                    self.absent(&format!("the events can't be read any more: {error}"));
                    vec![self.health(), self.paths_supported()]
                }
            };
            if !Vec::is_empty(&inputs) {
                return inputs;
            }
        }
    }
}

/// The machine's input for an event of the kernel, if it concerns the machine.
fn input(event: &Event) -> Option<Input> {
    let (stage, pci) = match &event.what {
        What::Warning { cause, pci_address } => (stage(*cause)?, pci_address),
        What::Link {
            change: LinkChange::Unregistering | LinkChange::Stopped,
            link,
        } => (RemovalStage::DriverStopping, &link.parent),
        What::FastPath(reaction) => return Some(reacted(reaction)),
        What::Link {
            change: LinkChange::CarrierOff,
            link,
        } => return carrier_lost(link, event.boot_ns),
        What::Link { .. } | What::BondPort { .. } => return None,
    };
    let at = Time(event.boot_ns / 1000);
    // A NIC without PCI function (virtio under MMIO, say) has no address to match.
    let pci = pci.parse().ok()?;
    Some(Input::Removal(Removal { stage, pci, at }))
}

/// Nothing for a link without a device below it: bonds have ports that are NICs, and guests have links that are none
/// by the thousand.
fn carrier_lost(link: &ebpf::TracedLink, boot_ns: u64) -> Option<Input> {
    let at = Time(boot_ns / 1000);
    let ifindex = Ifindex(link.ifindex);
    (!link.parent.is_empty()).then_some(Input::CarrierLost { ifindex, at })
}

fn reacted(reaction: &ebpf::FastPathReport) -> Input {
    let asked = !matches!(
        reaction.switchover,
        SwitchoverResult::TooLate | SwitchoverResult::Disarmed
    );
    Input::Reacted(Reaction {
        bond: Ifindex(reaction.bond),
        announced_us: (reaction.announced > 0).then_some(reaction.announced_us),
        requested_us: asked.then_some(reaction.requested_us),
    })
}

fn stage(cause: Cause) -> Option<RemovalStage> {
    match cause {
        Cause::ButtonPress(Press::PowersOff) => Some(RemovalStage::ButtonPressed),
        Cause::ButtonPress(Press::CancelsPowerOff) => Some(RemovalStage::ButtonCancelled),
        Cause::ButtonPress(Press::PowersOn | Press::CancelsPowerOn | Press::Ignored) => None,
        Cause::AcpiEject => Some(RemovalStage::EjectRequested),
        Cause::PciStop | Cause::DriverRemove => Some(RemovalStage::RemovalStarted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ebpf::TracedLink;

    fn event(what: What) -> Event {
        Event {
            boot_ns: 6_000_000,
            what,
        }
    }

    #[test]
    fn a_warning_names_device_and_moment() {
        let what = What::Warning {
            cause: Cause::AcpiEject,
            pci_address: "0000:02:00.0".to_string(),
        };
        let Some(Input::Removal(removal)) = input(&event(what)) else {
            panic!("no removal");
        };
        assert_eq!(removal.stage, RemovalStage::EjectRequested);
        assert_eq!(removal.pci.to_string(), "0000:02:00.0");
        assert_eq!(removal.at, Time(6_000));
    }

    #[test]
    fn a_second_press_cancels_and_a_press_for_power_on_is_nothing() {
        let press = |press| {
            let pci_address = "0000:00:02.0".to_string();
            input(&event(What::Warning {
                cause: Cause::ButtonPress(press),
                pci_address,
            }))
        };
        assert!(matches!(
            press(Press::CancelsPowerOff),
            Some(Input::Removal(Removal {
                stage: RemovalStage::ButtonCancelled,
                ..
            }))
        ));
        assert_eq!(press(Press::PowersOn), None);
    }

    #[test]
    fn a_device_without_pci_address_is_nothing() {
        let link = TracedLink {
            ifindex: 2,
            name: "eth0".to_string(),
            parent: "virtio1".to_string(),
            mac: [0; 6],
            perm_mac: [0; 6],
            netns_inum: 1,
        };
        assert_eq!(
            input(&event(What::Link {
                change: LinkChange::Stopped,
                link: link.clone(),
            })),
            None
        );
        let lost = |parent: &str| {
            input(&event(What::Link {
                change: LinkChange::CarrierOff,
                link: TracedLink {
                    parent: parent.to_string(),
                    ..link.clone()
                },
            }))
        };
        let (ifindex, at) = (Ifindex(2), Time(6_000));
        assert_eq!(lost("virtio1"), Some(Input::CarrierLost { ifindex, at }));
        assert_eq!(lost(""), None, "a veth");
        let what = What::Warning {
            cause: Cause::PciStop,
            pci_address: String::new(),
        };
        assert_eq!(input(&event(what)), None);
    }
}
