//! Configuration: `/etc/tandem/tandem.toml` and the drop-ins in `conf.d/` beside it.
//!
//! Everything that is wrong is an error that names file, line and key; nothing
//! that is written there is ignored.

mod file;
mod host;

use std::fmt;
use std::path::{Path, PathBuf};

use tandem_core::policy::{Origin, Policy};

pub use host::{HOST_POLICY_PATH, load_host_policy};

use crate::runtime::read_bounded;

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/tandem/tandem.toml";

/// Largest configuration file in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Most drop-in files that are read.
const MAX_DROP_INS: usize = 256;

/// All that the files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The bonds; without any, the host's are used.
    pub policy: Policy,
    /// Whether the host may provide bonds where the files define none.
    pub accept_host_config: bool,
    /// Files that were read, in order.
    pub files: Vec<PathBuf>,
    /// Where the name of each bond stands, in the policy's order.
    pub names_at: Vec<Place>,
}

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
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Line and column, from 1.
    pub position: Option<(usize, usize)>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, position, .. } = self;
        let place = Place {
            file: file.clone(),
            position: *position,
        };
        write!(f, "{place}: {}", self.message)
    }
}

/// Reads `path` and the drop-ins beside it. A file that is absent says nothing;
/// without any file there are no bonds and the host's configuration is accepted.
///
/// # Errors
/// The first thing that is wrong: unreadable file, syntax, unknown key, a value
/// that can't be, bonds that contradict each other.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let mut texts = Vec::new();
    for file in files(path)? {
        if let Some(text) = read(&file)? {
            texts.push((file, text));
        }
    }
    merge(&texts)
}

/// Puts the files together, in order: bonds add up, a later setting wins.
fn merge(texts: &[(PathBuf, String)]) -> Result<Config, ConfigError> {
    let mut config = Config {
        policy: Policy {
            origin: Origin::None,
            bonds: Vec::new(),
        },
        accept_host_config: true,
        files: texts.iter().map(|(file, _)| file.clone()).collect(),
        names_at: Vec::new(),
    };
    // For each bond: which text it came from and its number there.
    let mut sources = Vec::new();
    for (number, (file, text)) in texts.iter().enumerate() {
        let parsed = file::parse(file, text)?;
        if let Some(accept) = parsed.accept_host_config {
            config.accept_host_config = accept;
        }
        let bonds = 0..parsed.bonds.len();
        config.names_at.extend(bonds.clone().map(|bond| Place {
            file: file.clone(),
            position: file::position_of(text, bond, "name"),
        }));
        sources.extend(bonds.map(|bond| (number, bond)));
        config.policy.bonds.extend(parsed.bonds);
    }
    if !config.policy.bonds.is_empty() {
        config.policy.origin = Origin::File;
    }
    config.policy.validate().map_err(|error| {
        let message = format!(
            "{} (key `{}` of bond `{}`)",
            error.problem, error.key, error.bond
        );
        match sources.get(error.index) {
            Some(&(number, bond)) => {
                let (file, text) = &texts[number];
                let position = file::position_of(text, bond, error.key);
                ConfigError {
                    file: file.clone(),
                    position,
                    message,
                }
            }
            None => ConfigError {
                file: PathBuf::from(DEFAULT_PATH),
                position: None,
                message,
            },
        }
    })?;
    Ok(config)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = vec![path.to_path_buf()];
    let folder = path.parent().unwrap_or(Path::new("/")).join("conf.d");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(unreadable(&folder, &error)),
    };
    let mut drop_ins = Vec::new();
    for entry in entries {
        let file = entry.map_err(|error| unreadable(&folder, &error))?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            drop_ins.push(file);
        }
        if drop_ins.len() > MAX_DROP_INS {
            return Err(ConfigError {
                file: folder,
                position: None,
                message: format!("more than {MAX_DROP_INS} files; put several bonds into one"),
            });
        }
    }
    drop_ins.sort();
    files.extend(drop_ins);
    Ok(files)
}

fn read(file: &Path) -> Result<Option<String>, ConfigError> {
    let bytes = match read_bounded(file, MAX_FILE_BYTES) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            return Err(ConfigError {
                file: file.to_path_buf(),
                position: None,
                message: format!("larger than the limit of {MAX_FILE_BYTES} bytes"),
            });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(file, &error)),
    };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|error| unreadable(file, &std::io::Error::other(error.utf8_error())))
}

fn unreadable(file: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError {
        file: file.to_path_buf(),
        position: None,
        message: format!("can't be read: {error}"),
    }
}

#[cfg(test)]
mod tests;
