//! Files that the operator names.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::xml::domain::MAX_BYTES;

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
