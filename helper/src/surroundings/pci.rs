//! PCI network devices that no driver has: a VF that was passed through, and is no NIC.

use std::fmt;
use std::fs;

use tandem_core::PciAddress;

use crate::system_files::{SystemFiles, text_of};

/// Most devices that are looked at.
const MAX_DEVICES: usize = 4096;
/// Class of network controllers of any kind, as sysfs writes it (PCI Code and ID Assignment, 02h).
const NETWORK_CLASS: &str = "0x02";

/// A network device without a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Driverless {
    /// Where it is.
    pub(crate) address: PciAddress,
    /// Vendor and device, such as `8086:1520`.
    id: String,
    /// What would be its driver, if the kernel has one.
    module: Option<String>,
    kernel: String,
}

impl fmt::Display for Driverless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            id,
            module,
            kernel,
        } = self;
        write!(f, "the network device {address} ({id}) has no driver: ")?;
        match module {
            Some(module) => write!(f, "{module} is not loaded, or refused it"),
            None => write!(f, "Linux {kernel} has none for it"),
        }
    }
}

/// All there are, by address.
pub(crate) fn without_driver(files: &SystemFiles) -> Vec<Driverless> {
    let devices = fs::read_dir(files.path("/sys/bus/pci/devices"));
    let devices = devices.into_iter().flatten().flatten().take(MAX_DEVICES);
    let mut aliases = None;
    let mut found: Vec<_> = devices
        .filter_map(|entry| {
            let folder = entry.path();
            let text = |file: &str| text_of(&folder.join(file)).trim().to_owned();
            let address = entry.file_name().to_str()?.parse().ok()?;
            let has_driver = folder.join("driver").symlink_metadata().is_ok();
            if has_driver || !text("class").starts_with(NETWORK_CLASS) {
                return None;
            }
            let release = &files.kernel_release;
            let aliases = aliases.get_or_insert_with(|| {
                files.text(&format!("/lib/modules/{release}/modules.alias"))
            });
            let number = |file: &str| text(file).trim_start_matches("0x").to_owned();
            Some(Driverless {
                address,
                id: format!("{}:{}", number("vendor"), number("device")),
                module: module_of(&text("modalias"), aliases),
                kernel: release.clone(),
            })
        })
        .collect();
    found.sort_by_key(|device| device.address);
    found
}

/// The module that says it is for a device (`modules.alias`, modprobe.d(5)).
fn module_of(modalias: &str, aliases: &str) -> Option<String> {
    let mut lines = aliases
        .lines()
        .filter(|line| line.starts_with("alias pci:"));
    lines.find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let pattern = glob::Pattern::new(words.next()?).ok()?;
        let module = words.next()?;
        pattern.matches(modalias).then(|| module.to_owned())
    })
}
