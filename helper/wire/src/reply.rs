//! What the guest answers.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tandem_core::status::{CommandError, CommandErrorCode, Status};
use tandem_core::types::{IfName, Time};

use crate::framing::{FrameError, SENTINEL, line_of};
use crate::message::{Call, CallError, Id, InfoArguments, RefusedRequest, ReplyTo};
use crate::protocol::{FEATURES, NoCommonProtocol, PROTOCOL, PROTOCOLS, Protocols, agree};

/// Reply to a command that went well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReturnLine<T> {
    /// What the command returns.
    #[serde(rename = "return")]
    pub value: T,
    /// The request's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// Keys of the request that this guest does not know and passed over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
}

/// Reply to a command that did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorLine {
    /// What happened.
    pub error: ErrorBody,
    /// The request's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
}

/// An error as QGA writes it, with a code for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{desc}")]
pub struct ErrorBody {
    /// QGA's error class.
    pub class: ErrorClass,
    /// What happened and what to do.
    pub desc: String,
    /// Tells causes apart: a command's or a configuration's error code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// QGA's error classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ErrorClass {
    /// There is no command of that name.
    CommandNotFound,
    /// Everything else, also classes of QGA that Tandem never sends.
    #[serde(other)]
    GenericError,
}

/// Returned by commands that have nothing to tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Empty {}

/// Returned by `guest-info`; QGA's keys and Tandem's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GuestInfo {
    /// Version of the program.
    pub version: String,
    /// Version of the messages that is spoken: what was agreed on, else the guest's lowest.
    #[serde(rename = "tandem-protocol")]
    pub tandem_protocol: u32,
    /// All versions of the messages that the guest speaks; where they are not said, only that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Protocols>,
    /// What this guest can do that an earlier one may not.
    #[serde(default)]
    pub features: Vec<String>,
    /// All commands.
    pub supported_commands: Vec<CommandInfo>,
}

/// One command in `guest-info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct CommandInfo {
    /// Its name.
    pub name: String,
    /// It can be used now.
    pub enabled: bool,
    /// It sends a reply when it went well; all of Tandem's do.
    pub success_response: bool,
}

/// Returned by `tandem-status`. `S` is [`Status`]; a guest that serialises it
/// once for all puts the finished text there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct StatusReport<S = Status> {
    /// Version of the messages that is spoken.
    pub tandem_protocol: u32,
    /// Version of the program.
    pub version: String,
    /// The guest's clock now, to which the moments in `status` relate.
    pub now: Time,
    /// Everything known.
    pub status: S,
}

/// Returned by `tandem-configure`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Configured {
    /// The bonds that are cared for from now on.
    pub bonds: Vec<IfName>,
    /// False if it was what the guest had already.
    pub changed: bool,
}

/// Why the guest does not take the host's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ConfigureError {
    /// For programs.
    pub code: ConfigureErrorCode,
    /// What happened and what to do.
    pub message: String,
}

/// Kinds of refusals of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ConfigureErrorCode {
    /// The guest's administrator does not allow it.
    NotAllowed,
    /// The guest's own files define the bonds.
    DefinedByFile,
    /// It contradicts itself.
    Invalid,
    /// It could not be kept.
    NotStored,
}

impl<T: Serialize> ReturnLine<T> {
    /// The answer to a request.
    pub fn new(value: T, to: ReplyTo) -> Self {
        let ReplyTo { id, ignored } = to;
        Self { value, id, ignored }
    }

    /// The line with its end.
    pub fn to_line(&self) -> Vec<u8> {
        line_of(self)
    }
}

impl ErrorLine {
    /// The line with its end.
    pub fn to_line(&self) -> Vec<u8> {
        line_of(self)
    }
}

/// The reply to `guest-sync-delimited`: 0xFF, then the line.
pub fn delimited_sync_line(sync: i64, to: ReplyTo) -> Vec<u8> {
    let mut bytes = Vec::from([SENTINEL]);
    bytes.extend(ReturnLine::new(sync, to).to_line());
    bytes
}

impl GuestInfo {
    /// What a guest of this version answers.
    pub fn new(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            tandem_protocol: PROTOCOL,
            protocols: Some(PROTOCOLS),
            features: FEATURES.map(str::to_owned).to_vec(),
            supported_commands: Call::NAMES
                .iter()
                .map(|name| CommandInfo {
                    name: (*name).to_owned(),
                    enabled: true,
                    success_response: true,
                })
                .collect(),
        }
    }
}

impl GuestInfo {
    /// What a guest of this version answers to that.
    ///
    /// # Errors
    /// If it shares no version of the messages with the host.
    pub fn answer(version: &str, asked: InfoArguments) -> Result<Self, ErrorBody> {
        let mut info = Self::new(version);
        if let Some(host) = asked.protocols {
            info.tandem_protocol = agree(PROTOCOLS, host)?;
        }
        Ok(info)
    }

    /// The highest version of the messages that both speak.
    ///
    /// # Errors
    /// If there is none.
    pub fn highest_common(&self, host: Protocols) -> Result<u32, NoCommonProtocol> {
        let only = Protocols {
            min: self.tandem_protocol,
            max: self.tandem_protocol,
        };
        agree(self.protocols.unwrap_or(only), host)
    }
}

impl ErrorBody {
    /// An error without a code.
    pub fn generic(desc: impl Into<String>) -> Self {
        Self {
            class: ErrorClass::GenericError,
            desc: desc.into(),
            code: None,
        }
    }

    /// The machine's code, if the guest named one that this version knows.
    pub fn command_code(&self) -> Option<CommandErrorCode> {
        code_from(self.code.as_deref()?)
    }

    /// The refusal's code, if the guest named one that this version knows.
    pub fn configure_code(&self) -> Option<ConfigureErrorCode> {
        code_from(self.code.as_deref()?)
    }
}

impl From<&CallError> for ErrorBody {
    fn from(error: &CallError) -> Self {
        let class = match error {
            CallError::UnknownCommand(_) => ErrorClass::CommandNotFound,
            CallError::NotARequest(_) | CallError::Arguments { .. } => ErrorClass::GenericError,
        };
        Self {
            class,
            desc: error.to_string(),
            code: None,
        }
    }
}

impl From<NoCommonProtocol> for ErrorBody {
    fn from(error: NoCommonProtocol) -> Self {
        Self {
            code: Some("no-common-protocol".to_owned()),
            ..Self::generic(error.to_string())
        }
    }
}

impl From<FrameError> for ErrorBody {
    fn from(error: FrameError) -> Self {
        Self::generic(error.to_string())
    }
}

impl From<CommandError> for ErrorBody {
    fn from(error: CommandError) -> Self {
        Self {
            class: ErrorClass::GenericError,
            desc: error.message,
            code: code_text(error.code),
        }
    }
}

impl From<ConfigureError> for ErrorBody {
    fn from(error: ConfigureError) -> Self {
        Self {
            class: ErrorClass::GenericError,
            desc: error.message,
            code: code_text(error.code),
        }
    }
}

impl From<RefusedRequest> for ErrorLine {
    fn from(refused: RefusedRequest) -> Self {
        Self {
            error: ErrorBody::from(&refused.error),
            id: refused.id,
        }
    }
}

fn code_text(code: impl Serialize) -> Option<String> {
    match serde_json::to_value(code) {
        Ok(serde_json::Value::String(text)) => Some(text),
        _ => None,
    }
}

fn code_from<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}
