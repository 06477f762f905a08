//! The guest's lines, as the host reads them.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::event::EventMessage;
use crate::message::{Id, is_object};
use crate::reply::ErrorBody;

/// One line from guest to host, as the host reads it.
#[derive(Debug, Clone)]
pub enum FromGuest {
    /// A command went well.
    Return {
        /// What it returned.
        value: Box<RawValue>,
        /// The request's identity.
        id: Option<Id>,
        /// Keys of the request that the guest does not know and passed over.
        ignored: Vec<String>,
    },
    /// A command failed.
    Error {
        /// What happened.
        error: ErrorBody,
        /// The request's identity.
        id: Option<Id>,
    },
    /// Something happened.
    Event(EventMessage),
    /// Something happened that this version has no words for.
    UnknownEvent {
        /// The event's name.
        name: String,
    },
}

/// A line of the guest that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Neither a reply nor an event.
    #[error("the guest's line is neither a reply nor an event: {0}")]
    NotAReply(String),
    /// A reply with another content than the command's.
    #[error("the guest's reply to {command} is not what that command returns: {reason}")]
    WrongContent {
        /// The command.
        command: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Unknown keys are passed over: a newer guest may say more.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(rename = "return", borrow)]
    value: Option<&'a RawValue>,
    error: Option<ErrorBody>,
    event: Option<String>,
    id: Option<Id>,
    #[serde(default)]
    ignored: Vec<String>,
}

impl FromGuest {
    /// Reads a line without its end.
    ///
    /// # Errors
    /// If it is neither a reply nor an event.
    pub fn parse(line: &str) -> Result<Self, ReplyError> {
        if !is_object(line) {
            return Err(ReplyError::NotAReply("it must be an object".to_owned()));
        }
        let incoming: Incoming<'_> =
            serde_json::from_str(line).map_err(|e| ReplyError::NotAReply(e.to_string()))?;
        match incoming {
            Incoming {
                value: Some(value),
                error: None,
                event: None,
                id,
                ignored,
            } => Ok(Self::Return {
                value: value.to_owned(),
                id,
                ignored,
            }),
            Incoming {
                value: None,
                error: Some(error),
                event: None,
                id,
                ..
            } => Ok(Self::Error { error, id }),
            Incoming {
                value: None,
                error: None,
                event: Some(name),
                ..
            } => Ok(serde_json::from_str(line).map_or(Self::UnknownEvent { name }, Self::Event)),
            _ => Err(ReplyError::NotAReply(
                "it needs exactly one of `return`, `error` and `event`".to_owned(),
            )),
        }
    }
}

/// Reads what a command returned, such as [`crate::reply::StatusReport`] or
/// [`tandem_core::status::Answer`].
///
/// # Errors
/// If it is something else.
pub fn content<T: DeserializeOwned>(
    command: &'static str,
    value: &RawValue,
) -> Result<T, ReplyError> {
    serde_json::from_str(value.get()).map_err(|e| ReplyError::WrongContent {
        command,
        reason: e.to_string(),
    })
}
