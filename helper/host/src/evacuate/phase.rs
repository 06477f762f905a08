//! The phases of an evacuation.

use serde::{Deserialize, Serialize};

/// Where an evacuation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// A recovery makes sure that nobody else drives the evacuation.
    Takeover,
    /// Everything that can be known before the start; changes nothing.
    Check,
    /// The domain and the destination's VF are claimed.
    Claim,
    /// The guest moves its traffic off the VF.
    Prepare,
    /// The VF leaves.
    Unplug,
    /// The hypervisor moves the domain.
    Migrate,
    /// The guest tells the network where it is.
    Announce,
    /// The destination's VF is plugged in.
    Plug,
    /// The source's VF is put back.
    Restore,
    /// The guest takes the VF into use.
    Verify,
    /// Claims and record are removed.
    Release,
}

impl Phase {
    /// The word for people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Takeover => "takeover",
            Self::Check => "check",
            Self::Claim => "claim",
            Self::Prepare => "prepare",
            Self::Unplug => "unplug",
            Self::Migrate => "migrate",
            Self::Announce => "announce",
            Self::Plug => "plug",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Release => "release",
        }
    }
}
