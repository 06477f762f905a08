//! Whether this machine can run guests on its own CPU. /dev/kvm may exist and still not work, so a
//! guest is booted to find out.

use std::fs;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::console::Console;
use super::spec::Accelerator;
use crate::artifacts::qemu::{self, Starter};
use crate::artifacts::{self, Cache, Kernel};
use crate::initramfs::Initramfs;
use crate::process;

const MARK: &str = "lab: kvm works";
const BOOT_LIMIT: Duration = Duration::from_secs(20);

/// KVM if a guest really boots with it, else emulation. `LAB_ACCEL=tcg` or `kvm` decides without asking.
/// The answer is kept until the machine restarts.
pub fn detect() -> Result<Accelerator> {
    match std::env::var("LAB_ACCEL").as_deref() {
        Ok("tcg") => return Ok(Accelerator::Tcg),
        Ok("kvm") => return Ok(Accelerator::Kvm),
        Ok(other) => bail!("LAB_ACCEL={other}: it can be tcg or kvm"),
        Err(_) => {}
    }
    static DETECTED: Mutex<Option<Accelerator>> = Mutex::new(None);
    let mut detected = DETECTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(accelerator) = *detected {
        return Ok(accelerator);
    }
    let accelerator = if kvm_opens() {
        remembered_probe()?
    } else {
        Accelerator::Tcg
    };
    *detected = Some(accelerator);
    Ok(accelerator)
}

fn kvm_opens() -> bool {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

fn remembered_probe() -> Result<Accelerator> {
    let cache = Cache::open()?;
    let boot =
        fs::read_to_string("/proc/sys/kernel/random/boot_id").context("cannot tell this boot")?;
    let file = cache.root().join("kvm-probe");
    let answer = |accelerator: Accelerator| format!("{accelerator:?} {}", boot.trim());
    let _lock = cache.lock("kvm-probe")?;
    let known = fs::read_to_string(&file).unwrap_or_default();
    for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
        if known == answer(accelerator) {
            return Ok(accelerator);
        }
    }
    let accelerator = if probe()? {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    };
    fs::write(&file, answer(accelerator)).context("cannot keep the answer about KVM")?;
    Ok(accelerator)
}

/// Whether a guest boots under KVM.
fn probe() -> Result<bool> {
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    let mut initramfs = Initramfs::new();
    initramfs.program(&artifacts::busybox()?, "/bin/busybox")?;
    initramfs.executable(
        "/init",
        format!("#!/bin/busybox sh\necho {MARK}\n/bin/busybox poweroff -f\n"),
    );
    let image = folder.path().join("initramfs");
    initramfs.write(&image)?;
    let mut command = Command::new(qemu::program(Starter::Lab)?);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
    ]);
    command.args(["-machine", "q35,accel=kvm", "-cpu", "host", "-m", "256M"]);
    command.args([
        "-chardev",
        "stdio,id=console,signal=off",
        "-serial",
        "chardev:console",
    ]);
    command.arg("-kernel").arg(Kernel::default().files()?.image);
    command.arg("-initrd").arg(&image);
    command.args(["-append", "console=ttyS0 panic=-1 quiet"]);
    let child = process::spawn_bound(command)?;
    let handle = process::ProcessHandle::of(&child)?;
    let console = Console::watch(child, &folder.path().join("console"))?;
    let works = console.wait_line(MARK, BOOT_LIMIT).is_ok();
    handle.kill();
    console.wait_end(BOOT_LIMIT);
    Ok(works)
}
