//! Debian 13 as a folder: apt installs the packages, the tools of systemd look at what is there, apt removes them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use tandem_lab::Kernel;
use tandem_lab::artifacts::packages;
use tandem_lab::command::{self, Finished};
use tandem_lab::full_guest::{Rootfs, exposure, install};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);
const UNITS: [&str; 5] = [
    "tandem.service",
    "tandem-nics.service",
    "tandem-refresh.path",
    "tandem-refresh.service",
    "tandem-host.service",
];
/// Every file, but those that apt and dpkg keep of what they did, and those of the running system, which this is not.
const LIST: &str = "find / -xdev \\( -path /var/cache -o -path /var/log -o -path /var/lib/apt -o -path /var/lib/dpkg \
    -o -path /dev -o -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /packages \\) -prune -o -print";
/// A user stays when its package goes: its number must not become another's.
const STAY: [&str; 4] = [
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/passwd-",
    "/etc/shadow-",
];

/// A copy of Debian 13.
struct Root {
    folder: TempDir,
}

impl Root {
    fn new() -> Self {
        let rootfs = Rootfs::of(&Kernel::from_environment().unwrap().files().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut copy = Command::new("cp");
        copy.arg("-a")
            .arg(rootfs.tree().join("."))
            .arg(folder.path());
        command::run(&mut copy, LIMIT).unwrap();
        let packages = folder.path().join("packages");
        fs::create_dir(&packages).unwrap();
        for name in ["tandem", "tandem-host"] {
            let file = packages::deb(name).unwrap();
            let copied = packages.join(file.file_name().unwrap());
            fs::copy(&file, copied).unwrap();
        }
        Self { folder }
    }

    fn run(&self, script: &str) -> Finished {
        let mut chroot = Command::new("chroot");
        chroot
            .arg(self.folder.path())
            .args(["/bin/sh", "-c", script])
            .env("DEBIAN_FRONTEND", "noninteractive");
        command::run_any(&mut chroot, LIMIT).unwrap()
    }

    /// Gives what it printed.
    fn succeed(&self, script: &str) -> String {
        let finished = self.run(script);
        let (told, errors) = (&finished.stdout, &finished.stderr);
        assert!(finished.status.success(), "{script}:\n{told}{errors}");
        finished.stdout
    }

    /// The same of what finds nothing to complain of.
    fn silent(&self, script: &str) -> String {
        let finished = self.run(script);
        let (told, errors) = (&finished.stdout, &finished.stderr);
        assert!(
            finished.status.success() && errors.is_empty(),
            "{script}:\n{told}{errors}"
        );
        finished.stdout
    }

    fn files(&self) -> BTreeSet<String> {
        let list = self.succeed(LIST);
        let files = list.lines().filter(|path| !STAY.contains(path));
        files.map(str::to_owned).collect()
    }
}

pub(crate) fn check() {
    let root = Root::new();
    let before = root.files();
    root.succeed("apt-get -q -y --no-install-recommends install /packages/tandem_*.deb /packages/tandem-host_*.deb");
    is_installed(&root);
    units_and_rules_are_sound(&root);

    // A configuration is the administrator's: it stays until the package is purged.
    root.succeed("echo >/etc/tandem/tandem.toml; apt-get -q -y remove tandem tandem-host");
    root.succeed("test -e /etc/tandem/tandem.toml && test ! -e /usr/bin/tandem");
    root.succeed("apt-get -q -y purge tandem tandem-host");
    let after = root.files();
    let left: Vec<_> = after.difference(&before).collect();
    assert!(left.is_empty(), "the packages left {left:#?}");
    let lost: Vec<_> = before.difference(&after).collect();
    assert!(lost.is_empty(), "the packages took {lost:#?} along");
}

/// The files that the lab's other guests have, byte for byte; the user; and the service comes with the next boot.
fn is_installed(root: &Root) {
    for (from, to) in install::FILES {
        let installed = root.folder.path().join(to.trim_start_matches('/'));
        let same = fs::read(&installed).unwrap() == fs::read(install::source(from)).unwrap();
        assert!(same, "{to} is not {from}");
    }
    let user = root.silent("getent passwd tandem");
    assert!(user.contains(":/run/tandem:/usr/sbin/nologin"), "{user}");
    for unit in ["tandem.service", "tandem-host.service"] {
        let state = root.succeed(&format!("systemctl is-enabled {unit}"));
        assert_eq!(state.trim(), "enabled", "{unit}");
    }
    // Also where nothing but the host's channel asks for it.
    let wants = "/etc/systemd/system/dev-virtio\\x2dports-org.tandem.agent.0.device.wants";
    root.silent(&format!("test -L '{wants}/tandem.service'"));
    let said = root.silent("tandem --version; tandem-host --version");
    assert_eq!(said.lines().count(), 2, "{said}");
    root.silent("test -x /etc/libvirt/hooks/qemu.d/tandem");
}

fn units_and_rules_are_sound(root: &Root) {
    let units = UNITS.join(" ");
    let version = root.succeed("systemctl --version | sed -n '1s/^systemd \\([0-9]*\\).*/\\1/p'");
    let version: u32 = version.trim().parse().unwrap();
    // Older ones know neither how restarts slow down, which costs nothing but that, nor how to look at rules.
    let unknown = match version {
        ..254 => " 2>&1 | grep -v 'RestartSteps\\|RestartMaxDelaySec\\|^$' >&2 || true",
        _ => "",
    };
    root.silent(&format!(
        "cd /usr/lib/systemd/system && systemd-analyze verify --man=no {units}{unknown}"
    ));
    if version >= 254 {
        let rules = root.silent(
            "udevadm verify /usr/lib/udev/rules.d/10-tandem-unmanaged.rules /usr/lib/udev/rules.d/60-tandem.rules",
        );
        assert!(rules.contains("Success: 2"), "{rules}");
    }

    // The figures are those of Debian 13's; others count otherwise.
    if version < 257 {
        return;
    }
    for service in exposure::SERVICES {
        let table = root.silent(&format!(
            "systemd-analyze security --offline=yes --no-pager {}",
            service.unit
        ));
        exposure::check(&service, &table).unwrap();
    }
}
