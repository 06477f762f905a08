//! What a run of the lab leaves on the machine while it lives, and how it goes away: at its end, after
//! Ctrl-C, and, if it was killed, at the start of the next run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::command;
use crate::process::ProcessHandle;

/// Unix socket paths are short, so this is not below the project. One folder for each run.
const BASE: &str = "/tmp/tandem-lab";
/// Network namespaces of the lab are named `tl-RUN-NAME`.
const NETNS_PREFIX: &str = "tl-";
/// The name of a folder that is being removed ends so.
const REMOVED_SUFFIX: &str = ".removed";
const IP_LIMIT: Duration = Duration::from_secs(30);
/// A killed process is gone at once, unless the kernel still works for it.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The runs of this process that are not over.
static ACTIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// One run's folder. While its lock is held the run is alive; what belongs to it is removed on drop.
#[derive(Debug)]
pub(crate) struct RunFolder {
    id: String,
    path: PathBuf,
    _alive: File,
}

impl RunFolder {
    /// Removes what dead runs left, and begins a new one.
    pub(crate) fn create() -> Result<Self> {
        clean_up_on_signals()?;
        fs::create_dir_all(BASE).with_context(|| format!("cannot create {BASE}"))?;
        let base_lock = lock(&Path::new(BASE).join("lock"), FlockOperation::LockExclusive)?
            .context("cannot lock the lab's folder")?;
        sweep();
        let folder = tempfile::Builder::new()
            .prefix("")
            .rand_bytes(5)
            .tempdir_in(BASE)
            .context("cannot create a folder for this run")?;
        let path = folder.keep();
        let id = path
            .file_name()
            .context("a folder without a name")?
            .to_string_lossy()
            .into_owned();
        let alive = lock(
            &path.join("alive"),
            FlockOperation::NonBlockingLockExclusive,
        )?
        .context("a new run's lock is taken")?;
        drop(base_lock);
        ACTIVE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id.clone());
        Ok(Self {
            id,
            path,
            _alive: alive,
        })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The name of this run's network namespace `name`.
    pub(crate) fn netns(&self, name: &str) -> String {
        format!("{NETNS_PREFIX}{}-{name}", self.id)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        remove(&self.id);
        ACTIVE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id| *id != self.id);
    }
}

/// Opens and locks a file; nothing if somebody else holds it and waiting was not asked for.
fn lock(path: &Path, operation: FlockOperation) -> Result<Option<File>> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    match flock(&file, operation) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Removes what runs left whose process is gone.
fn sweep() {
    let Ok(entries) = fs::read_dir(BASE) else {
        return;
    };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(REMOVED_SUFFIX) {
            let _ = fs::remove_dir_all(entry.path());
            continue;
        }
        let alive = entry.path().join("alive");
        if let Ok(Some(_held)) = lock(&alive, FlockOperation::NonBlockingLockExclusive) {
            remove(&name);
        }
    }
}

/// Removes a run's namespaces, with all interfaces in them, and its folder. What is gone is fine.
fn remove(id: &str) {
    let prefix = format!("{NETNS_PREFIX}{id}-");
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            end_processes(&name);
            let _ = command::run_any(Command::new("ip").args(["netns", "del", &name]), IP_LIMIT);
        }
    }
    // Under another name first: who still has the path (a QEMU that starts, this process's other threads,
    // another run's sweep) makes nothing new in a folder that is being emptied, which would then stay.
    let removed = Path::new(BASE).join(format!("{id}{REMOVED_SUFFIX}"));
    if fs::rename(Path::new(BASE).join(id), &removed).is_ok() {
        let _ = fs::remove_dir_all(removed);
    }
}

/// Kills what still runs in a network namespace, and waits a moment until it is gone: a libvirtd would write
/// into the folder while it is removed.
fn end_processes(netns: &str) {
    let Ok(listed) = command::run(Command::new("ip").args(["netns", "pids", netns]), IP_LIMIT)
    else {
        return;
    };
    let pids = listed
        .stdout
        .lines()
        .filter_map(|pid| pid.trim().parse().ok());
    let handles: Vec<_> = pids
        .filter_map(|pid| ProcessHandle::of_pid(pid).ok())
        .collect();
    for handle in &handles {
        handle.kill();
    }
    for handle in &handles {
        let _ = handle.wait_exit(END_LIMIT);
    }
}

/// Cleans up before SIGINT, SIGTERM or SIGHUP ends this process. QEMU dies with the process.
fn clean_up_on_signals() -> Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| error.to_string())?;
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                for id in ACTIVE.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    remove(id);
                }
                // Fails only for signals this does not handle.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        });
        Ok(())
    });
    installed
        .clone()
        .map_err(|error| anyhow::anyhow!("cannot handle signals: {error}"))
}
