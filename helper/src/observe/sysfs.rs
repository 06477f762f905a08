//! What sysfs adds to a link: the PCI function behind it and the driver.

use std::fs;
use std::path::{Path, PathBuf};

use tandem_core::link::{Link, LinkKind};
use tandem_core::types::PciAddress;

use crate::netlink::link::Described;

/// sysfs, mounted at some place.
#[derive(Debug, Clone)]
pub(crate) struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    /// sysfs at `root`, normally `/sys`.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Completes a link. What can't be found stays `None`.
    pub(crate) fn complete(&self, described: Described) -> Link {
        let Described {
            mut link, parent, ..
        } = described;
        let device = match parent {
            Some((bus, device)) => self.bus_device(&bus, &device),
            // Software has no device, and there may be thousands: to look for each one's
            // takes longer than all that is read of it.
            None if link.kind == LinkKind::Software => None,
            None => self.class_device(&link),
        };
        if let Some(device) = device {
            (link.pci, link.pci_parent) = pci_of(&device);
            link.driver = driver_of(&device);
        }
        link
    }

    /// The device's own folder, found without the interface's name, which may
    /// change at any moment.
    fn bus_device(&self, bus: &str, device: &str) -> Option<PathBuf> {
        if bus.contains('/') || device.contains('/') {
            return None;
        }
        let link = self.root.join("bus").join(bus).join("devices").join(device);
        fs::canonicalize(link).ok()
    }

    /// For kernels before 5.14, which don't tell the parent device: by the
    /// interface's name, believed only if the index there is the right one.
    fn class_device(&self, link: &Link) -> Option<PathBuf> {
        let folder = self.root.join("class/net").join(link.name.as_str());
        let device = fs::canonicalize(folder.join("device")).ok()?;
        let index = fs::read_to_string(folder.join("ifindex")).ok()?;
        (index.trim() == link.ifindex.to_string()).then_some(device)
    }
}

/// The last PCI function on a device's path, and the bridge directly above it.
///
/// A device's path names all its ancestors, so this also finds the function of a
/// virtio device (`…/0000:00:02.0/0000:01:00.0/virtio3`).
fn pci_of(device: &Path) -> (Option<PciAddress>, Option<PciAddress>) {
    let mut function = None;
    let mut bridge = None;
    let mut above = None;
    for component in device.components() {
        let address = component
            .as_os_str()
            .to_str()
            .and_then(|name| name.parse().ok());
        if address.is_some() {
            function = address;
            bridge = above;
        }
        above = address;
    }
    (function, bridge)
}

fn driver_of(device: &Path) -> Option<String> {
    let driver = fs::read_link(device.join("driver")).ok()?;
    Some(driver.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tandem_core::types::Ifindex;

    use super::*;

    fn described(name: &str, ifindex: u32, parent: Option<(&str, &str)>) -> Described {
        Described {
            link: Link::named(Ifindex(ifindex), name.parse().unwrap(), LinkKind::Physical),
            parent: parent.map(|(bus, device)| (bus.to_owned(), device.to_owned())),
            info_kind: None,
            lower: None,
        }
    }

    /// A VF below a root port, and a virtio NIC that has one interface.
    fn fake() -> (tempfile::TempDir, Sysfs) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let bridge = root.join("devices/pci0000:00/0000:00:02.0");
        let vf = bridge.join("0000:01:10.3");
        let virtio = root.join("devices/pci0000:00/0000:00:03.0/virtio3");
        for (bus, device, driver) in [("pci", &vf, "igbvf"), ("virtio", &virtio, "virtio_net")] {
            fs::create_dir_all(device.join("net")).unwrap();
            let driver = root.join("bus").join(bus).join("drivers").join(driver);
            fs::create_dir_all(&driver).unwrap();
            symlink(driver, device.join("driver")).unwrap();
            let devices = root.join("bus").join(bus).join("devices");
            fs::create_dir_all(&devices).unwrap();
            symlink(device, devices.join(device.file_name().unwrap())).unwrap();
        }
        let class = root.join("class/net/eth1");
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join("ifindex"), "7\n").unwrap();
        symlink(&vf, class.join("device")).unwrap();
        let sysfs = Sysfs::new(root.to_owned());
        (folder, sysfs)
    }

    #[test]
    fn finds_function_bridge_and_driver() {
        let (_folder, sysfs) = fake();
        let vf = sysfs.complete(described("eth0", 5, Some(("pci", "0000:01:10.3"))));
        assert_eq!(vf.pci, Some("0000:01:10.3".parse().unwrap()));
        assert_eq!(vf.pci_parent, Some("0000:00:02.0".parse().unwrap()));
        assert_eq!(vf.driver.as_deref(), Some("igbvf"));

        let standby = sysfs.complete(described("eth0", 6, Some(("virtio", "virtio3"))));
        assert_eq!(standby.pci, Some("0000:00:03.0".parse().unwrap()));
        assert_eq!(standby.pci_parent, None);
        assert_eq!(standby.driver.as_deref(), Some("virtio_net"));
    }

    #[test]
    fn believes_a_name_only_if_index_and_kind_fit() {
        let (_folder, sysfs) = fake();
        let same = sysfs.complete(described("eth1", 7, None));
        assert_eq!(same.driver.as_deref(), Some("igbvf"));
        let renamed_meanwhile = sysfs.complete(described("eth1", 8, None));
        assert_eq!(
            (renamed_meanwhile.pci, renamed_meanwhile.driver),
            (None, None)
        );
        let mut software = described("eth1", 7, None);
        software.link.kind = LinkKind::Software;
        let software = sysfs.complete(software);
        assert_eq!((software.pci, software.driver), (None, None));
        let gone = sysfs.complete(described("eth9", 9, Some(("pci", "0000:09:00.0"))));
        assert_eq!((gone.pci, gone.driver), (None, None));
        let outside = sysfs.complete(described("eth9", 9, Some(("pci", "../../class"))));
        assert_eq!((outside.pci, outside.driver), (None, None));
    }
}
