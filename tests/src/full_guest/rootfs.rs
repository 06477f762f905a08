//! The full guest's root image: Debian with systemd, udev and the network managers, as a squashfs.
//!
//! Built once and kept in the lab's cache under a hash of its recipe. A test never changes it: what the
//! test brings along lies in the initramfs and is copied over it at boot.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifacts::apt::PrivateApt;
use crate::artifacts::host_tools::{self, HostTool};
use crate::artifacts::{Cache, KernelFiles, Suite};
use crate::command;
use crate::initramfs::ModuleTree;

/// Says which Debian the guest is, where it shall not be Debian 13: `bookworm`, best with `LAB_KERNEL_VERSION=6.1`, or `forky`.
const SUITE: &str = "LAB_GUEST_SUITE";
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(900);
const SQUASHFS_LIMIT: Duration = Duration::from_secs(300);

const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "network-manager",
    "ifupdown",
    DHCP_CLIENT,
    "iproute2",
    "iputils-ping",
    "ethtool",
    "kmod",
];

/// What ifupdown asks for an address with: Debian 14 has no dhclient.
const DHCP_CLIENT: &str = "isc-dhcp-client";
const DHCP_CLIENT_OF_FORKY: &str = "dhcpcd-base";

/// On top of them, what a cloud's image has, and a DHCP client that is a service of its own.
const STOCK_PACKAGES: &[&str] = &["cloud-init", "netplan.io", "systemd-resolved", "dhcpcd"];

/// On top of the lean one's, for one whose initramfs dracut makes.
const DRACUT_PACKAGES: &[&str] = &["dracut", "dracut-network"];

/// What that initramfs needs besides.
pub(super) const DRACUT_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "squashfs",
    "overlay",
    "ext4",
    "igb",
    "e1000e",
    "af_packet",
];

/// What the guest's hardware needs, and what a test may use on top.
const MODULES: &[&str] = &[
    "autofs4",
    "virtio_net",
    "virtio_console",
    "e1000e",
    "igb",
    "igbvf",
    "bonding",
    "net_failover",
    "8021q",
    "macvlan",
    "dummy",
    "bridge",
    "veth",
    // What carries the fast path's programs before Linux 6.6.
    "sch_ingress",
    "cls_bpf",
];

/// Files of packages that no test reads and that only cost time: the plugins are loaded one by one.
const LEFT_OUT: &[&str] = &[
    "/usr/share/dbus-1/system-services/org.freedesktop.hostname1.service",
    "/usr/share/dbus-1/system-services/org.freedesktop.nm_dispatcher.service",
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/share/zoneinfo/*",
    "/usr/lib/*/NetworkManager/*/libnm-device-plugin-*",
    "/usr/lib/*/NetworkManager/*/libnm-ppp-plugin.so",
    "/usr/lib/*/NetworkManager/*/libnm-settings-plugin-ifupdown.so",
    "/usr/lib/*/NetworkManager/*/libnm-wwan.so",
];

/// Units that have no part in how an interface gets its owner. Under emulation each costs about 0.2 s.
const MASKED_UNITS: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "cryptsetup.target",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "getty.target",
    "integritysetup.target",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "NetworkManager-dispatcher.service",
    "proc-sys-fs-binfmt_misc.automount",
    "remote-cryptsetup.target",
    "remote-fs.target",
    "run-lock.mount",
    "serial-getty@ttyS0.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-bootctl.socket",
    "systemd-creds.socket",
    "systemd-firstboot.service",
    "systemd-hibernate-clear.service",
    "systemd-hostnamed.service",
    "systemd-hostnamed.socket",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-pcrextend.socket",
    "systemd-pcrlock.socket",
    "systemd-pcrmachine.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysext.socket",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev-early.service",
    "systemd-tpm2-setup-early.service",
    "systemd-tpm2-setup.service",
    "systemd-udev-load-credentials.service",
    "systemd-update-done.service",
    "systemd-user-sessions.service",
    "timers.target",
    "tmp.mount",
    "veritysetup.target",
];

/// Generators run before anything else at boot.
const MASKED_GENERATORS: &[&str] = &[
    "systemd-debug-generator",
    "systemd-fstab-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-rc-local-generator",
    "systemd-run-generator",
    "systemd-ssh-generator",
    "systemd-system-update-generator",
    "systemd-sysv-generator",
    "systemd-tpm2-generator",
];

/// Managers are installed but off; a test turns on what it wants.
const OFF: &[&str] = &[
    "NetworkManager.service",
    "NetworkManager-wait-online.service",
    "systemd-networkd-wait-online.service",
    "networking.service",
];

/// And of the stock image.
const STOCK_OFF: &[&str] = &["dhcpcd.service"];

const FILES: &[(&str, &str)] = &[
    ("etc/hostname", "guest\n"),
    ("etc/machine-id", "746e616e64656d6c616200000000feed\n"),
    // As Debian's systemd does: the first bond is not made by loading the module.
    (
        "etc/modprobe.d/bonding.conf",
        "options bonding max_bonds=0\n",
    ),
    (
        // Only what these tests are about is announced again at boot.
        "etc/systemd/system/systemd-udev-trigger.service.d/lab.conf",
        "[Service]\nExecStart=\nExecStart=-udevadm trigger --type=devices --action=add \
         --subsystem-match=net --subsystem-match=pci --subsystem-match=virtio --subsystem-match=virtio-ports\n",
    ),
    (
        "etc/NetworkManager/conf.d/lab.conf",
        "[main]\nplugins=keyfile\ndns=none\nrc-manager=unmanaged\nhostname-mode=none\nauth-polkit=false\n\
         [connectivity]\nenabled=false\n",
    ),
    (
        "etc/systemd/journald.conf.d/lab.conf",
        "[Journal]\nStorage=volatile\nAudit=no\n",
    ),
];

/// Which image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flavor {
    /// systemd, udev and the network managers: the fastest to boot.
    #[default]
    Lean,
    /// With cloud-init, netplan and resolved, as a cloud's image has them, and dhcpcd's service.
    Stock,
    /// The lean one with dracut.
    Dracut,
}

impl Flavor {
    fn packages(self, suite: Suite) -> Vec<&'static str> {
        let more = match self {
            Self::Lean => &[],
            Self::Stock => STOCK_PACKAGES,
            Self::Dracut => DRACUT_PACKAGES,
        };
        let mut packages = [PACKAGES, more].concat();
        for package in &mut packages {
            if suite == Suite::Forky && *package == DHCP_CLIENT {
                *package = DHCP_CLIENT_OF_FORKY;
            }
        }
        packages
    }

    fn off(self) -> Vec<&'static str> {
        let more = match self {
            Self::Lean | Self::Dracut => &[],
            Self::Stock => STOCK_OFF,
        };
        [OFF, more].concat()
    }

    fn modules(self) -> Vec<&'static str> {
        let more = match self {
            Self::Lean | Self::Stock => &[],
            Self::Dracut => DRACUT_MODULES,
        };
        [MODULES, more].concat()
    }
}

/// The root file system in the lab's cache.
#[derive(Debug, Clone)]
pub struct Rootfs {
    folder: PathBuf,
}

impl Rootfs {
    /// The lean root file system for this kernel, built if it is not in the cache.
    pub fn of(kernel: &KernelFiles) -> Result<Self> {
        Self::with_flavor(kernel, Flavor::Lean)
    }

    /// The root file system of this flavor for this kernel, built if it is not in the cache.
    pub fn with_flavor(kernel: &KernelFiles, flavor: Flavor) -> Result<Self> {
        host_tools::ensure(&[HostTool::Mmdebstrap, HostTool::SquashfsTools])?;
        let cache = Cache::open()?;
        let suite = suite()?;
        let name = format!("full-guest-{:016x}", recipe_hash(kernel, flavor, suite));
        let folder = cache.folder(&name, |folder| build(&cache, kernel, flavor, suite, folder))?;
        Ok(Self { folder })
    }

    /// The squashfs.
    pub fn image(&self) -> PathBuf {
        self.folder.join("root.squashfs")
    }

    /// The same as a folder, to run its programs natively in. Not to be changed: copy it.
    pub fn tree(&self) -> PathBuf {
        self.folder.join("root")
    }
}

/// Two recipes with the same hash are the same; a hash that changes with the compiler costs a build.
fn recipe_hash(kernel: &KernelFiles, flavor: Flavor, suite: Suite) -> u64 {
    let mut hasher = DefaultHasher::new();
    suite.hash(&mut hasher);
    kernel.release.hash(&mut hasher);
    for list in [
        &flavor.packages(suite),
        &flavor.modules(),
        LEFT_OUT,
        MASKED_UNITS,
        MASKED_GENERATORS,
        &flavor.off(),
    ] {
        list.hash(&mut hasher);
    }
    FILES.hash(&mut hasher);
    hasher.finish()
}

fn suite() -> Result<Suite> {
    let wanted = std::env::var(SUITE).unwrap_or_else(|_| Suite::Trixie.name().to_owned());
    let all = [Suite::Bookworm, Suite::Trixie, Suite::Forky];
    let mut found = all.into_iter().filter(|suite| suite.name() == wanted);
    found.next().with_context(|| format!("{SUITE}={wanted}"))
}

fn build(
    cache: &Cache,
    kernel: &KernelFiles,
    flavor: Flavor,
    suite: Suite,
    folder: &Path,
) -> Result<()> {
    let apt = PrivateApt::of_suite(cache, suite)?;
    let stage = folder.join("stage");
    add_modules(kernel, &flavor.modules(), &stage)?;

    let root = folder.join("root");
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap
        .args(["--quiet", "--variant=minbase", "--format=directory"])
        .arg(format!("--include={}", flavor.packages(suite).join(",")))
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg("--aptopt=Acquire::Retries \"3\"");
    if apt.takes_old_lists()? {
        bootstrap.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    }
    for pattern in LEFT_OUT {
        bootstrap.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    if suite == Suite::Bookworm {
        // Else its `usrmerge` converts the tree, with a perl that nothing else wants.
        bootstrap
            .arg("--include=usr-is-merged")
            .arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr");
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
        .arg(format!(
            "--customize-hook=chroot \"$1\" systemctl disable {}",
            flavor.off().join(" ")
        ))
        .arg(suite.name())
        .arg(&root)
        .arg(apt.sources_file());
    let what = format!("building the full guest's root from {suite} (once, about a minute)");
    command::step(&what, Some(&root), || {
        command::run(&mut bootstrap, BOOTSTRAP_LIMIT)
    })?;
    configure(&root)?;

    // Uncompressed: reading is the host's work, unpacking would be the emulated guest's.
    let mut squash = Command::new("mksquashfs");
    let image = folder.join("root.squashfs");
    squash.arg(&root).arg(&image);
    squash.args(["-noI", "-noD", "-noF", "-noX", "-quiet", "-no-progress"]);
    command::step("packing the full guest's root", Some(&image), || {
        command::run(&mut squash, SQUASHFS_LIMIT)
    })?;
    fs::remove_dir_all(&stage).with_context(|| format!("cannot remove {}", stage.display()))
}

fn add_modules(kernel: &KernelFiles, names: &[&str], stage: &Path) -> Result<()> {
    let wanted: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let root = stage.join("usr/lib/modules").join(&kernel.release);
    let tree = ModuleTree::open(kernel)?;
    for module in tree.resolve(&wanted)? {
        write(&root.join(&module.path), &module.data)?;
    }
    for list in [
        "modules.order",
        "modules.builtin",
        "modules.builtin.modinfo",
    ] {
        let data = fs::read(kernel.modules.join(list)).unwrap_or_default();
        write(&root.join(list), &data)?;
    }
    Ok(())
}

fn configure(root: &Path) -> Result<()> {
    for (path, text) in FILES {
        write(&root.join(path), text.as_bytes())?;
    }
    let units = root.join("etc/systemd/system");
    let generators = root.join("etc/systemd/system-generators");
    fs::create_dir_all(&generators).context("cannot create the generators' folder")?;
    for unit in MASKED_UNITS {
        replace_link(&units.join(unit), "/dev/null")?;
    }
    for generator in MASKED_GENERATORS {
        replace_link(&generators.join(generator), "/dev/null")?;
    }
    replace_link(
        &units.join("default.target"),
        "/usr/lib/systemd/system/multi-user.target",
    )
}

fn replace_link(path: &Path, target: &str) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    symlink(target, path).with_context(|| format!("cannot make the link {}", path.display()))
}

fn write(path: &Path, data: &[u8]) -> Result<()> {
    let parent = path
        .parent()
        .context("a file of the root image has no folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    fs::write(path, data).with_context(|| format!("cannot write {}", path.display()))
}
