//! What is written of an evacuation: in the domain's metadata what identifies it, and on this host the whole.
//!
//! The metadata is the claim on the domain. Whoever may edit the domain can write it, and it comes along from
//! other hosts, so it names no host and no device: those are in this host's own record.

use serde::{Deserialize, Serialize};
use tandem_core::types::IfName;

use super::spec::{MAX_DEVICES, Side, Spec};
use crate::hypervisor::MAX_PROGRESS_BYTES;
use crate::words::{printable, quoted};
use crate::xml::PROGRESS_NAMESPACE;

/// The record in the metadata. Written before what it describes is begun. Whoever goes on with an evacuation
/// writes its records anew, so one with a key that is not known is none to go on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Progress {
    /// Version of the record.
    pub version: u32,
    /// Random; the same over recoveries of one evacuation.
    pub evacuation: String,
    /// The domain's name: a record that was copied to another domain means nothing there.
    pub domain: String,
    /// Its name on the destination, if that is another one. Since version 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed: Option<String>,
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
    /// The guest's bond; `None` if it has only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<String>,
    /// Its other bonds. Since version 3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_bonds: Vec<String>,
    /// How many devices of no bond it moves; which they are only its own record says. Since version 3.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub let_go: u8,
    /// How many of those the domain was to get back and has not. Since version 5.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lacking: u8,
}

#[cfg(test)]
impl Progress {
    /// The record of a domain that arrived and has not got its VF, for tests.
    pub(crate) fn degraded(evacuation: &str, domain: &str) -> Self {
        Self {
            version: Self::VERSION,
            evacuation: evacuation.to_owned(),
            domain: domain.to_owned(),
            renamed: None,
            owner: None,
            beat: 7,
            stage: Stage::Degraded,
            migration_begun: true,
            home: Some(Side::Destination),
            bond: None,
            more_bonds: Vec::new(),
            let_go: 0,
            lacking: 0,
        }
    }
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// The whole, as this host keeps it for itself: the same, and what a recovery acts on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Record {
    /// As in the domain's metadata.
    pub progress: Progress,
    /// What shall be brought about.
    pub spec: Spec,
    /// What a carry changes on the source, as it was before. Only where frames are carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<PaceBefore>,
}

/// How a domain's migrations were limited before a carry slowed one down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PaceBefore {
    /// How fast they may copy, in bytes per second.
    pub speed: u64,
    /// How long the hypervisor may let the domain stand still, in ms: what was asked for, as no hypervisor is asked for its own.
    pub max_downtime_ms: u64,
}

/// Who drives an evacuation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
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

impl Owner {
    /// As text, without line breaks.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are JSON")
    }

    /// Reads what [`Owner::to_text`] wrote; `None` if none of ours did.
    pub fn parse(text: &str) -> Option<Self> {
        let owner: Self = serde_json::from_str(text).ok()?;
        let words = [&owner.token, &owner.host, &owner.started_at];
        let are_short = words.iter().all(|word| word.len() <= MAX_WORD_BYTES);
        are_short.then_some(owner)
    }

    /// Who it is, in words that are safe to print.
    pub fn in_words(&self) -> String {
        format!(
            "process {} on {}, started {}",
            self.pid,
            printable(&self.host),
            printable(&self.started_at)
        )
    }
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
    /// It runs without a device, which a recovery may plug in.
    Degraded,
}

/// A record that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgressError {
    /// Longer than any we write.
    #[error("the record of an evacuation is {0} bytes long, and no record of tandem-host is")]
    TooLong(usize),
    /// Not JSON, not the keys we know, or a value that none of ours has.
    #[error(
        "the record of an evacuation can't be understood, and is left as it is: {}. If a newer tandem-host wrote it, \
         use that one", printable(.0)
    )]
    NotUnderstood(String),
    /// Of another domain.
    #[error(
        "the record of an evacuation is of domain {}, and stands in domain {}; remove it: `virsh metadata {} \
         --uri {namespace} --remove`, with --live, --config or both",
        printable(.of), printable(.found_in), quoted(.found_in), namespace = PROGRESS_NAMESPACE
    )]
    OtherDomain {
        /// The domain that it names.
        of: String,
        /// The domain in which it was found.
        found_in: String,
    },
    /// Of a version before this one.
    #[error(
        "the record of an evacuation has version {version}, which names hosts and devices that anybody may have \
         written; this program does not act on it. Finish with the program that wrote it, or remove it: `virsh \
         metadata {} --uri {namespace} --remove`, with --live, --config or both, and plug in the VF by hand",
        quoted(.domain), namespace = PROGRESS_NAMESPACE
    )]
    Old {
        /// The record's version.
        version: u32,
        /// The domain.
        domain: String,
    },
    /// Of a version after this one.
    #[error(
        "the record of an evacuation has version {0}, this program knows {known}, and leaves it as it is; use the newer \
         tandem-host that wrote it", known = Progress::VERSION
    )]
    Newer(u32),
}

/// Longest word in a record, in bytes.
const MAX_WORD_BYTES: usize = 256;
/// No record of ours was ever written so often: an owner beats every few seconds.
const MAX_BEAT: u64 = 1 << 48;

impl Progress {
    /// The newest version that this program writes: only where a device of no bond is missing, as version 4 only where the
    /// domain gets another name, and version 3 only where several devices are in it, so that older programs read all that
    /// they could do. Version 1 had the whole plan in the metadata.
    pub const VERSION: u32 = 5;
    /// The oldest version that can say that a device of no bond is missing.
    pub(super) const LACKING: u32 = 5;
    /// The oldest version that this program goes on with.
    pub const OLDEST: u32 = 2;

    /// As text, without line breaks.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are JSON")
    }

    /// Reads what [`Progress::to_text`] wrote, as it was found in that domain.
    ///
    /// # Errors
    /// If it is too long, damaged, of another domain or version.
    pub fn parse_for(text: &str, domain: &str) -> Result<Self, ProgressError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        if text.len() > MAX_PROGRESS_BYTES {
            return Err(ProgressError::TooLong(text.len()));
        }
        let not_understood = |e: serde_json::Error| ProgressError::NotUnderstood(e.to_string());
        let Version { version } = serde_json::from_str(text).map_err(not_understood)?;
        if version < Self::OLDEST {
            let domain = domain.to_owned();
            return Err(ProgressError::Old { version, domain });
        }
        if version > Self::VERSION {
            return Err(ProgressError::Newer(version));
        }
        let record: Self = serde_json::from_str(text).map_err(not_understood)?;
        record.check(domain)?;
        Ok(record)
    }

    fn check(&self, domain: &str) -> Result<(), ProgressError> {
        if self.domain != domain && self.renamed.as_deref() != Some(domain) {
            return Err(ProgressError::OtherDomain {
                of: self.domain.clone(),
                found_in: domain.to_owned(),
            });
        }
        let wrong = |what: &str| Err(ProgressError::NotUnderstood(what.to_owned()));
        let owner = self.owner.iter();
        let words = owner.flat_map(|owner| [&owner.token, &owner.host, &owner.started_at]);
        let mut words = words.chain([&self.evacuation]);
        if words.any(|word| word.len() > MAX_WORD_BYTES) {
            return wrong("a word in it is longer than any of ours");
        }
        if self.beat > MAX_BEAT {
            return wrong("its beat is higher than any of ours");
        }
        if self.version == Self::OLDEST && (!self.more_bonds.is_empty() || self.let_go > 0) {
            return wrong("it has several devices, which its version has not");
        }
        if self.lacking > 0 && (self.version < Self::LACKING || self.lacking > self.let_go) {
            return wrong("it lacks more devices of no bond than it can");
        }
        if self.more_bonds.len() >= MAX_DEVICES {
            return wrong("it has more bonds than any of ours");
        }
        let mut bonds = self.bonds().map(|name| name.parse::<IfName>());
        if bonds.any(|name| name.is_err()) {
            return wrong("its bond has a name that no interface can have");
        }
        Ok(())
    }

    /// All its bonds that have a name in it.
    pub fn bonds(&self) -> impl Iterator<Item = &String> {
        self.bond.iter().chain(&self.more_bonds)
    }

    /// The domain runs without a device that it should have, and whoever evacuated it has given up.
    pub fn is_degraded(&self) -> bool {
        self.stage == Stage::Degraded
    }

    /// All that is missing are devices on the destination: the domain has come to stay there, and
    /// its memory with it. Plugging them in needs nobody's decision.
    pub fn lacks_only_plug(&self) -> bool {
        let stage = matches!(self.stage, Stage::Plugging | Stage::Degraded);
        stage && self.migration_begun && self.home == Some(Side::Destination)
    }

    /// That process drives it.
    pub fn is_owned_by(&self, token: &str) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|owner| owner.token == token)
    }

    /// Who drives it, in words that are safe to print.
    pub fn owner_in_words(&self) -> String {
        match &self.owner {
            Some(owner) => owner.in_words(),
            None => "nobody now".to_owned(),
        }
    }
}

impl Record {
    /// Longest text, in bytes.
    pub const MAX_BYTES: usize = 512 * 1024;

    /// As text, without line breaks.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are JSON")
    }

    /// Reads what [`Record::to_text`] wrote of that domain.
    ///
    /// # Errors
    /// If it is damaged, of another domain or version.
    pub fn parse_for(text: &str, domain: &str) -> Result<Self, ProgressError> {
        #[derive(Deserialize)]
        struct Parts {
            progress: serde_json::Value,
        }
        let not_understood = |e: serde_json::Error| ProgressError::NotUnderstood(e.to_string());
        let Parts { progress } = serde_json::from_str(text).map_err(not_understood)?;
        Progress::parse_for(&progress.to_string(), domain)?;
        let record: Self = serde_json::from_str(text).map_err(not_understood)?;
        let too_many = record.spec.devices.len() > MAX_DEVICES;
        if too_many || record.spec.record_version() > record.progress.version {
            let what = "it has more than its version can have";
            return Err(ProgressError::NotUnderstood(what.to_owned()));
        }
        let is_renamed = record.spec.renamed.as_deref() == Some(domain);
        if record.spec.domain != domain && !is_renamed {
            return Err(ProgressError::OtherDomain {
                of: record.spec.domain,
                found_in: domain.to_owned(),
            });
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests;
