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
fn what_is_noted_during_the_last_try_is_told() {
    let folder = guest("*modify*) echo no >&2; exit 1 ;;");
    let files = folder.files();
    for _ in 1..TRIES {
        look(&folder);
        pause(&files);
    }
    // The last one has begun, and somebody else writes a profile meanwhile.
    let begun = take_up(&files).unwrap().unwrap();
    assert!(begun.is_last());
    note(&files, None).unwrap();
    assert!(is_due(&files));
    let (_, told) = look(&folder);
    assert!(!told.is_empty());
}

#[test]
fn a_bond_without_a_lease_keeps_what_its_standby_had_until_it_has_one() {
    let folder = guest("");
    let (files, bond) = (folder.files(), "bond0".parse().unwrap());
    folder.link("../bond0", "/sys/class/net/eth0/master");
    let text = files.text(PROGRAM);
    folder.write(
        PROGRAM,
        &text.replace("echo 'DHCP4.OPTION[1]:ip_address = 10.77.0.110'", "true"),
    );
    // Some more: nobody waits for it then, and a later look is one.
    for tries in 1..=TRIES + 2 {
        let (said, told) = look(&folder);
        let is_anew = |told: &String| told.contains("reapply");
        assert!(!told.iter().any(is_anew), "{told:?}");
        assert!(
            said.iter().any(|text| text.contains("bond0 has no lease")),
            "{said:?}"
        );
        assert_eq!(
            (is_pending(&files), has_left(&files, &bond)),
            (tries < TRIES, tries >= TRIES)
        );
        pause(&files);
    }
    folder.write(PROGRAM, &text);
    let (said, told) = look(&folder);
    assert!(
        said.is_empty() && told.len() == 2 && told[1].ends_with("reapply bond0"),
        "{said:?} {told:?}"
    );
    assert!(!files.exists(PENDING_PATH));
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
fn whoever_dies_each_time_leaves_a_bond_its_lease_alone_and_is_not_followed_for_ever() {
    let folder = guest("");
    let (files, bond) = (folder.files(), "bond0".parse().unwrap());
    folder.link("../bond0", "/sys/class/net/eth0/master");
    for _ in 0..TRIES {
        assert!(take_up(&files).unwrap().is_some());
        assert!(is_pending(&files) && !has_left(&files, &bond));
        pause(&files);
    }
    // The next look dies too. Nobody waits for the one after it.
    assert!(take_up(&files).unwrap().unwrap().is_over());
    assert!(!is_pending(&files) && has_left(&files, &bond));
    pause(&files);
    let (said, told) = look(&folder);
    assert!(
        said.is_empty() && told.len() == 2 && told[1].ends_with("reapply bond0"),
        "{said:?} {told:?}"
    );
    assert!(!files.exists(PENDING_PATH) && !has_left(&files, &bond));
}

#[test]
fn a_bond_that_is_told_of_later_has_all_tries_and_so_have_those_that_were_left() {
    let folder = guest("");
    let files = folder.files();
    for _ in 0..=TRIES {
        assert!(take_up(&files).unwrap().is_some());
        pause(&files);
    }
    // Only profiles to be read.
    note(&files, None).unwrap();
    let (_, told) = look(&folder);
    assert!(
        told.contains(&"connection reload".to_owned())
            && told.last().unwrap().ends_with("reapply bond0"),
        "{told:?}"
    );
    assert!(!files.exists(PENDING_PATH));
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
