//! What is asked and answered.

use serde::{Deserialize, Serialize};

use super::carry::CarryFigures;
use crate::report::DomainReport;

/// Longest request in bytes, without its end.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024;
/// Longest line of an answer in bytes, without its end: what is kept of one domain, and room.
pub const MAX_REPLY_BYTES: usize = 1024 * 1024;

/// One line to `serve`; one request a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlRequest {
    /// What is known now. Ends with [`ControlReply::Current`].
    Status {
        /// The hypervisor that is meant, as [`crate::hypervisor::Look::uri`].
        uri: String,
        /// Only this domain.
        domain: Option<String>,
    },
    /// What is known now, then [`ControlReply::Current`], then each change.
    Watch {
        /// The hypervisor that is meant.
        uri: String,
        /// Only this domain.
        domain: Option<String>,
    },
    /// The domain's channel, until this connection ends. Answered by [`ControlReply::Leased`].
    Lease {
        /// The domain.
        domain: String,
    },
    /// A carry is over. Answered by [`ControlReply::Counted`].
    Carried {
        /// What it came to.
        figures: CarryFigures,
    },
}

/// One line of `serve`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlReply {
    /// A domain as it is now.
    Domain(Box<Shown>),
    /// A domain does not run here any more.
    Gone {
        /// Its name.
        domain: String,
    },
    /// All that is known was told.
    Current {},
    /// The channel is free.
    Leased {},
    /// It is among the metrics.
    Counted {},
    /// Another hypervisor is served here.
    OtherHost {
        /// Which.
        uri: String,
    },
    /// Nothing was done.
    Error {
        /// Why, and what to do.
        message: String,
    },
}

/// A domain, and how fresh the knowledge is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Shown {
    /// Since its guest last said something, or, where it says nothing, since the hypervisor was
    /// asked, in ms. A guest that is subscribed tells each change as it happens, however old this is.
    pub age_ms: u64,
    /// What is known.
    pub report: DomainReport,
}

impl ControlReply {
    /// The line with its end.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("its keys are all text");
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::super::carry::CarryEnd;
    use super::*;

    #[test]
    fn requests_are_read_as_documented() {
        for (line, request) in [
            (
                r#"{"status":{"uri":"a:///","domain":"g1"}}"#,
                ControlRequest::Status {
                    uri: "a:///".to_owned(),
                    domain: Some("g1".to_owned()),
                },
            ),
            (
                r#"{"watch":{"uri":"a:///"}}"#,
                ControlRequest::Watch {
                    uri: "a:///".to_owned(),
                    domain: None,
                },
            ),
            (
                r#"{"lease":{"domain":"g1"}}"#,
                ControlRequest::Lease {
                    domain: "g1".to_owned(),
                },
            ),
            (
                r#"{"carried":{"figures":{"end":"cut-short","held":3,"carried":2,"lost":1,"latest-ms":5,"most-bytes":9}}}"#,
                ControlRequest::Carried {
                    figures: CarryFigures {
                        end: CarryEnd::CutShort,
                        held: 3,
                        carried: 2,
                        lost: 1,
                        pause_ms: None,
                        latest_ms: 5,
                        most_bytes: 9,
                    },
                },
            ),
        ] {
            assert_eq!(
                serde_json::from_str::<ControlRequest>(line).unwrap(),
                request
            );
        }
        for line in ["", "{}", r#"{"lease":{}}"#, r#"{"halt":{}}"#, "[]", "1"] {
            assert!(
                serde_json::from_str::<ControlRequest>(line).is_err(),
                "{line}"
            );
        }
        assert_eq!(ControlReply::Leased {}.to_line(), b"{\"leased\":{}}\n");
    }
}
