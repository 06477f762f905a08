//! Where observations come from, and how each source fares.

use alloc::string::String;
use alloc::vec::Vec;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

/// Where observations come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Links over rtnetlink.
    Links,
    /// Addresses and routes over rtnetlink.
    Addressing,
    /// Device events of udev, or of the kernel where no udevd runs.
    Udev,
    /// The eBPF monitor.
    Ebpf,
    /// The agent channel to the host.
    Channel,
    /// Something that this version has no word for: a newer guest says it.
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[serde(other)]
    Unknown,
}

/// A source of observations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct SourceStatus {
    /// Which.
    pub source: Source,
    /// How it fares.
    #[serde(deserialize_with = "any_health")]
    pub health: SourceHealth,
    /// Times it lost events and was read anew.
    pub lost: u64,
    /// Its parts one by one.
    pub parts: Vec<CheckItem>,
}

/// How a source fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SourceHealth {
    /// As it should be.
    Working,
    /// Some of its parts are missing.
    Partial,
    /// Missing.
    Missing {
        /// Why, and what follows from it.
        reason: String,
    },
    /// Something that this version has no word for: a newer guest says it.
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[serde(other)]
    Unknown,
}

/// A newer guest's may be a word or have parts.
fn any_health<'de, D: Deserializer<'de>>(from: D) -> Result<SourceHealth, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Any {
        Known(SourceHealth),
        Other(IgnoredAny),
    }
    Ok(match Any::deserialize(from)? {
        Any::Known(health) => health,
        Any::Other(IgnoredAny) => SourceHealth::Unknown,
    })
}

/// One thing that was looked at, such as an eBPF program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct CheckItem {
    /// Its name.
    pub name: String,
    /// It works.
    pub ok: bool,
    /// Why not, or what of it is worth knowing.
    pub detail: String,
}
