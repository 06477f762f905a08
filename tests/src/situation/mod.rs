//! A situation is a text: what somebody reports, as some ten lines that the lab can carry out. The language is
//! described in tests/situations/README.md; `cargo xtask lab FILE` runs one.

mod parse;
mod repeat;
mod run;
mod step;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

pub use parse::ParseError;

use crate::artifacts::cache;
use step::Step;

/// The longest file taken, in bytes.
const LIMIT_BYTES: u64 = 64 << 10;
/// What the files of situations end with.
const ENDING: &str = "lab";

/// A situation, read and found sound.
#[derive(Debug)]
pub struct Situation {
    name: String,
    steps: Vec<(usize, Step)>,
}

impl Situation {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or a line of it is no step; the error names line and word, and what is allowed there.
    pub fn read(path: &Path) -> Result<Self> {
        let about =
            std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            about.len() <= LIMIT_BYTES,
            "{} has more than {LIMIT_BYTES} bytes",
            path.display()
        );
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let steps = parse::parse(&text).map_err(|error| {
            anyhow::anyhow!("{}:{}: {}", path.display(), error.line, error.what)
        })?;
        let name = path.file_stem().unwrap_or_default();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            steps,
        })
    }

    /// Its file's name without the ending.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Carries it out, step by step, telling each.
    ///
    /// # Errors
    /// The first step that fails, with its line.
    pub fn run(&self) -> Result<()> {
        run::run(&self.name, &self.steps)
    }
}

/// The files in tests/situations/, by name.
pub fn files() -> Result<Vec<PathBuf>> {
    files_in("tests/situations")
}

/// Those that take so long that CI leaves them out.
pub fn long_files() -> Result<Vec<PathBuf>> {
    files_in("tests/situations/long")
}

fn files_in(folder: &str) -> Result<Vec<PathBuf>> {
    let folder = cache::workspace_folder().join(folder);
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == ENDING))
        .collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_situation_of_the_project_is_sound() {
        let (files, long) = (files().unwrap(), long_files().unwrap());
        assert!(files.len() >= 4 && !long.is_empty(), "{files:?} {long:?}");
        for file in files.into_iter().chain(long) {
            Situation::read(&file).unwrap();
        }
    }

    #[test]
    fn an_error_names_the_file_and_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.lab");
        std::fs::write(&file, "boot\nunplg\n").unwrap();
        let error = Situation::read(&file).unwrap_err().to_string();
        assert!(error.contains("x.lab:2: `unplg` is no step"), "{error}");
    }
}
