//! What `/etc/network/interfaces` says of a NIC (interfaces(5), ifupdown 0.8.44).

use std::path::{Path, PathBuf};

use crate::system_files::{SystemFiles, text_of};

pub(super) const INTERFACES: &str = "/etc/network/interfaces";
/// Most files that are read, one that includes itself among them.
const MAX_FILES: usize = 256;
/// What brings interfaces up at a boot or when they appear.
const STARTS: &[&str] = &["auto", "allow-auto", "allow-hotplug"];
/// Options of these kinds make something of the NIC itself.
const OF_HARDWARE: &[&str] = &[
    "bond",
    "bridge",
    "hwaddress",
    "slaves",
    "vlan",
    "wireless",
    "wpa",
    "802-1x",
];

/// An `iface` stanza.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stanza {
    name: String,
    family: String,
    method: String,
    /// The rest of its first line, and its other lines.
    options: Vec<String>,
}

/// All that the files say.
#[derive(Debug, Default)]
pub(in crate::managers) struct Stanzas {
    /// What is brought up by itself: names or patterns.
    started: Vec<String>,
    stanzas: Vec<Stanza>,
    has_mapping: bool,
}

/// How ifupdown configures a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Not at all.
    None,
    /// By its stanzas.
    Configures,
}

impl Stanzas {
    pub(in crate::managers) fn read(files: &SystemFiles) -> Self {
        let mut all = Self::default();
        let mut left = MAX_FILES;
        all.read_file(files, &files.path(INTERFACES), &mut left);
        all
    }

    fn read_file(&mut self, files: &SystemFiles, path: &Path, left: &mut usize) {
        let Some(one_less) = left.checked_sub(1) else {
            return;
        };
        *left = one_less;
        let mut is_iface = false;
        for line in logical_lines(&text_of(path)) {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            let rest: Vec<_> = words.map(str::to_owned).collect();
            match first {
                "iface" => self.stanzas.push(Stanza {
                    name: rest.first().cloned().unwrap_or_default(),
                    family: rest.get(1).cloned().unwrap_or_default(),
                    method: rest.get(2).cloned().unwrap_or_default(),
                    options: rest
                        .get(3..)
                        .map(|rest| vec![rest.join(" ")])
                        .unwrap_or_default(),
                }),
                "mapping" => self.has_mapping = true,
                "source" => {
                    for path in rest.iter().flat_map(|pattern| found(files, path, pattern)) {
                        self.read_file(files, &path, left);
                    }
                }
                "source-directory" => {
                    let all = rest.iter().map(|folder| format!("{folder}/*"));
                    for path in all.flat_map(|pattern| found(files, path, &pattern)) {
                        if has_plain_name(&path) {
                            self.read_file(files, &path, left);
                        }
                    }
                }
                _ if STARTS.contains(&first) => self.started.extend(rest),
                "no-auto-down" | "no-scripts" | "rename" => {}
                _ if first.starts_with("allow-") => {}
                _ if is_iface => {
                    let options = self.stanzas.last_mut().map(|stanza| &mut stanza.options);
                    options
                        .into_iter()
                        .for_each(|options| options.push(line.clone()));
                    continue;
                }
                _ => continue,
            }
            is_iface = first == "iface";
        }
    }

    /// How a NIC of this name is configured at a boot, or why that can't be told or is more than addresses.
    pub(super) fn of_nic(&self, name: &str) -> Result<Use, String> {
        let is_pattern = |word: &&String| word.contains(['/', '*', '?', '[', '=']);
        if let Some(pattern) = self.started.iter().find(is_pattern) {
            return Err(format!("what `auto {pattern}` is for can't be told"));
        }
        if !self.started.iter().any(|started| started == name) {
            return Ok(Use::None);
        }
        if self.has_mapping {
            return Err("a `mapping` chooses stanzas".to_owned());
        }
        let mut configures = false;
        for stanza in self.stanzas.iter().filter(|stanza| stanza.name == name) {
            let Stanza {
                family,
                method,
                options,
                ..
            } = stanza;
            match (family.as_str(), method.as_str()) {
                ("inet" | "inet6", "manual") => {}

                ("inet" | "inet6", "dhcp" | "static") | ("inet6", "auto") => configures = true,
                _ => return Err(format!("its stanza is `{family} {method}`")),
            }
            for option in options {
                let mut words = option.split(|c: char| c.is_whitespace() || c == '/' || c == '=');
                if words.any(|word| word == name) {
                    return Err(format!("its stanza names it again: `{option}`"));
                }
                if OF_HARDWARE.iter().any(|kind| option.starts_with(kind))
                    || option.starts_with("inherits")
                {
                    return Err(format!("its stanza has `{option}`"));
                }
            }
        }
        Ok(match configures {
            true => Use::Configures,
            false => Use::None,
        })
    }

    /// Its stanzas give it an IPv4 address, or ask for one.
    pub(super) fn gives_ipv4(&self, name: &str) -> bool {
        let mut stanzas = self.stanzas.iter().filter(|stanza| stanza.name == name);
        stanzas.any(|stanza| stanza.family == "inet" && stanza.method != "manual")
    }

    /// There are stanzas for an interface of this name.
    pub(in crate::managers) fn has(&self, name: &str) -> bool {
        self.stanzas.iter().any(|stanza| stanza.name == name)
    }
}

/// A line that ends with a backslash goes on in the next one; comments have lines of their own.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for line in text.lines() {
        let begun = lines.last().is_some_and(|line| line.ends_with('\\'));
        match lines.last_mut().filter(|_| begun) {
            Some(last) => {
                last.pop();
                last.push_str(line);
            }
            None => lines.push(line.trim().to_owned()),
        }
    }
    lines.retain(|line| !line.is_empty() && !line.starts_with('#'));
    lines
}

/// The files that a pattern in this file means.
fn found(files: &SystemFiles, file: &Path, pattern: &str) -> Vec<PathBuf> {
    let pattern = match pattern.starts_with('/') {
        true => files.path(pattern),
        false => file.parent().unwrap_or(Path::new("/")).join(pattern),
    };
    let paths = pattern.to_str().map(glob::glob);
    let paths = paths.into_iter().flatten().flatten().flatten();
    paths
        .filter(|path| path.is_file())
        .take(MAX_FILES)
        .collect()
}

fn has_plain_name(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    name.is_some_and(|name| name.chars().all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::testing::Folder;

    fn of(text: &str) -> Result<Use, String> {
        let folder = Folder::new();
        folder.write(INTERFACES, text);
        Stanzas::read(&folder.files()).of_nic("eth0")
    }

    #[test]
    fn what_brings_a_nic_up_is_read() {
        const DHCP: &str = "iface eth0 inet dhcp\n";
        assert_eq!(of(&format!("auto lo eth0\n{DHCP}")), Ok(Use::Configures));
        assert_eq!(
            of(&format!(
                "# the LAN\nallow-hotplug eth0\n{DHCP}iface eth0 inet6 auto\n"
            )),
            Ok(Use::Configures)
        );
        assert_eq!(
            of(
                "auto \\\n eth0\niface eth0 inet static\n  address 192.0.2.5/24\n  gateway 192.0.2.1\n"
            ),
            Ok(Use::Configures)
        );
        // By hand, not at all, or by another name.
        assert_eq!(of(DHCP), Ok(Use::None));
        assert_eq!(of("auto eth0\niface eth0 inet manual\n"), Ok(Use::None));
        assert_eq!(of("auto eth1\niface eth1 inet dhcp\n"), Ok(Use::None));
        assert_eq!(of(""), Ok(Use::None));
    }

    #[test]
    fn what_cannot_be_handed_over_is_said() {
        let why = |text: &str| of(text).unwrap_err();
        let with = |line: &str| why(&format!("auto eth0\niface eth0 inet dhcp\n  {line}\n"));
        assert!(with("up ip route add 192.0.2.0/24 dev eth0").contains("dev eth0"));
        assert!(
            with("post-up echo 1 >/proc/sys/net/ipv4/conf/eth0/forwarding").contains("names it")
        );
        assert!(with("hwaddress 52:54:00:00:00:09").contains("hwaddress"));
        assert!(with("wpa-ssid lan").contains("wpa-ssid"));
        assert!(why("auto /eth*\niface eth0 inet dhcp\n").contains("/eth*"));
        assert!(
            why("auto eth0\nmapping eth0\n script /bin/x\niface lan inet dhcp\n")
                .contains("mapping")
        );
        assert!(why("auto eth0\niface eth0 inet ppp\n").contains("inet ppp"));
        // Of another interface it is nobody's affair.
        let other = "auto eth0 eth1\niface eth1 inet ppp\niface eth0 inet dhcp\n  metric 5\n";
        assert_eq!(of(other), Ok(Use::Configures));
    }

    #[test]
    fn files_that_are_named_in_it_are_read() {
        let folder = Folder::new();
        folder.write(
            INTERFACES,
            "source /etc/network/interfaces.d/*\nsource-directory more\n",
        );
        folder.write("/etc/network/interfaces.d/50-cloud-init", "auto eth0\n");
        folder.write(
            "/etc/network/more/lan",
            "iface eth0 inet dhcp\nsource ../interfaces\n",
        );
        folder.write("/etc/network/more/lan.bak", "iface eth0 inet ppp\n");
        let all = Stanzas::read(&folder.files());
        assert_eq!(all.of_nic("eth0"), Ok(Use::Configures));
        assert!(all.has("eth0") && !all.has("bond0"));
    }
}
