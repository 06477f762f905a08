//! Device events: of udev where udevd runs, else of the kernel.
//!
//! udev's come after its rules, so that a port's name below /dev/virtio-ports is
//! there when the event is. Links are not among them: `RTM_NEWLINK` tells of each
//! change, rename included, through a filter that spares the service the events
//! of unrelated interfaces, which udev's own filter can't (`settle.rs` is
//! the exception).

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use kobject_uevent::UEvent;
use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use tandem_core::status::{CheckItem, SourceHealth};
use tandem_core::types::{Ifindex, PciAddress};
use tandem_core::{Input, input::Source};
use udev::{MonitorBuilder, MonitorSocket};

use crate::netlink::filter::Filter;
use crate::netlink::watch::Watch;
use crate::readable::Readable;

/// The multicast group that the kernel itself sends to; udevd sends to group 2.
const KERNEL_GROUP: u32 = 1;
/// Events read in one go.
const BATCH: usize = 256;

/// What a device event means to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdevEvent {
    /// A PCI function came, went, or changed its driver: its link has to be read again.
    Pci(PciAddress),
    /// A network interface came, changed, or was renamed.
    Net(Ifindex),
    /// A virtio-serial port came or went.
    AgentPort,
}

impl UdevEvent {
    /// Sorts an event by its subsystem, the device's name and its `IFINDEX`.
    fn new(subsystem: &str, device: &OsStr, ifindex: Option<&str>) -> Option<Self> {
        match subsystem {
            "pci" => Some(Self::Pci(device.to_str()?.parse().ok()?)),
            "net" => Some(Self::Net(Ifindex(ifindex?.parse().ok()?))),
            "virtio-ports" => Some(Self::AgentPort),
            _ => None,
        }
    }
}

/// True if udevd runs, by its control socket in `udev_run` (normally `/run/udev`).
pub fn is_running(udev_run: &Path) -> bool {
    udev_run.join("control").exists()
}

/// Opens udev's monitor for some subsystems. Without udevd it would stay silent.
pub(super) fn monitor(subsystems: &[&str]) -> io::Result<Readable<MonitorSocket>> {
    let mut builder = MonitorBuilder::new()?;
    for subsystem in subsystems {
        builder = builder.match_subsystem(subsystem)?;
    }
    Readable::new(builder.listen()?)
}

/// Passes on the events that a monitor has; true if it lost some.
pub(super) fn drain_monitor(
    monitor: &mut Readable<MonitorSocket>,
    mut each: impl FnMut(UdevEvent),
) -> io::Result<bool> {
    let mut lost = false;
    for _ in 0..BATCH {
        let received = monitor.try_read(|socket| {
            // libudev leaves its reason in errno.
            socket.iter().next().ok_or_else(io::Error::last_os_error)
        });
        match received {
            Ok(event) => {
                let subsystem = event.subsystem().and_then(OsStr::to_str);
                let ifindex = event.property_value("IFINDEX").and_then(OsStr::to_str);
                let known = subsystem
                    .and_then(|subsystem| UdevEvent::new(subsystem, event.sysname(), ifindex));
                known.into_iter().for_each(&mut each);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
            Err(error) => return Err(error),
        }
    }
    Ok(lost)
}

/// The source of device events.
pub(super) enum Devices {
    Udev(Readable<MonitorSocket>),
    Kernel(Watch),
    Missing(String),
}

impl std::fmt::Debug for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Udev(_) => "Udev",
            Self::Kernel(_) => "Kernel",
            Self::Missing(_) => "Missing",
        })
    }
}

impl Devices {
    /// Opens the better source that there is.
    pub(super) fn open(udev_run: &Path, receive_buffer_bytes: usize) -> Self {
        let opened = if is_running(udev_run) {
            monitor(&["pci", "virtio-ports"]).map(Self::Udev)
        } else {
            Watch::open(
                NETLINK_KOBJECT_UEVENT,
                &[KERNEL_GROUP],
                &Filter::device_events(),
                receive_buffer_bytes,
            )
            .map(Self::Kernel)
        };
        opened.unwrap_or_else(|error| Self::Missing(error.to_string()))
    }

    /// Waits until there is something to read. Safe to cancel.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Udev(monitor) => monitor.readable().await,
            Self::Kernel(watch) => watch.readable().await,
            Self::Missing(_) => std::future::pending().await,
        }
    }

    /// Passes on the events there are; true if some were lost.
    pub(super) fn drain(&mut self, mut each: impl FnMut(UdevEvent)) -> io::Result<bool> {
        match self {
            Self::Udev(monitor) => drain_monitor(monitor, each),
            Self::Kernel(watch) => watch.drain(|packet| {
                event_of_kernel(packet).into_iter().for_each(&mut each);
            }),
            Self::Missing(_) => Ok(false),
        }
    }

    /// How the source fares, for the status.
    pub(super) fn health(&self) -> Input {
        let (health, ok, detail) = match self {
            Self::Udev(_) => (SourceHealth::Working, true, "events of udevd".to_owned()),
            Self::Kernel(_) => (
                SourceHealth::Working,
                true,
                "no udevd runs; events of the kernel".to_owned(),
            ),
            Self::Missing(error) => (
                SourceHealth::Missing {
                    reason: format!(
                        "{error}; a channel that comes later is found by retrying, not by its event"
                    ),
                },
                false,
                error.clone(),
            ),
        };
        Input::SourceHealth {
            source: Source::Udev,
            health,
            parts: vec![CheckItem {
                name: "device-events".to_owned(),
                ok,
                detail,
            }],
        }
    }
}

/// Reads an event of the kernel; `None` for those of no interest, and for the
/// ones that a newer kernel writes otherwise.
pub(crate) fn event_of_kernel(packet: &[u8]) -> Option<UdevEvent> {
    let event = UEvent::from_netlink_packet(packet).ok()?;
    let device: PathBuf = event.devpath;
    let ifindex = event.env.get("IFINDEX").map(String::as_str);
    UdevEvent::new(&event.subsystem, device.file_name()?, ifindex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(action: &str, path: &str, rest: &str) -> Vec<u8> {
        format!("{action}@{path}\0ACTION={action}\0DEVPATH={path}\0{rest}SEQNUM=4711\0")
            .into_bytes()
    }

    #[test]
    fn sorts_the_kernels_events() {
        let vf = packet(
            "unbind",
            "/devices/pci0000:00/0000:00:02.0/0000:01:10.3",
            "SUBSYSTEM=pci\0PCI_SLOT_NAME=0000:01:10.3\0",
        );
        assert_eq!(
            event_of_kernel(&vf),
            Some(UdevEvent::Pci("0000:01:10.3".parse().unwrap()))
        );
        let link = packet(
            "move",
            "/devices/pci0000:00/0000:00:02.0/0000:01:10.3/net/ens2v3",
            "SUBSYSTEM=net\0INTERFACE=ens2v3\0IFINDEX=12\0",
        );
        assert_eq!(event_of_kernel(&link), Some(UdevEvent::Net(Ifindex(12))));
        let port = packet(
            "add",
            "/devices/pci0000:00/0000:00:04.0/virtio2/virtio-ports/vport2p1",
            "SUBSYSTEM=virtio-ports\0DEVNAME=vport2p1\0",
        );
        assert_eq!(event_of_kernel(&port), Some(UdevEvent::AgentPort));
    }

    #[test]
    fn leaves_others_and_damaged_ones_alone() {
        let disk = packet(
            "add",
            "/devices/pci0000:00/0000:00:05.0/virtio3/block/vda",
            "SUBSYSTEM=block\0",
        );
        assert_eq!(event_of_kernel(&disk), None);
        let nameless = packet("add", "/devices/x/net/eth0", "SUBSYSTEM=net\0IFINDEX=-\0");
        assert_eq!(event_of_kernel(&nameless), None);
        assert_eq!(event_of_kernel(b"add@/devices"), None);
        assert_eq!(event_of_kernel(&[0xff; 64]), None);
        assert_eq!(event_of_kernel(b"explode@/d\0ACTION=explode\0"), None);
    }
}
