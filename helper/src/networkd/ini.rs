//! systemd's configuration files, as far as they are copied and matched here (systemd.syntax(7)).

use std::fs;
use std::path::{Path, PathBuf};

use crate::system_files::{SystemFiles, text_of};

/// Most drop-ins of one file that are read.
const MAX_DROP_INS: usize = 256;

/// A section as it stands in a file; of some there are several with the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    /// Keys and values, in order.
    pub(super) entries: Vec<(String, String)>,
}

/// The sections of a text. Comments, and what stands in no section, are left out.
pub(super) fn parse(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in logical_lines(text) {
        let header = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(name) = header {
            sections.push(Section {
                name: name.to_owned(),
                entries: Vec::new(),
            });
        } else if let (Some(section), Some((key, value))) =
            (sections.last_mut(), line.split_once('='))
        {
            let entry = (key.trim().to_owned(), value.trim().to_owned());
            section.entries.push(entry);
        }
    }
    sections
}

/// A line that ends with a backslash goes on in the next one that is no comment.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut begun = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) || (line.is_empty() && begun.is_empty()) {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => {
                begun.push_str(part);
                begun.push(' ');
            }
            None => {
                begun.push_str(line);
                lines.push(std::mem::take(&mut begun));
            }
        }
    }
    lines.push(begun);
    lines
}

/// A file and its drop-ins, one after the other as systemd reads them: those of the same name in an earlier folder
/// take the place of later ones'.
pub(super) fn read(files: &SystemFiles, folders: &[&str], file: &Path, name: &str) -> Vec<Section> {
    let mut sections = parse(&text_of(file));
    let drop_in_folder = format!("{name}.d");
    let in_folders: Vec<_> = folders
        .iter()
        .map(|folder| format!("{folder}/{drop_in_folder}"))
        .collect();
    let in_folders: Vec<_> = in_folders.iter().map(String::as_str).collect();
    for (_, drop_in) in list(files, &in_folders, "conf")
        .into_iter()
        .take(MAX_DROP_INS)
    {
        sections.extend(parse(&text_of(&drop_in)));
    }
    sections
}

/// Files with this ending, sorted by name; of the same name that in the first folder.
pub(super) fn list(files: &SystemFiles, folders: &[&str], ending: &str) -> Vec<(String, PathBuf)> {
    let mut found = std::collections::BTreeMap::new();
    for folder in folders {
        for entry in fs::read_dir(files.path(folder))
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if path.extension().is_some_and(|kind| kind == ending) {
                found.entry(name).or_insert(path);
            }
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::testing::Folder;

    #[test]
    fn sections_are_read_as_systemd_reads_them() {
        let sections = parse(
            "stray=1\n# [Match]\n[Match]\nName = a \\\n; a comment\n b\n\n[Route]\nGateway=1\n[Route]\nGateway=2",
        );
        let shown: Vec<_> = sections
            .iter()
            .map(|section| (section.name.as_str(), section.entries[0].1.as_str()))
            .collect();
        assert_eq!(shown, [("Match", "a  b"), ("Route", "1"), ("Route", "2")]);
    }

    #[test]
    fn drop_ins_follow_in_order_and_the_first_folder_wins() {
        let folder = Folder::new();
        folder.write("/a/x.network", "[Match]\nName=0\n");
        folder.write("/b/x.network.d/20.conf", "[Match]\nName=2\n");
        folder.write("/b/x.network.d/10.conf", "[Match]\nName=masked\n");
        folder.write("/a/x.network.d/10.conf", "[Match]\nName=1\n");
        folder.write("/a/x.network.d/30.txt", "[Match]\nName=3\n");
        let path = folder.path("/a/x.network");
        let sections = read(&folder.files(), &["/a", "/b"], &path, "x.network");
        let names: Vec<_> = sections
            .iter()
            .map(|section| &section.entries[0].1)
            .collect();
        assert_eq!(names, ["0", "1", "2"]);
    }
}
