//! Files that the operator names.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::xml::domain::MAX_BYTES;

/// `FILE` or `NAME=FILE`, as an option takes it. A path with a `=` is told from a name by a `/` before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// A bond, or a device's alias.
    pub name: Option<String>,
    /// The file.
    pub path: PathBuf,
}

impl NamedFile {
    /// Reads an option's value.
    ///
    /// # Errors
    /// Never: each text is a path at least.
    pub fn parse(text: &str) -> Result<Self, std::convert::Infallible> {
        let named = text.split_once('=');
        let named = named.filter(|(name, _)| !name.is_empty() && !name.contains('/'));
        Ok(match named {
            Some((name, path)) => Self {
                name: Some(name.to_owned()),
                path: path.into(),
            },
            None => Self {
                name: None,
                path: text.into(),
            },
        })
    }
}

/// A device's description, and for what it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFile {
    /// A bond, or a device's alias.
    pub name: Option<String>,
    /// What the file says.
    pub text: String,
}

/// The texts of all of them.
pub(super) fn read_all(files: &[NamedFile]) -> anyhow::Result<Vec<DeviceFile>> {
    let texts = files.iter().map(|file| {
        Ok(DeviceFile {
            name: file.name.clone(),
            text: read(&file.path)?,
        })
    });
    texts.collect()
}

/// The text of a file; one that is longer than any domain's XML is refused.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    let name = || path.display().to_string();
    let file = File::open(path).with_context(name)?;
    let mut text = String::new();
    let whole = file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text);
    whole.with_context(name)?;
    let is_short = text.len() <= MAX_BYTES;
    ensure!(is_short, "{} is longer than {MAX_BYTES} bytes", name());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_from_a_path() {
        let parsed = |text: &str| {
            let file = NamedFile::parse(text).unwrap();
            (file.name, file.path.display().to_string())
        };
        let named = |name: &str, path: &str| (Some(name.to_owned()), path.to_owned());
        assert_eq!(parsed("bond0=vf.xml"), named("bond0", "vf.xml"));
        assert_eq!(parsed("bond0=a=b"), named("bond0", "a=b"));
        for plain in ["vf.xml", "./a=b", "/tmp/a=b", "=b"] {
            assert_eq!(parsed(plain), (None, plain.to_owned()));
        }
    }

    #[test]
    fn a_long_file_is_refused_and_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.xml");
        std::fs::write(&path, " ".repeat(MAX_BYTES)).unwrap();
        assert_eq!(read(&path).unwrap().len(), MAX_BYTES);
        std::fs::write(&path, " ".repeat(MAX_BYTES + 1)).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("a.xml is longer"), "{error}");
    }
}
