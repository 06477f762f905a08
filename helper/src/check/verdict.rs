//! What was found of each thing that is looked at.

use serde::Serialize;

/// How bad a lack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// Tandem works, with less.
    Degraded,
    /// Tandem can't do its work.
    Fatal,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// How something stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// Whether anything is wrong.
    pub level: Level,
    /// What was found.
    pub detail: String,
    /// What follows from it; empty if nothing is wrong.
    pub consequence: &'static str,
    /// What to do; empty if nothing is wrong.
    pub remedy: &'static str,
}

impl Verdict {
    pub(super) fn ok(detail: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            detail: detail.into(),
            consequence: "",
            remedy: "",
        }
    }

    pub(super) fn degraded(
        detail: impl Into<String>,
        consequence: &'static str,
        remedy: &'static str,
    ) -> Self {
        Self {
            level: Level::Degraded,
            detail: detail.into(),
            consequence,
            remedy,
        }
    }

    pub(super) fn fatal(
        detail: impl Into<String>,
        consequence: &'static str,
        remedy: &'static str,
    ) -> Self {
        Self {
            level: Level::Fatal,
            ..Self::degraded(detail, consequence, remedy)
        }
    }

    pub(super) fn of(self, name: &'static str) -> Finding {
        Finding {
            name,
            verdict: self,
        }
    }
}
