//! The unit, the rules and the user, held against the tools of Debian 13 without booting it.

#![expect(clippy::unwrap_used, reason = "everything in here is part of a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tandem_lab::command::{self, Finished};
use tandem_lab::full_guest::{Rootfs, install};
use tandem_lab::{Kernel, Lab, tandem};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);
/// Each service and its exposure on systemd's own scale of 0 to 10, at most.
const EXPOSED_AT_MOST: [(&str, f64); 4] = [
    ("tandem.service", 2.1),
    // Looks for the kernel's modules, and writes to sysfs and to the user tandem's folder.
    ("tandem-nics.service", 2.5),
    ("tandem-host-policy.service", 2.6),
    ("tandem-host.service", 1.5),
];

/// A copy of Debian 13 with Tandem's files; the program is a stand-in that can be executed.
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
        let root = Self { folder };
        for (from, to) in install::FILES {
            root.put(&install::source(from), to);
        }
        root.put(Path::new("/bin/true"), tandem::PROGRAM);
        // The host's service is on other machines, and none of the guest's files.
        let unit = install::source("helper/systemd/tandem-host.service");
        root.put(&unit, "/usr/lib/systemd/system/tandem-host.service");
        root.put(Path::new("/bin/true"), "/usr/bin/tandem-host");
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    fn put(&self, from: &Path, to: &str) {
        let to = self.path(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }

    fn run(&self, script: &str) -> Finished {
        let mut chroot = Command::new("chroot");
        chroot
            .arg(self.folder.path())
            .args(["/bin/sh", "-c", script]);
        command::run_any(&mut chroot, LIMIT).unwrap()
    }
}

#[test]
fn debian_13_takes_unit_rules_and_user() {
    if Lab::for_test("packaging").is_none() {
        return;
    }
    let root = Root::new();
    let silent = |script: &str| {
        let finished = root.run(script);
        assert!(
            finished.status.success() && finished.stderr.is_empty(),
            "{script}:\n{}{}",
            finished.stdout,
            finished.stderr
        );
        finished.stdout
    };

    let made = root.run("systemd-sysusers tandem.conf");
    assert!(made.status.success(), "systemd-sysusers: {}", made.stderr);
    let user = silent("getent passwd tandem");
    assert!(user.contains(":/run/tandem:/usr/sbin/nologin"), "{user}");

    let units = "tandem.service tandem-nics.service tandem-host-policy.path \
                 tandem-host-policy.service tandem-host.service";
    silent(&format!(
        "cd /usr/lib/systemd/system && systemd-analyze verify --man=no {units}"
    ));

    let rules = silent(
        "udevadm verify /usr/lib/udev/rules.d/10-tandem-unmanaged.rules /usr/lib/udev/rules.d/60-tandem.rules",
    );
    assert!(rules.contains("Success: 2"), "{rules}");

    for (unit, limit) in EXPOSED_AT_MOST {
        let security = silent(&format!(
            "systemd-analyze security --offline=yes --no-pager {unit}"
        ));
        eprintln!("{security}");
        let exposure: f64 = security
            .lines()
            .find_map(|line| {
                line.split(&format!("Overall exposure level for {unit}: "))
                    .nth(1)
            })
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("no exposure in {security}"));
        assert!(
            exposure <= limit,
            "exposure {exposure} of {unit}, and not {limit}:\n{security}"
        );
    }
}
