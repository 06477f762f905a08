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
/// How often it is told. The last time no bond crosses: what it costs then is better than no bond.
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
        runtime::store(&files.path(PENDING_PATH), self)
    }

    fn is_last(&self) -> bool {
        self.tries >= TRIES
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
    if let Some(moved) = moved {
        pending.moved.retain(|other| other.bond != moved.bond);
        pending.moved.push(moved);
        (pending.tries, pending.not_before) = (0, 0);
    }
    pending.store(files)
}

/// Something is being told, or will be.
pub(super) fn is_pending(files: &SystemFiles) -> bool {
    Pending::load(files).is_some()
}

/// Something is to be told now, and nobody is at it.
pub(super) fn is_due(files: &SystemFiles) -> bool {
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
    let told = tell(files, nmcli, &pending, said);
    let _lock = lock(files)?;
    // Something else may have come meanwhile.
    let is_same = Pending::load(files).as_ref() == Some(&pending);
    if is_same && (told.is_ok() || pending.is_last()) {
        forget(files);
    } else if is_same {
        let mut later = pending.clone();
        later.put_off(now());
        later.store(files)?;
    }
    if let Err(error) = told {
        let what = match is_same && pending.is_last() {
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
    // Its last one was killed.
    if pending.is_last() {
        forget(files);
        return Ok(None);
    }
    // Others have been taken back since.
    let has_profile = |moved: &Moved| files.exists(&path_of_bond(moved.bond.as_str()));
    pending.moved.retain(has_profile);
    pending.tries += 1;
    pending.put_off(now);
    // A try that can't be counted would be made for ever.
    pending.store(files).inspect_err(|_| forget(files))?;
    Ok(Some(pending))
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.try_into().unwrap_or_default()
}

/// Nothing if somebody else has it.
fn lock_telling(files: &SystemFiles) -> Result<Option<fs::File>> {
    let path = files.path(LOCK_PATH);
    let context = || format!("can't lock {}", path.display());
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(false);
    let file = options.mode(0o600).open(&path).with_context(context)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
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
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::nics::testing::Folder;

    const LOG: &str = "/log";
    const PROGRAM: &str = "/nmcli";

    /// A standby that crosses, and a NetworkManager that does this when it is told something (`$*`).
    fn guest(then: &str) -> Folder {
        let folder = Folder::complete();
        let moved = Moved {
            bond: "bond0".parse().unwrap(),
            standby: "eth0".to_owned(),
            crosses: true,
        };
        folder.write(LOCK_PATH, "");
        folder.write(&path_of_bond("bond0"), "");
        note(&folder.files(), Some(moved)).unwrap();
        let text = format!(
            "#!/bin/sh\necho \"$*\" >>{log}\ncase \"$*\" in\n\
             *IP4*) echo 'IP4.ADDRESS[1]:10.77.0.110/24' ;;\n\
             *STATE*) echo 'GENERAL.STATE:100 (connected)' ;;\n\
             *DHCP4*) echo 'DHCP4.OPTION[1]:ip_address = 10.77.0.110' ;;\n{then}\nesac\n",
            log = folder.path(LOG).display()
        );
        folder.write(PROGRAM, &text);
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(PROGRAM), executable).unwrap();
        folder
    }

    /// What is said to a look, and what it told.
    fn look(folder: &Folder) -> (Vec<String>, Vec<String>) {
        folder.write(LOG, "");
        let mut nmcli = Nmcli::of(folder.path(PROGRAM).to_str().unwrap());
        let said = go_on(&folder.files(), &mut nmcli);
        let told = folder.files().text(LOG);
        (said, told.lines().map(str::to_owned).collect())
    }

    /// As if the pause were over.
    fn pause(files: &SystemFiles) {
        let mut pending = Pending::load(files).unwrap();
        assert!(pending.not_before > now() && !is_due(files));
        pending.not_before = 0;
        pending.store(files).unwrap();
        assert!(is_due(files));
    }

    #[test]
    fn a_bond_has_what_its_standby_has_before_that_is_a_port() {
        let folder = guest("");
        let (said, told) = look(&folder);
        let begins = [
            "--terse --escape no --fields IP4 device show eth0",
            "connection load /run/NetworkManager/system-connections/tandem-bond0.nmconnection",
            "--wait 25 device modify bond0 ipv4.method manual ipv4.addresses 10.77.0.110/24",
            "--terse --fields GENERAL.STATE device show bond0",
            "--wait 25 device modify bond0 ipv4.method auto",
            "connection reload",
            "--wait 0 connection up uuid ",
            "--terse --fields DHCP4 device show bond0",
            "--wait 25 device reapply bond0",
        ];
        assert_eq!(told.len(), begins.len(), "{told:?}");
        for (told, begin) in told.iter().zip(begins) {
            assert!(told.starts_with(begin), "{told}");
        }
        assert_eq!(said, ["NetworkManager is asked to take eth0 into bond0"]);
        assert!(!is_pending(&folder.files()));
        assert_eq!(look(&folder), (vec![], vec![]));
    }

    #[test]
    fn what_failed_is_told_again_and_the_last_time_without_a_crossing() {
        let folder = guest("*modify*) echo no >&2; exit 1 ;;");
        for _ in 1..TRIES {
            let (said, told) = look(&folder);
            // The standby stays as it is.
            let is_moved = |told: &String| told.contains("reload") || told.contains("ifname eth0");
            assert!(!told.iter().any(is_moved), "{told:?}");
            assert!(
                said[0].contains("it is told again") && said[0].ends_with(": no"),
                "{said:?}"
            );
            assert_eq!(look(&folder), (vec![], vec![]));
            pause(&folder.files());
        }
        let (said, told) = look(&folder);
        assert_eq!(said, ["NetworkManager is asked to take eth0 into bond0"]);
        assert!(
            told[0] == "connection reload" && told[3].ends_with("reapply bond0"),
            "{told:?}"
        );
        assert!(!is_pending(&folder.files()));
    }

    #[test]
    fn a_bond_without_a_lease_keeps_what_its_standby_had() {
        let folder = guest("");
        let text = folder.files().text(PROGRAM).replace("DHCP4.OPTION", "");
        folder.write(
            PROGRAM,
            &text.replace("echo '[1]:ip_address = 10.77.0.110'", "true"),
        );
        for tries in 1..=TRIES {
            let (said, told) = look(&folder);
            let is_anew = |told: &String| told.contains("reapply");
            assert!(!told.iter().any(is_anew), "{told:?}");
            assert!(
                said.iter().any(|text| text.contains("bond0 has no lease")),
                "{said:?}"
            );
            if tries < TRIES {
                pause(&folder.files());
            }
        }
        assert!(!is_pending(&folder.files()));
    }

    #[test]
    fn one_bond_that_is_not_taken_keeps_no_other_half_done() {
        let folder = guest("*' uuid '*' ifname eth0') exit 1 ;;");
        let files = folder.files();
        let other = Moved {
            bond: "bond1".parse().unwrap(),
            standby: "eth1".to_owned(),
            crosses: true,
        };
        folder.write(&path_of_bond("bond1"), "");
        note(&files, Some(other)).unwrap();
        let (said, told) = look(&folder);
        assert!(
            told.iter().any(|told| told.ends_with("reapply bond1")),
            "{told:?}"
        );
        assert!(
            !told.iter().any(|told| told.ends_with("reapply bond0")),
            "{told:?}"
        );
        assert!(
            said.last().unwrap().contains("it is told again"),
            "{said:?}"
        );
    }

    #[test]
    fn what_cannot_be_read_is_nothing_to_tell() {
        let folder = guest("");
        folder.write(PENDING_PATH, "{");
        assert!(!is_pending(&folder.files()) && !is_due(&folder.files()));
    }

    #[test]
    fn what_never_works_is_given_up() {
        let folder = guest("*reload) exit 1 ;;");
        for _ in 1..TRIES {
            assert!(look(&folder).0[0].contains("it is told again"));
            pause(&folder.files());
        }
        assert!(look(&folder).0[0].contains("it is told no more"));
        assert!(!is_pending(&folder.files()));
    }

    #[test]
    fn a_bond_that_was_taken_back_is_moved_no_more() {
        let folder = guest("");
        folder.remove(&path_of_bond("bond0"));
        assert_eq!(
            look(&folder),
            (vec![], vec!["connection reload".to_owned()])
        );
    }

    #[test]
    fn what_somebody_did_not_live_to_tell_the_next_look_tells_and_ends() {
        let folder = guest("");
        let files = folder.files();
        // Its standby is a port already.
        folder.link("../bond0", "/sys/class/net/eth0/master");
        let begun = take_up(&files).unwrap().unwrap();
        assert_eq!(begun.tries, 1);
        pause(&files);
        let alive = lock_telling(&files).unwrap();
        assert_eq!(look(&folder), (vec![], vec![]));
        assert!(!is_due(&files));
        drop(alive);
        let (_, told) = look(&folder);
        assert_eq!(told[0], "connection reload");
        assert!(
            told[1].contains("DHCP4") && told[2].ends_with("reapply bond0"),
            "{told:?}"
        );
        assert!(!is_pending(&files));
    }

    #[test]
    fn whoever_dies_each_time_is_not_followed_for_ever() {
        let folder = guest("");
        let files = folder.files();
        for _ in 0..TRIES {
            assert!(take_up(&files).unwrap().is_some());
            pause(&files);
        }
        assert_eq!(take_up(&files).unwrap(), None);
        assert!(!is_pending(&files));
    }

    #[test]
    fn what_comes_while_something_is_told_is_told_then() {
        let folder = guest("");
        let (files, path) = (folder.files(), folder.path(PENDING_PATH));
        let new = Pending {
            moved: Pending::load(&files).unwrap().moved,
            ..Pending::default()
        };
        let new = serde_json::to_string(&new).unwrap();
        let noted = format!("*reapply*) echo '{new}' >{} ;;", path.display());
        let text = files
            .text(PROGRAM)
            .replace("\nesac", &format!("{noted}\nesac"));
        folder.write(PROGRAM, &text);
        look(&folder);
        assert!(is_due(&files));
    }
}
