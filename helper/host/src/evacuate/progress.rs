//! The record that an evacuation keeps in the domain's metadata: the claim on the
//! domain, and all that a recovery needs after this program was killed.

use serde::{Deserialize, Serialize};

use super::spec::{Side, Spec};
use crate::hypervisor::MAX_PROGRESS_BYTES;

/// The record. Written before what it describes is begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Progress {
    /// Version of the record.
    pub version: u32,
    /// Random; the same over recoveries of one evacuation.
    pub evacuation: String,
    /// Who drives it; `None` if nobody does and a recovery may begin at once.
    pub owner: Option<Owner>,
    /// Grows with each time it is written: an owner's sign of life, without comparing clocks.
    pub beat: u64,
    /// What may have been begun.
    pub stage: Stage,
    /// The migration may have been begun.
    pub migration_begun: bool,
    /// Where the domain runs, as far as the record's writer saw it stay there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Side>,
    /// What shall be brought about.
    pub spec: Spec,
}

/// Who drives an evacuation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Owner {
    /// Random; tells two processes apart for sure.
    pub token: String,
    /// Name of the machine it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// When it started, RFC 3339; for people.
    pub started_at: String,
}

/// What may have been begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The domain is claimed; nothing else was begun.
    Claimed,
    /// The guest was asked to release the VF.
    Preparing,
    /// The unplug was asked for.
    Unplugging,
    /// The migration was begun.
    Migrating,
    /// It runs on the destination; the VF is being plugged in there.
    Plugging,
    /// It stays on the source; the VF is being plugged in again there.
    Restoring,
    /// It runs without its VF, which a recovery may plug in.
    Degraded,
}

/// A record that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgressError {
    /// Longer than any we write.
    #[error("the record of an evacuation is {0} bytes long, which none of ours is")]
    TooLong(usize),
    /// Not JSON, or not the keys we know.
    #[error("the record of an evacuation can't be understood: {0}")]
    NotUnderstood(String),
    /// Of another version.
    #[error("the record of an evacuation has version {0}, this program knows {version}; use the program that wrote it", version = Progress::VERSION)]
    Version(u32),
}

impl Progress {
    /// The version that this program writes.
    pub const VERSION: u32 = 1;

    /// As text, without line breaks.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are JSON")
    }

    /// Reads what [`Progress::to_text`] wrote.
    ///
    /// # Errors
    /// If it is too long, damaged or of another version.
    pub fn parse(text: &str) -> Result<Self, ProgressError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        if text.len() > MAX_PROGRESS_BYTES {
            return Err(ProgressError::TooLong(text.len()));
        }
        let not_understood = |e: serde_json::Error| ProgressError::NotUnderstood(e.to_string());
        let Version { version } = serde_json::from_str(text).map_err(not_understood)?;
        if version != Self::VERSION {
            return Err(ProgressError::Version(version));
        }
        serde_json::from_str(text).map_err(not_understood)
    }

    /// The domain runs without the VF that it should have, and whoever evacuated it has given up.
    pub fn is_degraded(&self) -> bool {
        self.stage == Stage::Degraded
    }

    /// All that is missing is the VF on the destination: the domain has come to stay there, and
    /// its memory with it. Plugging it in needs nobody's decision.
    pub fn lacks_only_plug(&self) -> bool {
        let stage = matches!(self.stage, Stage::Plugging | Stage::Degraded);
        let wanted = self.spec.destination_vf.is_some();
        stage && wanted && self.migration_begun && self.home == Some(Side::Destination)
    }

    /// That process drives it.
    pub fn is_owned_by(&self, token: &str) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|owner| owner.token == token)
    }

    /// Who drives it, in words.
    pub fn owner_in_words(&self) -> String {
        match &self.owner {
            Some(owner) => format!(
                "process {} on {}, started {}",
                owner.pid, owner.host, owner.started_at
            ),
            None => "nobody now".to_owned(),
        }
    }
}
