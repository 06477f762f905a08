//! What a running NetworkManager has to be told of the profiles, until it is done.
//!
//! It stands in a file meanwhile. What NetworkManager refused, had no time for, or somebody did not live to tell is told
//! by a later look, a few times; until then the standby keeps its own profile, and the guest its network.

use std::fs::{self, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tandem_core::IfName;

use super::nmcli::Nmcli;
use super::profile_files::{lock, path_of_bond};
use super::{copy, crossing};
use crate::runtime;
use crate::service_manager::needs_longer;
use crate::system_files::SystemFiles;

/// What is still to be told.
const PENDING_PATH: &str = "/run/tandem-nics/network-manager-told.json";
/// Locked by who tells it.
const LOCK_PATH: &str = "/run/tandem-nics/network-manager-told.lock";
/// How often it is told. The last time no bond crosses: what it costs then is better than no bond. Later looks only
/// leave bonds their own lease.
const TRIES: u32 = 3;
/// After the first one that failed; after the second it is twice that.
const PAUSE: Duration = Duration::from_secs(5);
/// How long one may take, however many bonds there are: an emulated guest's nmcli takes seconds each time. Some more
/// is `TimeoutStartSec` of tandem-refresh.service.
const TRY_LIMIT: Duration = Duration::from_secs(90);
/// What else a start may take after that.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A standby that NetworkManager is to take into its bond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moved {
    pub(super) bond: IfName,
    pub(super) standby: String,
    /// The bond is new and asks for an address: until it has one, what the standby has is all that there is.
    pub(super) crosses: bool,
}

/// Profiles to be read, and standbys to be moved then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    moved: Vec<Moved>,
    tries: u32,
    /// In seconds of `CLOCK_BOOTTIME`.
    not_before: u64,
    /// What is noted while something is told makes another one of it.
    #[serde(default)]
    notes: u32,
}

impl Pending {
    fn load(files: &SystemFiles) -> Option<Self> {
        let pending = runtime::load(&files.path(PENDING_PATH));
        pending.ok().flatten()
    }

    fn store(&self, files: &SystemFiles) -> Result<()> {
        runtime::store_for_service(&files.path(PENDING_PATH), self)
    }

    fn is_last(&self) -> bool {
        self.tries == TRIES
    }

    /// Its last one is over: bonds are left that may still have what their standbys had.
    fn is_over(&self) -> bool {
        self.tries > TRIES
    }

    /// The last one is over. Nothing if no bond is left so.
    fn over(mut self, files: &SystemFiles) -> Option<Self> {
        self.tries = TRIES + 1;
        let is_left = |moved: &Moved| moved.crosses && has_profile(files, moved);
        self.moved.retain(is_left);
        (!self.moved.is_empty()).then_some(self)
    }

    /// To be told again after a pause.
    fn put_off(&mut self, now: u64) {
        self.not_before = now + PAUSE.as_secs() * u64::from(self.tries);
    }
}

/// Notes that there are profiles to be read, and a standby to be moved, which has all tries before it. For who has [`lock`].
pub(super) fn note(files: &SystemFiles, moved: Option<Moved>) -> Result<()> {
    let mut pending = Pending::load(files).unwrap_or_default();
    pending.notes = pending.notes.wrapping_add(1);
    // What comes while the last try is under way would not be told by it.
    if moved.is_some() || pending.tries >= TRIES {
        (pending.tries, pending.not_before) = (0, 0);
    }
    if let Some(moved) = moved {
        pending.moved.retain(|other| other.bond != moved.bond);
        pending.moved.push(moved);
    }
    pending.store(files)
}

/// Something is being told, or will be.
pub(super) fn is_pending(files: &SystemFiles) -> bool {
    Pending::load(files).is_some_and(|pending| !pending.is_over())
}

/// Whether a bond may still have what its standby had, and nobody waits any more for its own lease to end that.
pub(in crate::managers) fn has_left(files: &SystemFiles, bond: &IfName) -> bool {
    let over = Pending::load(files).filter(Pending::is_over);
    over.is_some_and(|over| over.moved.iter().any(|moved| moved.bond == *bond))
}

/// Something is to be told now, and nobody is at it.
pub(in crate::managers) fn is_due(files: &SystemFiles) -> bool {
    let is_free = || matches!(lock_telling(files), Ok(Some(_)));
    Pending::load(files).is_some_and(|pending| pending.not_before <= now()) && is_free()
}

/// Nothing is to be told any more.
pub(super) fn forget(files: &SystemFiles) {
    let _ = fs::remove_file(files.path(PENDING_PATH));
}

/// Tells what is due, if nobody else is at it. Says what it did.
pub(super) fn go_on(files: &SystemFiles, nmcli: &mut Nmcli) -> Vec<String> {
    let mut said = Vec::new();
    if let Err(error) = tell_pending(files, nmcli, &mut said) {
        said.push(format!(
            "NetworkManager is not told of all bonds: {error:#}"
        ));
    }
    said
}

fn tell_pending(files: &SystemFiles, nmcli: &mut Nmcli, said: &mut Vec<String>) -> Result<()> {
    let Some(_telling) = lock_telling(files)? else {
        return Ok(());
    };
    let Some(pending) = take_up(files)? else {
        return Ok(());
    };
    needs_longer(TRY_LIMIT + START_LIMIT);
    nmcli.is_told_within(TRY_LIMIT);
    let told = match pending.is_over() {
        true => leave_leases(nmcli, &pending),
        false => tell(files, nmcli, &pending, said),
    };
    let _lock = lock(files)?;
    // Something else may have come meanwhile.
    let is_same = Pending::load(files).as_ref() == Some(&pending);
    let was_last = pending.is_last();
    let later = match pending.tries >= TRIES {
        _ if told.is_ok() => None,
        true => pending.over(files),
        false => Some(pending),
    };
    match later {
        _ if !is_same => {}
        None => forget(files),
        Some(mut later) => {
            later.put_off(now());
            later.store(files)?;
        }
    }
    if let Err(error) = told {
        let what = match is_same && was_last {
            true => "it is told no more",
            false => "it is told again",
        };
        said.push(format!(
            "NetworkManager is not told of all bonds, {what}: {error}"
        ));
    }
    Ok(())
}

/// What is due, noted as begun: who dies leaves it to a later look.
fn take_up(files: &SystemFiles) -> Result<Option<Pending>> {
    let _lock = lock(files)?;
    let now = now();
    let pending = Pending::load(files).filter(|pending| pending.not_before <= now);
    let Some(mut pending) = pending else {
        return Ok(None);
    };
    // Or its last one was killed.
    if pending.tries >= TRIES {
        let Some(over) = pending.over(files) else {
            forget(files);
            return Ok(None);
        };
        pending = over;
    } else {
        // Others have been taken back since.
        pending.moved.retain(|moved| has_profile(files, moved));
        pending.tries += 1;
    }
    pending.put_off(now);
    // A try that can't be counted would be made for ever.
    pending.store(files).inspect_err(|_| forget(files))?;
    Ok(Some(pending))
}

fn has_profile(files: &SystemFiles, moved: &Moved) -> bool {
    files.exists(&path_of_bond(moved.bond.as_str()))
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.try_into().unwrap_or_default()
}

/// Nobody else tells meanwhile.
struct Telling(fs::File);

impl Drop for Telling {
    fn drop(&mut self) {
        // A process that begins in this moment has a copy of the descriptor, which would keep the lock.
        let _ = self.0.unlock();
    }
}

/// Nothing if somebody else has it.
fn lock_telling(files: &SystemFiles) -> Result<Option<Telling>> {
    let path = files.path(LOCK_PATH);
    let context = || format!("can't lock {}", path.display());
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(false);
    let file = options.mode(0o600).open(&path).with_context(context)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Telling(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(context),
    }
}

/// Has it read its profiles, and move these standbys: it does not leave a profile for a better one by itself.
fn tell(
    files: &SystemFiles,
    nmcli: &mut Nmcli,
    pending: &Pending,
    said: &mut Vec<String>,
) -> Result<(), String> {
    let is_last = pending.is_last();
    for moved in pending.moved.iter().filter(|moved| moved.crosses) {
        if !is_last && !is_port(files, moved) {
            crossing::begin(nmcli, moved.bond.as_str(), &moved.standby)?;
        }
    }
    nmcli.run(&["connection", "reload"])?;
    let mut told = Ok(());
    // What fails of one bond leaves none of the others half done.
    for moved in &pending.moved {
        let mut ended = Ok(());
        if !is_port(files, moved) {
            ended = take(nmcli, moved);
            said.extend(ended.is_ok().then(|| {
                let Moved { bond, standby, .. } = moved;
                format!("NetworkManager is asked to take {standby} into {bond}")
            }));
        }
        if moved.crosses {
            ended = ended.and_then(|()| crossing::end(nmcli, moved.bond.as_str()));
        }
        told = told.and(ended);
    }
    told
}

/// Leaves bonds that have a lease of their own that alone. One look: nobody waits for the others' any more.
fn leave_leases(nmcli: &mut Nmcli, over: &Pending) -> Result<(), String> {
    let mut left = Ok(());
    for moved in &over.moved {
        left = left.and(crossing::end_now(nmcli, moved.bond.as_str()));
    }
    left
}

fn is_port(files: &SystemFiles, moved: &Moved) -> bool {
    let controller = files.path(&format!("/sys/class/net/{}/master", moved.standby));
    let controller = fs::read_link(controller).unwrap_or_default();
    controller
        .file_name()
        .is_some_and(|name| name == moved.bond.as_str())
}

fn take(nmcli: &mut Nmcli, moved: &Moved) -> Result<(), String> {
    let (bond, standby) = (moved.bond.as_str(), &moved.standby);
    let uuid = copy::uuid_of_standby(bond);
    let up = ["--wait", "0", "connection", "up", "uuid", &uuid];
    let up = [&up[..], &["ifname", standby]].concat();
    // It refuses one that was kept from it before.
    let taken = nmcli.run(&up).or_else(|_| {
        nmcli.run(&["device", "set", standby, "managed", "yes"])?;
        nmcli.run(&up)
    });
    taken.map_err(|error| format!("it does not take {standby} into {bond}: {error}"))
}

/// The standbys that are still to be moved.
#[cfg(test)]
pub(super) fn pending_standbys(files: &SystemFiles) -> Vec<String> {
    let moved = Pending::load(files).unwrap_or_default().moved;
    moved.into_iter().map(|moved| moved.standby).collect()
}

#[cfg(test)]
mod tests;
