//! Whether the kernel has its bonding driver, or would load it when the first bond is made.
//!
//! A bond is made over rtnetlink. The kernel then asks for the module by the alias `rtnl-link-bond`
//! (`rtnl_newlink`, net/core/rtnetlink.c, 6.12), which a `blacklist` line of modprobe.d(5) hides.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::system_files::{SystemFiles, text_of};

const MODULE: &str = "bonding";
/// Where it stands in the lists of modules, without the ending of a compressed file.
const PATH: &str = "drivers/net/bonding/bonding.ko";
/// Where modprobe looks; of files with the same name the first wins (modprobe.d(5)).
const MODPROBE_FOLDERS: [&str; 5] = [
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
];

/// Why no bond can be made; nothing if one can, as far as files tell.
pub(crate) fn lack(files: &SystemFiles) -> Option<String> {
    if files.exists("/sys/module/bonding") || files.exists("/sys/class/net/bonding_masters") {
        return None;
    }
    if !files.has_module(MODULE, PATH) {
        let release = &files.kernel_release;
        return Some(format!("it is not among the modules of {release}"));
    }
    // A sysctl that only a reboot takes back (Documentation/admin-guide/sysctl/kernel.rst, 6.12).
    if files.text("/proc/sys/kernel/modules_disabled").trim() == "1" {
        return Some("kernel.modules_disabled is 1, and it is not loaded yet".to_owned());
    }
    let parameters = files.text("/proc/cmdline");
    if let Some(parameter) = parameters.split_whitespace().find(|word| forbids(word)) {
        return Some(format!("the kernel parameter `{parameter}` forbids it"));
    }
    modprobe_files(files).into_iter().find_map(|file| {
        let text = text_of(&file);
        let line = text.lines().find(|line| hides(line))?.trim();
        Some(format!("{} says `{line}`", file.display()))
    })
}

/// A kernel parameter that keeps the module out: modprobe's (modprobe(8)) or the kernel's own
/// (`module_blacklist=`, kernel/module/main.c, 6.12).
fn forbids(word: &str) -> bool {
    let list = ["modprobe.blacklist=", "module_blacklist="]
        .into_iter()
        .find_map(|key| word.strip_prefix(key));
    list.is_some_and(|list| list.split(',').any(|name| name == MODULE))
}

/// A line of modprobe.d(5) with which the module is not loaded.
fn hides(line: &str) -> bool {
    let mut words = line.split_whitespace();
    match (words.next(), words.next()) {
        (Some("blacklist"), Some(MODULE)) => true,
        // Usually /bin/false or /bin/true; one that calls modprobe loads it after all.
        (Some("install"), Some(MODULE)) => !words.any(|word| word.contains("modprobe")),
        _ => false,
    }
}

fn modprobe_files(files: &SystemFiles) -> Vec<PathBuf> {
    let mut found = BTreeMap::new();
    for folder in MODPROBE_FOLDERS {
        let entries = fs::read_dir(files.path(folder));
        for entry in entries.into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|kind| kind == "conf") {
                found.entry(entry.file_name()).or_insert(path);
            }
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use crate::nics::testing::Folder;

    #[test]
    fn a_module_that_is_there_can_be_loaded_unless_somebody_forbids_it() {
        let folder = Folder::new();
        let lack = || super::lack(&folder.files());
        assert!(lack().unwrap().contains("not among the modules"));
        folder.write(
            "/lib/modules/6.12.0-test/modules.dep",
            "kernel/drivers/net/bonding/bonding.ko.xz: kernel/net/tls/tls.ko.xz\n",
        );
        assert_eq!(lack(), None);

        folder.write(
            "/usr/lib/modprobe.d/a.conf",
            "# blacklist bonding\noptions bonding max_bonds=0\n",
        );
        assert_eq!(lack(), None);
        folder.write("/usr/lib/modprobe.d/b.conf", "  blacklist bonding\n");
        assert!(lack().unwrap().contains("b.conf says `blacklist bonding`"));
        // A file of the same name in /etc takes its place.
        folder.write(
            "/etc/modprobe.d/b.conf",
            "install bonding /sbin/modprobe --ignore-install bonding\n",
        );
        assert_eq!(lack(), None);
        folder.write("/etc/modprobe.d/c.conf", "install bonding /bin/false\n");
        assert!(lack().unwrap().contains("install bonding /bin/false"));
        // Loaded is loaded.
        folder.write("/sys/module/bonding/refcnt", "0");
        assert_eq!(lack(), None);
    }

    #[test]
    fn kernel_parameters_and_the_lock_of_modules_count() {
        let folder = Folder::new();
        folder.write(
            "/lib/modules/6.12.0-test/modules.builtin",
            "kernel/drivers/net/bonding/bonding.ko\n",
        );
        let lack = || super::lack(&folder.files());
        folder.write(
            "/proc/cmdline",
            "quiet bonding.max_bonds=0 modprobe.blacklist=nouveau\n",
        );
        assert_eq!(lack(), None);
        folder.write(
            "/proc/cmdline",
            "quiet modprobe.blacklist=nouveau,bonding\n",
        );
        assert!(
            lack()
                .unwrap()
                .contains("`modprobe.blacklist=nouveau,bonding`")
        );
        folder.write("/proc/cmdline", "module_blacklist=bonding\n");
        assert!(lack().unwrap().contains("module_blacklist"));
        folder.write("/proc/cmdline", "");
        folder.write("/proc/sys/kernel/modules_disabled", "1\n");
        assert!(lack().unwrap().contains("modules_disabled"));
    }
}
