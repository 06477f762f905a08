//! NetworkManager's files: profiles (nm-settings-keyfile(5)) and its own configuration (NetworkManager.conf(5)).
//! Both are key files as `GLib` reads them.

use std::fs;
use std::path::PathBuf;

use crate::system_files::SystemFiles;

/// What NetworkManager has written down of the devices it knows, since it was started first.
pub(super) const DEVICES: &str = "/run/NetworkManager/devices";
/// Names of Tandem's profiles begin so.
pub(super) const PREFIX: &str = "tandem-";
/// Most files of a folder that are looked at.
const MAX_FILES: usize = 1024;

/// The groups of a file, each with its keys and values in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Keyfile(Vec<(String, Vec<(String, String)>)>);

impl Keyfile {
    /// What stands in no group is left out, as are comments and what is neither.
    pub(super) fn parse(text: &str) -> Self {
        let mut file = Self::default();
        let mut group = None;
        for line in text.lines().map(str::trim) {
            if line.starts_with('#') {
                continue;
            }
            let header = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            if let Some(name) = header {
                group = Some(name.to_owned());
            } else if let (Some(group), Some((key, value))) = (&group, line.split_once('=')) {
                file.group_mut(group)
                    .push((key.trim().to_owned(), value.trim().to_owned()));
            }
        }
        file
    }

    fn group_mut(&mut self, name: &str) -> &mut Vec<(String, String)> {
        // Groups of one name are one (`GKeyFile`).
        let found = self.0.iter().position(|(group, _)| group == name);
        let index = found.unwrap_or_else(|| {
            self.0.push((name.to_owned(), Vec::new()));
            self.0.len() - 1
        });
        &mut self.0[index].1
    }

    /// Names and entries of all groups.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&str, &[(String, String)])> {
        self.0
            .iter()
            .map(|(name, entries)| (name.as_str(), entries.as_slice()))
    }

    /// The entries of a group by any of its names.
    pub(super) fn group<'a>(
        &'a self,
        names: &'a [&str],
    ) -> impl DoubleEndedIterator<Item = (&'a str, &'a str)> {
        self.0
            .iter()
            .filter(|(name, _)| names.contains(&name.as_str()))
            .flat_map(|(_, entries)| entries)
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of a key, by any of its names; the last one counts.
    pub(super) fn get<'a>(&'a self, groups: &'a [&str], keys: &[&str]) -> Option<&'a str> {
        let mut entries = self.group(groups).rev();
        let found = entries.find(|(key, value)| keys.contains(key) && !value.is_empty());
        found.map(|(_, value)| value)
    }
}

/// Whether a value means yes (`g_key_file_get_boolean`).
pub(super) fn is_true(value: &str) -> bool {
    matches!(value, "true" | "yes" | "on" | "1" | "TRUE" | "True")
}

/// The entries of a list.
pub(super) fn list(value: &str) -> impl Iterator<Item = &str> {
    let entries = value.split([';', ',']).map(str::trim);
    entries.filter(|entry| !entry.is_empty())
}

/// The files of these folders by name, hidden ones left out; of one name that in the first folder.
pub(super) fn files_in(
    files: &SystemFiles,
    folders: &[&str],
    ending: &str,
) -> Vec<(String, PathBuf)> {
    let mut found = std::collections::BTreeMap::new();
    for folder in folders {
        let entries = fs::read_dir(files.path(folder)).into_iter().flatten();
        for entry in entries.flatten().take(MAX_FILES) {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if !name.starts_with('.') && name.ends_with(ending) {
                found.entry(name).or_insert(entry.path());
            }
        }
    }
    found.into_iter().collect()
}
