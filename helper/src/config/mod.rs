//! Configuration: `/etc/tandem/tandem.toml` and the drop-ins in `conf.d/` beside it.
//!
//! Everything that is wrong is an error that names file, line and key; nothing
//! that is written there is ignored.

mod error;
mod file;
mod host;

use std::path::{Path, PathBuf};

use tandem_core::policy::{HostMay, Origin, Policy};
use tandem_wire::reply::ConfigureErrorCode;

pub use error::{ConfigError, Place};
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
    /// What the host may do.
    pub host_may: HostMay,
    /// Files that were read, in order.
    pub files: Vec<PathBuf>,
    /// Where the name of each bond stands, in the policy's order.
    pub names_at: Vec<Place>,
}

impl Config {
    /// Why the bonds that the host defines are not used, if they are not.
    pub fn host_bonds_refused(&self) -> Option<ConfigureErrorCode> {
        if !self.policy.bonds.is_empty() {
            Some(ConfigureErrorCode::DefinedByFile)
        } else if !self.host_may.allows_bonds() {
            Some(ConfigureErrorCode::NotAllowed)
        } else {
            None
        }
    }
}

/// Reads `path` and the drop-ins beside it. A file that is absent says nothing;
/// without any file there are no bonds and the host may define them.
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

/// JSON schema of one configuration file, from the types that read it.
#[cfg(feature = "schema")]
pub fn schema() -> schemars::Schema {
    file::schema()
}

/// Puts the files together, in order: bonds add up, a later setting wins.
pub(crate) fn merge(texts: &[(PathBuf, String)]) -> Result<Config, ConfigError> {
    let mut config = Config {
        policy: Policy {
            origin: Origin::None,
            bonds: Vec::new(),
        },
        host_may: HostMay::default(),
        files: texts.iter().map(|(file, _)| file.clone()).collect(),
        names_at: Vec::new(),
    };
    // For each bond: which text it came from and its number there.
    let mut sources = Vec::new();
    for (number, (file, text)) in texts.iter().enumerate() {
        let parsed = file::parse(file, text)?;
        if let Some(host_may) = parsed.host_may {
            config.host_may = host_may;
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
                ConfigError::new(file, file::position_of(text, bond, error.key), message)
            }
            None => ConfigError::new(DEFAULT_PATH.as_ref(), None, message),
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
            let message = format!("more than {MAX_DROP_INS} files; put several bonds into one");
            return Err(ConfigError::new(&folder, None, message));
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
            let message = format!("larger than the limit of {MAX_FILE_BYTES} bytes");
            return Err(ConfigError::new(file, None, message));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(file, &error)),
    };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|error| unreadable(file, &std::io::Error::other(error.utf8_error())))
}

fn unreadable(file: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError::new(file, None, format!("can't be read: {error}"))
}

#[cfg(test)]
mod tests;
