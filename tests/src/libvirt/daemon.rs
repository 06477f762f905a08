//! A libvirtd of its own for a host of the lab.

use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::artifacts::cache;
use crate::artifacts::host_tools::{self, HostTool};
use crate::command::{self, Finished};
use crate::process::{self, ProcessHandle};
use crate::{Host, Lab};

const SCRIPT: &str = include_str!("libvirtd.sh");
/// libvirtd asks QEMU what it can do before it answers: many seconds on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How often a libvirtd that starts is asked.
const START_STEP: Duration = Duration::from_millis(200);
/// Creating a domain starts a QEMU.
const VIRSH_LIMIT: Duration = Duration::from_secs(120);
const SYSTEMCTL_LOG: &str = "systemctl.log";
const END_LIMIT: Duration = Duration::from_secs(20);
/// The last number of the first host's address in the lab's network; the next host has the next one.
const FIRST_ADDRESS: u8 = 101;

/// A host of the lab with a libvirtd. It ends, with all its domains, on drop and when the lab dies.
#[derive(Debug)]
pub struct LibvirtHost {
    host: Host,
    folder: PathBuf,
    address: Ipv4Addr,
    child: Child,
    handle: ProcessHandle,
}

impl LibvirtHost {
    /// Makes the host and starts its libvirtd; comes back at once. `number` is 0 for the first host, …
    fn begin(lab: &Lab, name: &str, number: u8) -> Result<Self> {
        let host = lab.host(name)?;
        let address = Ipv4Addr::new(10, 77, 0, FIRST_ADDRESS + number);
        host.namespace()
            .ip(&["address", "add", &format!("{address}/24"), "dev", "br0"])?;
        let folder = lab.folder().join(format!("libvirt-{name}"));
        for part in ["etc/qemu", "run", "lib", "log", "cache"] {
            std::fs::create_dir_all(folder.join(part)).context("cannot make libvirt's folders")?;
        }
        write(&folder.join("etc/libvirtd.conf"), &daemon_config(number))?;
        write(&folder.join("etc/qemu.conf"), QEMU_CONFIG)?;
        install_hook(&folder)?;
        let script = folder.join("libvirtd.sh");
        write(&script, SCRIPT)?;
        let mut start = Command::new("ip");
        start.args(["netns", "exec", host.namespace().name()]);
        // The kernel kills what is in a process namespace with its first process, and `unshare` takes
        // that one with it when the lab dies: a QEMU that libvirtd left as a daemon does not stay.
        start.args([
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
        ]);
        start.arg(&script).arg(&folder).arg(name);
        let child = process::spawn_bound(start)?;
        let handle = ProcessHandle::of(&child)?;
        Ok(Self {
            host,
            folder,
            address,
            child,
            handle,
        })
    }

    /// Two hosts, `a` and `b`, that are ready.
    pub fn pair(lab: &Lab) -> Result<(Self, Self)> {
        host_tools::ensure(&HostTool::LIBVIRT)?;
        let (a, b) = (Self::begin(lab, "a", 0)?, Self::begin(lab, "b", 1)?);
        for host in [&a, &b] {
            host.wait_ready()?;
        }
        Ok((a, b))
    }

    /// Kills its libvirtd, as by `kill -9`, and waits until the one that is started in its place answers.
    /// The QEMUs live on.
    pub fn restart_libvirtd(&self) -> Result<()> {
        let first = self.first_process().context("it has no first process")?;
        let daemon = children(first)
            .into_iter()
            .find(|pid| {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
                name.is_ok_and(|name| name.trim() == "libvirtd")
            })
            .context("its libvirtd does not run")?;
        let handle = ProcessHandle::of_pid(daemon)?;
        handle.kill();
        ensure!(handle.wait_exit(END_LIMIT)?, "libvirtd does not end");
        self.wait_ready()
    }

    /// The first process of its process namespace.
    fn first_process(&self) -> Option<u32> {
        children(self.child.id()).first().copied()
    }

    fn wait_ready(&self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let answer = self.try_virsh(&["list", "--all"])?;
            if answer.status.success() {
                return Ok(());
            }
            if self.handle.wait_exit(START_STEP)? || Instant::now() >= deadline {
                bail!(
                    "libvirtd of host {} does not answer: {}\n{}",
                    self.host.name(),
                    answer.stderr.trim(),
                    self.log_tail()
                );
            }
        }
    }

    /// The lab's host it is on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where its files are. A domain of this host has its sockets here.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How virsh and tandem-host reach it, from this machine.
    pub fn uri(&self) -> String {
        let socket = self.folder.join("run/libvirt/libvirt-sock");
        format!("qemu+unix:///system?socket={}", socket.display())
    }

    /// Where this host's `tandem-host serve` lends the channels of its guests, if one runs.
    pub fn serve_socket(&self) -> String {
        self.folder.join("serve.sock").display().to_string()
    }

    /// Where `tandem-host` keeps its locks. They tell that an owner lives, and both hosts are on one machine:
    /// they have the same.
    pub fn state_folder(&self) -> String {
        let lab = self.folder.parent().unwrap_or(&self.folder);
        lab.join("state").display().to_string()
    }

    /// The folder in which this host's domains, and those of the other one, have their sockets: libvirt's own
    /// is not seen from outside of this host's namespaces.
    pub fn channel_folder(&self) -> String {
        let lab = self.folder.parent().unwrap_or(&self.folder);
        lab.display().to_string()
    }

    /// Where this host's `tandem-host serve` writes its metrics.
    pub fn metrics(&self) -> PathBuf {
        self.folder.join("tandem.prom")
    }

    /// Waits until the metrics have this line, or have it no more.
    pub fn await_metric(&self, line: &str, there: bool) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let text = std::fs::read_to_string(self.metrics()).unwrap_or_default();
            if text.ends_with("# EOF\n") && text.lines().any(|one| one == line) == there {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{line}: not so ({there}) in the metrics:\n{text}"
            );
            std::thread::sleep(START_STEP);
        }
    }

    /// Waits until libvirtd has said this so often since it was started first.
    pub fn await_said(&self, words: &str, times: usize) -> Result<()> {
        let deadline = Instant::now() + VIRSH_LIMIT;
        loop {
            let text = std::fs::read_to_string(self.folder.join("libvirtd.log"));
            let text = text.context("libvirtd's log")?;
            let said = text.lines().filter(|line| line.contains(words)).count();
            if said >= times {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "libvirtd said {words} {said} times only:\n{}",
                self.log_tail()
            );
            std::thread::sleep(START_STEP);
        }
    }

    /// What libvirt's hook asked of systemd here.
    pub fn asked_of_systemd(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join(SYSTEMCTL_LOG)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Where it takes migrations.
    pub fn migrate_uri(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// Runs virsh here, to its success, and gives what it printed.
    pub fn virsh(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.try_virsh(arguments)?;
        if !finished.status.success() {
            bail!(
                "virsh {} on host {}: {}",
                arguments.join(" "),
                self.host.name(),
                finished.stderr.trim()
            );
        }
        Ok(finished.stdout)
    }

    /// Runs virsh here, whatever comes of it.
    pub fn try_virsh(&self, arguments: &[&str]) -> Result<Finished> {
        let mut virsh = Command::new("virsh");
        virsh
            .args(["-q", "-c", &self.uri()])
            .args(arguments)
            .env("LC_ALL", "C");
        command::run_any(&mut virsh, VIRSH_LIMIT)
    }

    /// The names of the domains that run here.
    pub fn running(&self) -> Result<Vec<String>> {
        let listed = self.virsh(&["list", "--name"])?;
        let names = listed
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        Ok(names.map(str::to_owned).collect())
    }

    /// Waits until the memory of this domain is being copied from here.
    pub fn await_migration(&self, domain: &str) -> Result<()> {
        let deadline = Instant::now() + VIRSH_LIMIT;
        loop {
            let job = self.try_virsh(&["domjobinfo", domain, "--rawstats"])?;
            let copied = job.stdout.lines().find_map(|line| {
                let bytes = line.trim().strip_prefix("memory_processed:")?;
                bytes.trim().parse::<u64>().ok()
            });
            if copied.is_some_and(|bytes| bytes > 0) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{domain} is not migrated: {}{}",
                job.stdout,
                job.stderr
            );
            std::thread::sleep(START_STEP);
        }
    }

    /// Lifts a limit on the migration that is under way.
    pub fn hurry_migration(&self, domain: &str) -> Result<()> {
        self.virsh(&["migrate-setspeed", domain, "10000"]).map(drop)
    }

    /// What libvirtd said last.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("libvirtd.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for LibvirtHost {
    fn drop(&mut self) {
        // The first process of the process namespace: the kernel ends all others before it, and
        // `unshare`, its parent, ends after it.
        let first = self.first_process();
        match first.and_then(|pid| ProcessHandle::of_pid(pid).ok()) {
            Some(first) => first.kill(),
            None => self.handle.kill(),
        }
        let _ = process::wait_deadline(&mut self.child, END_LIMIT);
    }
}

/// The processes that this one started, and that it inherited.
fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// The product's hook, with a `systemctl` that only writes down what it is asked.
fn install_hook(folder: &Path) -> Result<()> {
    let (hooks, programs) = (folder.join("etc/hooks"), folder.join("programs"));
    let hook = cache::workspace_folder().join("helper/host/hooks/qemu");
    let (hook, log) = (hook.display(), folder.join(SYSTEMCTL_LOG));
    for (folder, name, script) in [
        (
            &hooks,
            "qemu",
            format!("PATH='{}':$PATH exec '{hook}' \"$@\"", programs.display()),
        ),
        (
            &programs,
            "systemctl",
            format!("echo \"$@\" >>'{}'", log.display()),
        ),
    ] {
        std::fs::create_dir_all(folder).context("cannot make the hook's folders")?;
        let path = folder.join(name);
        write(&path, &format!("#!/bin/sh\n{script}\n"))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} a program", path.display()))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn daemon_config(number: u8) -> String {
    // The machine's own identity would be the same on both, and libvirt migrates to another host only.
    format!(
        "host_uuid = \"7a6e646d-0000-4000-8000-0000000000{number:02x}\"\n\
         auth_unix_rw = \"none\"\n\
         log_outputs = \"3:stderr\"\n"
    )
}

/// No confinement: all of this is root's, in namespaces or an emulated hypervisor, and gone after the test.
pub(crate) const QEMU_CONFIG: &str = "\
security_driver = \"none\"
cgroup_controllers = []
namespaces = []
user = \"root\"
group = \"root\"
remember_owner = 0
stdio_handler = \"file\"
";
