//! One emulated hypervisor: its devices, its libvirtd, and its sockets on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::domain::UUID;
use super::image;
use super::relay::Relay;
use super::remote;
use crate::command::{self, Finished};
use crate::libvirt::QEMU_CONFIG;
use crate::qemu::NicModel;
use crate::vm::{GuestImage, Hardware};
use crate::{Lab, Mac, Vm, test_mac};

/// libvirtd asks QEMU what it can do before it answers.
const LIBVIRTD_LIMIT: Duration = Duration::from_secs(600);
/// Creating the guest takes about 25 s, on a busy machine several times that.
const VIRSH_LIMIT: Duration = Duration::from_secs(600);
const LOOK_STEP: Duration = Duration::from_secs(1);
const SCRIPT_LIMIT: Duration = Duration::from_secs(300);
/// The last number of the first hypervisor's address in the lab's network.
const FIRST_ADDRESS: u8 = 101;
/// Ports at which a hypervisor's `socat` serves libvirt's socket, and its guest's.
const LIBVIRT_PORT: u16 = 9001;
const MEMORY_MIB: u32 = 2048;
/// Its own; the name that it has on this machine leads there too.
const LIBVIRT_SOCKET: &str = "/run/libvirt/libvirt-sock";
const LIBVIRTD_LOG: &str = "/tmp/libvirtd.log";

/// A socket of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Socket {
    /// Tandem's channel.
    Channel,
    /// The lab's agent.
    Agent,
}

impl Socket {
    pub(super) const ALL: [Self; 2] = [Self::Channel, Self::Agent];

    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Agent => "lab",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Channel => LIBVIRT_PORT + 1,
            Self::Agent => LIBVIRT_PORT + 2,
        }
    }
}

/// An emulated hypervisor.
#[derive(Debug)]
pub struct Hypervisor {
    vm: Vm,
    name: String,
    address: Ipv4Addr,
    /// Its sockets, here as there.
    folder: PathBuf,
    vf: String,
    other_vf: String,
    relays: Vec<Relay>,
}

impl Hypervisor {
    /// Two of them, `a` and `b`, with libvirt at work, and what their guest boots from.
    ///
    /// # Errors
    /// One does not come up, or lacks what it takes.
    pub fn pair(lab: &Lab, guest: &GuestImage) -> Result<(Self, Self)> {
        let image = image::of(lab, guest)?;
        lab.client()?;
        std::thread::scope(|scope| {
            let b = scope.spawn(|| Self::start(lab, &image, "b", 1));
            let a = Self::start(lab, &image, "a", 0)?;
            let b = b
                .join()
                .map_err(|_| anyhow::anyhow!("the thread of b panicked"))??;
            Ok((a, b))
        })
    }

    fn start(lab: &Lab, image: &GuestImage, name: &str, number: u8) -> Result<Self> {
        let (uplink, pf) = (test_mac(40 + number), test_mac(50 + number));
        let mut hardware = Hardware {
            memory_mib: MEMORY_MIB,
            channel: false,
            // Interrupts of a VF reach the guest by remapping only.
            extra_arguments: ["-device", "intel-iommu,intremap=on"]
                .map(str::to_owned)
                .to_vec(),
            ..Hardware::default()
        };
        hardware.add_standby(uplink);
        hardware.add_vf(NicModel::Igb, pf);
        let vm = Vm::boot(lab, &lab.host(name)?, image, &hardware)?;
        let folder = lab.folder().join(format!("hypervisor-{name}"));
        std::fs::create_dir_all(&folder).context("cannot make a hypervisor's folder")?;
        let mut hypervisor = Self {
            vm,
            name: name.to_owned(),
            address: Ipv4Addr::new(10, 77, 0, FIRST_ADDRESS + number),
            folder,
            vf: String::new(),
            other_vf: String::new(),
            relays: Vec::new(),
        };
        hypervisor.set_up(uplink, pf)?;
        hypervisor.start_libvirtd(number)?;
        hypervisor.relay(lab)?;
        remote::start(&hypervisor)?;
        hypervisor.await_libvirtd()?;
        Ok(hypervisor)
    }

    /// Bridge, PF and VFs.
    fn set_up(&mut self, uplink: Mac, pf: Mac) -> Result<()> {
        let uplink = self
            .vm
            .find_interface(uplink)?
            .context("there is no uplink")?;
        let pf = self.vm.find_interface(pf)?.context("there is no PF")?;
        let Self { name, address, .. } = &*self;
        // The PF is up before there are VFs: otherwise they get no link.
        let script = format!(
            "hostname {name} && printf '127.0.0.1 localhost\\n10.77.0.101 a\\n10.77.0.102 b\\n' >/etc/hosts &&
             ip link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0 &&
             ip link set {uplink} master br0 up && ip address add {address}/24 dev br0 && ip link set br0 up &&
             ip link set {pf} name pf0 && ip link set pf0 up &&
             [ -e /dev/kvm ] || {{ dmesg | tail -n 20; exit 1; }}
             echo 2 >/sys/class/net/pf0/device/sriov_numvfs &&
             mkdir -p {folder} && ln -s {LIBVIRT_SOCKET} {libvirt} && cd /sys/class/net/pf0/device && basename $(readlink virtfn0) && basename $(readlink virtfn1)",
            folder = self.folder.display(),
            libvirt = self.socket("libvirt").display(),
        );
        let told = self.sh(&script)?;
        let mut vfs = told.split_whitespace().map(str::to_owned);
        self.vf = vfs.next().context("there is no VF")?;
        self.other_vf = vfs.next().context("there is one VF only")?;
        let group = self.sh(&format!(
            "ls /sys/bus/pci/devices/{}/iommu_group/devices",
            self.vf
        ))?;
        ensure!(
            group.trim() == self.vf,
            "the VF {} shares its IOMMU group: {group}",
            self.vf
        );
        Ok(())
    }

    fn start_libvirtd(&self, number: u8) -> Result<()> {
        let address = self.address;
        // The identity of each is its own: libvirt migrates to another host only.
        let daemon = format!(
            "host_uuid = \"7a6e646d-0000-4000-8000-0000000000{number:02x}\"\nauth_unix_rw = \"none\"\n\
             listen_tls = 0\nlisten_tcp = 1\nauth_tcp = \"none\"\nlisten_addr = \"{address}\"\n\
             log_outputs = \"3:stderr\"\n"
        );
        self.vm
            .write_file("/etc/libvirt/libvirtd.conf", daemon.as_bytes(), false)?;
        self.vm
            .write_file("/etc/libvirt/qemu.conf", QEMU_CONFIG.as_bytes(), false)?;
        self.sh("mkdir -p /run/libvirt /run/lock /var/log/libvirt/qemu /var/lib/libvirt/qemu")?;
        self.vm.spawn(
            &["/usr/sbin/libvirtd", "-l"],
            &[("LC_ALL", "C")],
            LIBVIRTD_LOG,
        )?;
        Ok(())
    }

    /// Brings libvirt's socket and the guest's to this machine.
    fn relay(&mut self, lab: &Lab) -> Result<()> {
        let libvirt = (
            LIBVIRT_PORT,
            PathBuf::from(LIBVIRT_SOCKET),
            self.socket("libvirt"),
        );
        let guest = Socket::ALL.map(|one| {
            let path = self.guest_socket(one);
            (one.port(), path.clone(), path)
        });
        for (port, there, here) in std::iter::once(libvirt).chain(guest) {
            let listen = format!("TCP-LISTEN:{port},fork,reuseaddr,nodelay");
            let connect = format!("UNIX-CONNECT:{}", there.display());
            let log = format!("/tmp/relay-{port}.log");
            self.vm
                .spawn(&["/usr/bin/socat", &listen, &connect], &[], &log)?;
            let target = SocketAddr::new(self.address.into(), port);
            let namespace = lab.client()?.namespace();
            self.relays
                .push(Relay::start(&here, namespace, target, UUID)?);
        }
        Ok(())
    }

    fn await_libvirtd(&self) -> Result<()> {
        let deadline = Instant::now() + LIBVIRTD_LIMIT;
        loop {
            let answer = self.try_virsh(&["list", "--all"])?;
            if answer.status.success() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "libvirtd of {} does not answer: {}\n{}",
                    self.name,
                    answer.stderr,
                    self.log_tail()
                );
            }
            std::thread::sleep(LOOK_STEP);
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The PCI address of its VF.
    pub fn vf(&self) -> &str {
        &self.vf
    }

    /// The PCI address of its other VF.
    pub fn other_vf(&self) -> &str {
        &self.other_vf
    }

    /// The guest that it is itself.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Where its sockets are: the same path here and there.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn guest_socket(&self, socket: Socket) -> PathBuf {
        self.socket(socket.file())
    }

    /// How virsh and tandem-host reach its libvirt from this machine.
    pub fn uri(&self) -> String {
        format!(
            "qemu+unix:///system?socket={}",
            self.socket("libvirt").display()
        )
    }

    /// Where it takes migrations.
    pub fn migrate_uri(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// Where it can't take one: something listens there already.
    pub fn taken_migrate_uri(&self) -> String {
        format!("{}:{LIBVIRT_PORT}", self.migrate_uri())
    }

    /// Runs a script on it that must succeed.
    ///
    /// # Errors
    /// It does not.
    pub fn sh(&self, script: &str) -> Result<String> {
        let ran = self.vm.run(&["sh", "-c", script], SCRIPT_LIMIT)?;
        ensure!(
            ran.success(),
            "`{script}` on {}: {}{}",
            self.name,
            ran.text(),
            ran.error_text()
        );
        Ok(ran.text())
    }

    /// Runs virsh against it, to its success.
    ///
    /// # Errors
    /// It fails.
    pub fn virsh(&self, arguments: &[&str]) -> Result<String> {
        let ran = self.try_virsh(arguments)?;
        ensure!(
            ran.status.success(),
            "virsh {} on {}: {}\n{}",
            arguments.join(" "),
            self.name,
            ran.stderr,
            self.log_tail()
        );
        Ok(ran.stdout)
    }

    fn try_virsh(&self, arguments: &[&str]) -> Result<Finished> {
        let mut virsh = Command::new("virsh");
        virsh
            .args(["-q", "-c", &self.uri()])
            .args(arguments)
            .env("LC_ALL", "C");
        command::run_any(&mut virsh, VIRSH_LIMIT)
    }

    /// Whether this domain runs here.
    ///
    /// # Errors
    /// libvirt does not answer.
    pub fn runs(&self, domain: &str) -> Result<bool> {
        Ok(self
            .virsh(&["list", "--name"])?
            .lines()
            .any(|line| line.trim() == domain))
    }

    /// What libvirtd said last, and the kernel.
    pub fn log_tail(&self) -> String {
        let script = format!(
            "tail -n 20 {LIBVIRTD_LOG}; tail -n 20 /var/log/libvirt/qemu/*.log; dmesg | tail -n 20"
        );
        self.sh(&script)
            .unwrap_or_else(|error| format!("{error:#}"))
    }
}
