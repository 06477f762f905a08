//! What is wrong with the configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in the configuration: file, and line and column from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Line and column.
    pub position: Option<(usize, usize)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.position {
            Some((line, column)) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

/// What is wrong with the configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct ConfigError {
    place: Place,
    /// And what to do.
    message: String,
}

impl ConfigError {
    pub(super) fn new(
        file: &Path,
        position: Option<(usize, usize)>,
        message: impl Into<String>,
    ) -> Self {
        let place = Place {
            file: file.to_path_buf(),
            position,
        };
        Self {
            place,
            message: message.into(),
        }
    }
}
