//! What machine QEMU emulates, and the command line that says so.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::nic::Nic;

/// PCI device numbers on the root bus. They are fixed, so that both ends of a migration agree.
const SERIAL_ADDRESS: u8 = 0x3;
const ROOT_PORT_ADDRESS: u8 = 0x10;
const DRIVE_ADDRESS: u8 = 0x18;

/// How the guest learns of PCI hot-plug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HotPlug {
    /// ACPI: q35's default; a device leaves at once.
    #[default]
    Acpi,
    /// Native PCI Express: a device leaves 5 s after its button was pressed.
    Native,
}

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accelerator {
    /// QEMU's own emulation; works everywhere.
    Tcg,
    /// The host's virtualisation.
    Kvm,
}

/// A virtio-serial port of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtioPort {
    /// The port's name in the guest, under /sys/class/virtio-ports.
    pub name: String,
    /// The host's unix socket.
    pub socket: PathBuf,
    /// Who listens on the socket.
    pub listener: Listener,
}

/// Who listens on a unix socket between the lab and QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listener {
    /// QEMU: clients come and go.
    Qemu,
    /// The lab, before QEMU starts: the connection is there from the start.
    Lab,
}

/// A disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// The raw image on the host. The guest sees the first as /dev/vda.
    pub image: PathBuf,
    /// Whether the guest may write to it.
    pub writable: bool,
}

/// The whole machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSpec {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The kernel's parameters.
    pub kernel_parameters: Vec<String>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of virtual CPUs.
    pub cpus: u8,
    /// How instructions run.
    pub accelerator: Accelerator,
    /// Emulated, one processor after the other, with a clock that counts their instructions: one a nanosecond. So
    /// the guest's own times are those of a processor that does 10^9 a second, however busy this machine is.
    pub counts_instructions: bool,
    /// How hot-plug is signalled.
    pub hot_plug: HotPlug,
    /// Number of PCI Express root ports, for NICs that come and go.
    pub root_ports: u8,
    /// NICs there at the start, each with its tap.
    pub nics: Vec<(Nic, String)>,
    /// virtio-serial ports, in order.
    pub ports: Vec<VirtioPort>,
    /// Disks.
    pub drives: Vec<Drive>,
    /// Further arguments for QEMU.
    pub extra_arguments: Vec<String>,
}

/// What gives a QEMU this name and a second control connection, for `tandem-host`; the first is the lab's.
pub fn named_with_control(name: &str, socket: &Path) -> Vec<String> {
    let chardev = format!(
        "socket,id=qmp2,path={},server=on,wait=off",
        socket.display()
    );
    let words = [
        "-name",
        name,
        "-chardev",
        &chardev,
        "-mon",
        "chardev=qmp2,mode=control",
    ];
    words.map(str::to_owned).to_vec()
}

impl MachineSpec {
    /// QEMU's arguments. `qmp` is a socket the lab listens on; `incoming` makes it wait for a migration.
    pub fn arguments(&self, qmp: &Path, incoming: bool) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add =
            |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));

        add(&[
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ]);
        let (accelerator, cpu) = match self.accelerator {
            _ if self.counts_instructions => ("tcg,thread=single", "max"),
            Accelerator::Tcg => ("tcg,thread=multi", "max"),
            Accelerator::Kvm => ("kvm", "host"),
        };
        add(&["-machine", "q35", "-accel", accelerator, "-cpu", cpu]);
        if self.counts_instructions {
            add(&["-icount", "shift=0"]);
        }
        add(&[
            "-smp",
            &self.cpus.to_string(),
            "-m",
            &format!("{}M", self.memory_mib),
        ]);
        if self.hot_plug == HotPlug::Native {
            add(&[
                "-global",
                "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
            ]);
        }
        add(&[
            "-kernel",
            &self.kernel.to_string_lossy(),
            "-initrd",
            &self.initramfs.to_string_lossy(),
        ]);
        add(&["-append", &self.kernel_parameters.join(" ")]);

        add(&[
            "-chardev",
            "stdio,id=console,signal=off",
            "-serial",
            "chardev:console",
        ]);
        add(&["-chardev", &format!("socket,id=qmp,path={}", qmp.display())]);
        add(&["-mon", "chardev=qmp,mode=control"]);

        add(&[
            "-device",
            &format!("virtio-serial-pci,id=serial,addr=0x{SERIAL_ADDRESS:x},max_ports=8"),
        ]);
        for (number, port) in (1..).zip(&self.ports) {
            let role = match port.listener {
                Listener::Qemu => ",server=on,wait=off",
                Listener::Lab => "",
            };
            add(&[
                "-chardev",
                &format!(
                    "socket,id=port{number},path={}{role}",
                    port.socket.display()
                ),
            ]);
            let device = format!(
                "virtserialport,chardev=port{number},name={},nr={number}",
                port.name
            );
            add(&["-device", &device]);
        }
        for index in 0..self.root_ports {
            let port = json!({
                "driver": "pcie-root-port",
                "id": format!("rp{index}"),
                "bus": "pcie.0",
                "addr": format!("0x{:x}", ROOT_PORT_ADDRESS + index),
                "chassis": index + 1,
                "slot": index + 1,
            });
            add(&["-device", &port.to_string()]);
        }
        for (number, drive) in (0..).zip(&self.drives) {
            let node = json!({
                "driver": "raw",
                "node-name": format!("drive{number}"),
                "read-only": !drive.writable,
                "file": { "driver": "file", "filename": drive.image, "locking": "off" },
            });
            let device = json!({
                "driver": "virtio-blk-pci",
                "drive": format!("drive{number}"),
                "bus": "pcie.0",
                "addr": format!("0x{:x}", DRIVE_ADDRESS + number),
            });
            add(&[
                "-blockdev",
                &node.to_string(),
                "-device",
                &device.to_string(),
            ]);
        }
        for (nic, tap) in &self.nics {
            add(&[
                "-netdev",
                &nic.netdev(tap).to_string(),
                "-device",
                &nic.device().to_string(),
            ]);
        }
        if incoming {
            add(&["-incoming", "defer"]);
        }
        arguments.extend(self.extra_arguments.iter().cloned());
        arguments
    }
}
