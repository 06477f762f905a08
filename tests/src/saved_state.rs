//! Guests that have booted, saved in the lab's cache: a further guest of the same machine that boots the same
//! starts from there instead. Under emulation that takes a second where booting takes ten.
//!
//! A state is saved the moment the lab's agent answers, before anything was done with the guest. Its key is all
//! that QEMU is told, and the contents of what it is told to boot; taps and sockets are each guest's own.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::artifacts::Cache;
use crate::artifacts::cache::CacheLock;
use crate::artifacts::qemu::{self, Starter};
use crate::qemu::MachineSpec;

/// States kept, in bytes: those used least recently go first.
const KEPT_BYTES: u64 = 3 << 30;
/// With this variable set to `off`, each guest boots.
const VARIABLE: &str = "LAB_SAVED_STATES";

/// The place of one state in the cache.
#[derive(Debug)]
pub(crate) struct SavedState {
    file: PathBuf,
    /// Held by who makes it; nobody waits for it.
    maker: Option<CacheLock>,
}

impl SavedState {
    /// The place of the state that a guest of this machine has when it has booted; nothing if states are not to be
    /// used, or another process is making just this one.
    pub(crate) fn of(spec: &MachineSpec) -> Result<Option<Self>> {
        if std::env::var(VARIABLE).is_ok_and(|value| value == "off") {
            return Ok(None);
        }
        let cache = Cache::open()?;
        let folder = cache.root().join("states");
        fs::create_dir_all(&folder).context("cannot create the folder of saved states")?;
        let name = format!("{:016x}", key(spec)?);
        let file = folder.join(&name);
        if file.is_file() {
            return Ok(Some(Self { file, maker: None }));
        }
        let Some(maker) = cache.try_lock(&format!("state-{name}"))? else {
            return Ok(None);
        };
        // Another process may have made it meanwhile.
        let maker = (!file.is_file()).then_some(maker);
        Ok(Some(Self { file, maker }))
    }

    /// The state, if it is there.
    pub(crate) fn ready(&self) -> Option<&Path> {
        let used = || File::options().append(true).open(&self.file);
        if self.maker.is_some() {
            return None;
        }
        // What is used is not thrown away first.
        let _ = used().and_then(|file| file.set_modified(SystemTime::now()));
        Some(&self.file)
    }

    /// Has `save` make it, unless it is there: whole or not at all.
    pub(crate) fn keep(self, save: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if self.maker.is_none() {
            return Ok(());
        }
        make_room(&self.file)?;
        let partial = self.file.with_extension("partial");
        let _ = fs::remove_file(&partial);
        save(&partial)?;
        fs::rename(&partial, &self.file)
            .with_context(|| format!("cannot move {} into place", partial.display()))
    }

    /// Throws away one that is of no use.
    pub(crate) fn forget(self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// Removes the states that were not used for longest, until those left are within the limit.
fn make_room(beside: &Path) -> Result<()> {
    let folder = beside.parent().context("a state has a folder")?;
    let entries = fs::read_dir(folder).context("cannot list the saved states")?;
    let mut states: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let about = entry.metadata().ok()?;
            Some((about.modified().ok()?, about.len(), entry.path()))
        })
        .collect();
    states.sort();
    let mut total: u64 = states.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, path) in states {
        if total <= KEPT_BYTES {
            break;
        }
        // A QEMU that reads it has it open.
        let _ = fs::remove_file(path);
        total = total.saturating_sub(bytes);
    }
    Ok(())
}

/// Differs if anything differs that a booted guest could tell.
fn key(spec: &MachineSpec) -> Result<u64> {
    let mut same = spec.clone();
    for (_, tap) in &mut same.nics {
        tap.clear();
    }
    for port in &mut same.ports {
        port.socket.clear();
    }
    same.initramfs.clear();
    let mut hasher = DefaultHasher::new();
    same.arguments(Path::new(""), false).hash(&mut hasher);
    let mut initramfs = Vec::new();
    File::open(&spec.initramfs)
        .and_then(|mut file| file.read_to_end(&mut initramfs))
        .with_context(|| format!("cannot read {}", spec.initramfs.display()))?;
    initramfs.hash(&mut hasher);
    let program = qemu::program(Starter::Lab)?;
    for file in [&program, &spec.kernel] {
        let about =
            fs::metadata(file).with_context(|| format!("cannot look at {}", file.display()))?;
        (about.len(), about.modified().ok()).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_used_last_stays() {
        let folder = tempfile::tempdir().unwrap();
        let state = |name: &str, age_s: u64| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_len(KEPT_BYTES / 2).unwrap();
            let at = SystemTime::now() - std::time::Duration::from_secs(age_s);
            file.set_modified(at).unwrap();
        };
        state("old", 30);
        state("older", 60);
        state("new", 1);
        make_room(&folder.path().join("next")).unwrap();
        let left = ["old", "older", "new"].map(|name| folder.path().join(name).exists());
        assert_eq!(left, [true, false, true]);
    }

    #[test]
    fn a_state_is_made_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        let lock = || {
            let cache = Cache::at(folder.path()).unwrap();
            cache.try_lock("state-x").unwrap()
        };
        let place = |maker| SavedState {
            file: file.clone(),
            maker,
        };
        let held = lock();
        assert!(held.is_some() && lock().is_none(), "one makes it");
        let state = place(held);
        assert_eq!(state.ready(), None);
        assert!(state.keep(|_| anyhow::bail!("no room")).is_err());
        assert!(!file.exists());
        place(lock())
            .keep(|partial| Ok(fs::write(partial, "state")?))
            .unwrap();
        assert_eq!(place(None).ready(), Some(file.as_path()));
        place(None).forget();
        assert!(!file.exists());
    }
}
