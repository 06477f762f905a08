//! tandem-refresh.path watches systemd-networkd's folders; by a drop-in that is written here also those of drop-ins,
//! such as `10-lan.network.d`, whose names no unit can know before.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::programs::run;
use crate::system_files::{SystemFiles, make_folder, text_of};

const UNIT: &str = "tandem-refresh.path";
/// Where the unit is told of them.
const DROP_IN: &str = "/run/systemd/system/tandem-refresh.path.d/drop-ins.conf";
/// Those of networkd's folders that change while a guest runs.
const FOLDERS: [&str; 2] = ["/etc/systemd/network", "/run/systemd/network"];
const ENDING: &str = ".network.d";
/// Most folders of that kind that are watched.
const MAX_WATCHED: usize = 256;

/// Writes the drop-in, or removes it where networkd is not used, has systemd follow, and says what it did.
pub(super) fn follow(files: &SystemFiles, is_used: bool) -> Result<Vec<String>> {
    let wanted = match is_used {
        true => drop_in(files),
        false => String::new(),
    };
    let path = files.path(DROP_IN);
    if text_of(&path) == wanted {
        return Ok(Vec::new());
    }
    let written = match wanted.is_empty() {
        true => fs::remove_file(&path).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }),
        false => make_folder(path.parent().unwrap_or(Path::new("/")))
            .and_then(|()| fs::write(&path, &wanted)),
    };
    written.with_context(|| format!("can't bring {} in order", path.display()))?;
    let mut done = vec![format!("{UNIT} watches other folders of drop-ins")];
    if files.root == Path::new("/") {
        let told = run("systemctl", &["daemon-reload"])
            .and_then(|()| run("systemctl", &["try-restart", "--no-block", UNIT]));
        done.extend(told.err());
    }
    Ok(done)
}

/// Its text; empty where there is no such folder.
fn drop_in(files: &SystemFiles) -> String {
    let mut watched = Vec::new();
    for folder in FOLDERS {
        let entries = fs::read_dir(files.path(folder)).into_iter().flatten();
        for entry in entries.flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            if name.ends_with(ENDING) && is_plain(&name) && entry.path().is_dir() {
                watched.push(format!("PathChanged={folder}/{name}\n"));
            }
        }
    }
    watched.sort();
    watched.truncate(MAX_WATCHED);
    match watched.is_empty() {
        true => String::new(),
        false => format!("# Written by tandem.\n[Path]\n{}", watched.concat()),
    }
}

/// It stands for itself in a unit (systemd.unit(5)).
fn is_plain(name: &str) -> bool {
    let mut chars = name.chars();
    chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | ':'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networkd::is_used;
    use crate::nics::testing::Folder;

    #[test]
    fn folders_of_drop_ins_are_watched_as_they_come_and_go() {
        let folder = Folder::complete();
        let wanted = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service";
        folder.write(wanted, "");
        let follow = || {
            let files = folder.files();
            let said = follow(&files, is_used(&files)).unwrap();
            (said.len(), text_of(&folder.path(DROP_IN)))
        };
        assert_eq!(follow(), (0, String::new()));
        folder.write("/run/systemd/network/10-a.network.d/x.conf", "");
        folder.write("/etc/systemd/network/lan.network.d/x.conf", "");
        folder.write("/etc/systemd/network/a b.network.d/x.conf", "");
        folder.write("/etc/systemd/network/lan.link.d/x.conf", "");
        let text = "# Written by tandem.\n[Path]\nPathChanged=/etc/systemd/network/lan.network.d\n\
                    PathChanged=/run/systemd/network/10-a.network.d\n";
        assert_eq!(follow(), (1, text.to_owned()));
        assert_eq!(follow(), (0, text.to_owned()));
        folder.remove(wanted);
        assert_eq!(follow(), (1, String::new()));
        assert_eq!(follow(), (0, String::new()));
    }
}
