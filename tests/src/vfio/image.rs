//! What a hypervisor boots from: Debian 13 with QEMU and libvirt as a squashfs, and the lab's own files over it.
//!
//! The squashfs is built once and kept in the lab's cache under a hash of its recipe.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Lab;
use crate::artifacts::apt::PrivateApt;
use crate::artifacts::cargo::{self, Profile};
use crate::artifacts::host_tools::{self, HostTool};
use crate::artifacts::{self, Cache, Kernel, KernelFiles, Suite};
use crate::command;
use crate::initramfs::{Initramfs, ModuleTree};
use crate::qemu::Drive;
use crate::vm::GuestImage;

const SUITE: Suite = Suite::Trixie;
/// About half a GB comes from the archive's mirror.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(1800);
const SQUASHFS_LIMIT: Duration = Duration::from_secs(600);
/// It takes about 40 s, and several times that on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
const SILENCE_LIMIT: Duration = Duration::from_secs(240);

const INIT: &str = include_str!("init.sh");
/// What is below this in the initramfs is copied over the root file system.
const PAYLOAD: &str = "/payload";
/// Where a hypervisor has what its guest boots from.
pub(super) const GUEST_KERNEL: &str = "/srv/guest/kernel";
/// And its initramfs.
pub(super) const GUEST_INITRAMFS: &str = "/srv/guest/initramfs";

const PACKAGES: &[&str] = &[
    "iproute2",
    "kmod",
    "libvirt-clients",
    "libvirt-daemon",
    "libvirt-daemon-driver-network",
    "libvirt-daemon-driver-qemu",
    "procps",
    "qemu-system-x86",
    "socat",
];
const MODULES: &[&str] = &[
    "bridge",
    "igb",
    "igbvf",
    "kvm_amd",
    "kvm_intel",
    "tun",
    "vfio_iommu_type1",
    "vfio_pci",
    "vhost_net",
    "virtio_console",
    "virtio_net",
];
const EARLY_MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "squashfs", "overlay"];
const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];
/// For the IOMMU, and without what costs an emulated machine most.
const KERNEL_PARAMETERS: [&str; 4] = ["intel_iommu=on", "iommu=pt", "mitigations=off", "nokaslr"];

/// Builds what a hypervisor boots from, and puts its guest's kernel and initramfs in.
pub(super) fn of(lab: &Lab, guest: &GuestImage) -> Result<GuestImage> {
    let kernel = Kernel::V6_12.files()?;
    let root = root_image(&kernel)?;
    let mut initramfs = Initramfs::new();
    initramfs.program(&artifacts::busybox()?, "/bin/busybox")?;
    initramfs.executable("/init", INIT);
    initramfs.modules(&kernel, &EARLY_MODULES.map(str::to_owned))?;
    for folder in ["/proc", "/sys", "/dev"] {
        initramfs.folder(folder);
    }
    let agent = cargo::program("tandem-lab", "lab-agent", Profile::Dev)?;
    initramfs.executable(&format!("{PAYLOAD}/usr/sbin/lab-agent"), read(&agent)?);
    // For a carry's half; it has the root image's libraries.
    let program = cargo::program("tandem-host", "tandem-host", Profile::Dev)?;
    initramfs.executable(&format!("{PAYLOAD}/usr/sbin/tandem-host"), read(&program)?);
    // The second half of the same script, by the root image's own shell.
    let inside = INIT.replacen("#!/bin/busybox sh", "#!/bin/sh", 1);
    initramfs.executable(&format!("{PAYLOAD}/usr/sbin/lab-init"), inside);
    for (from, to) in [
        (&guest.kernel, GUEST_KERNEL),
        (&guest.initramfs, GUEST_INITRAMFS),
    ] {
        initramfs.file(&format!("{PAYLOAD}{to}"), read(from)?);
    }
    let path = lab.inner().new_folder("image")?.join("initramfs");
    initramfs.write(&path)?;
    Ok(GuestImage {
        kernel: kernel.image,
        initramfs: path,
        kernel_parameters: KERNEL_PARAMETERS.map(str::to_owned).to_vec(),
        drives: vec![Drive {
            image: root,
            writable: false,
        }],
        texts: Vec::new(),
        reusable: false,
        boot_limit: BOOT_LIMIT,
        silence_limit: SILENCE_LIMIT,
    })
}

fn root_image(kernel: &KernelFiles) -> Result<PathBuf> {
    host_tools::ensure(&[HostTool::Mmdebstrap, HostTool::SquashfsTools])?;
    let cache = Cache::open()?;
    let mut hasher = DefaultHasher::new();
    (SUITE, &kernel.release, PACKAGES, MODULES, LEFT_OUT).hash(&mut hasher);
    let name = format!("hypervisor-{:016x}", hasher.finish());
    let folder = cache.folder(&name, |folder| build(&cache, kernel, folder))?;
    Ok(folder.join("root.squashfs"))
}

fn build(cache: &Cache, kernel: &KernelFiles, folder: &Path) -> Result<()> {
    let apt = PrivateApt::of_suite(cache, SUITE)?;
    let stage = folder.join("stage");
    let modules = stage.join("usr/lib/modules").join(&kernel.release);
    let names: Vec<String> = MODULES.iter().map(|name| (*name).to_owned()).collect();
    for module in ModuleTree::open(kernel)?.resolve(&names)? {
        write(&modules.join(&module.path), &module.data)?;
    }
    for list in [
        "modules.order",
        "modules.builtin",
        "modules.builtin.modinfo",
    ] {
        let data = fs::read(kernel.modules.join(list)).unwrap_or_default();
        write(&modules.join(list), &data)?;
    }
    let root = folder.join("root");
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap
        .args(["--quiet", "--variant=minbase", "--format=directory"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg("--aptopt=Acquire::Retries \"3\"")
        .arg("--aptopt=APT::Install-Recommends \"false\"");
    for pattern in LEFT_OUT {
        bootstrap.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    bootstrap
        .arg(format!(
            "--customize-hook=cp -a {}/. \"$1\"/",
            stage.display()
        ))
        .arg(format!(
            "--customize-hook=chroot \"$1\" depmod {}",
            kernel.release
        ))
        .arg(SUITE.name())
        .arg(&root)
        .arg(apt.sources_file());
    let what = format!("building the hypervisors' root from {SUITE} (once, about three minutes)");
    command::step(&what, Some(&root), || {
        command::run(&mut bootstrap, BOOTSTRAP_LIMIT)
    })?;
    // Uncompressed: reading is the machine's work, unpacking would be the emulated hypervisor's.
    let image = folder.join("root.squashfs");
    let mut squash = Command::new("mksquashfs");
    squash.arg(&root).arg(&image);
    squash.args(["-noI", "-noD", "-noF", "-noX", "-quiet", "-no-progress"]);
    command::step("packing the hypervisors' root", Some(&image), || {
        command::run(&mut squash, SQUASHFS_LIMIT)
    })?;
    for part in [stage, root] {
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, data: &[u8]) -> Result<()> {
    let parent = path
        .parent()
        .context("a file of the root image has no folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    fs::write(path, data).with_context(|| format!("cannot write {}", path.display()))
}
