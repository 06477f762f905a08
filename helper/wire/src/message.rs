//! What the host asks of the guest.

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tandem_core::Policy;
use tandem_core::input::Request;
use tandem_core::types::{IfName, Mac};

/// One line from host to guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RequestLine {
    /// What is asked.
    #[serde(flatten)]
    pub call: Call,
    /// Comes back with the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
}

/// Every command with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "execute", content = "arguments", rename_all = "kebab-case")]
pub enum Call {
    /// Returns its number: proves that requests and replies are in step.
    GuestSync(SyncArguments),
    /// The same; the reply is preceded by byte 0xFF.
    GuestSyncDelimited(SyncArguments),
    /// Returns an empty object.
    GuestPing,
    /// Returns versions and the list of commands.
    GuestInfo,
    /// Returns everything known about the bonds.
    TandemStatus,
    /// Hands the guest the bonds it shall have.
    TandemConfigure(Policy),
    /// Moves the traffic to the standby and releases the VF; returns once it may be unplugged.
    TandemPrepareUnplug(UnplugArguments),
    /// Takes a VF again: the unplug will not happen, or another VF has come.
    TandemResume(BondArguments),
    /// Tells the network again where the bond is.
    TandemAnnounce(BondArguments),
    /// Moves the traffic to the standby and keeps it there.
    TandemFailover(BondArguments),
    /// Lets the VF have the traffic again.
    TandemFailback(BondArguments),
    /// From now on, events are sent on this connection.
    TandemSubscribe,
    /// No more events.
    TandemUnsubscribe,
}

/// Arguments of `guest-sync` and `guest-sync-delimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SyncArguments {
    /// Any number; choose one that was not used before.
    pub id: i64,
}

/// Arguments of commands that concern a bond.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BondArguments {
    /// Which bond; without it, the only one there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<IfName>,
}

/// Arguments of `tandem-prepare-unplug`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UnplugArguments {
    /// Which bond; without it, the only one there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<IfName>,
    /// Which VF, by permanent MAC; without it, the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vf: Option<Mac>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

/// Why a request can't be carried out. The text of each is the reply's `desc`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The line is no request.
    #[error("the line is not a request: {0}")]
    NotARequest(String),
    /// QGA's words, with QGA's error class.
    #[error("The command {0} has not been found")]
    UnknownCommand(String),
    /// An argument is unknown, missing or of the wrong kind; the reason names it.
    #[error("arguments of {command}: {reason}")]
    Arguments {
        /// The command's name.
        command: String,
        /// What is wrong.
        reason: String,
    },
}

/// A request that could not be read, with the identity to answer to, if it had one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRequest {
    /// Why.
    pub error: CallError,
    /// The request's identity.
    pub id: Option<Id>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    execute: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(default)]
    id: Option<Id>,
}

impl RequestLine {
    /// Reads a line without its end.
    ///
    /// # Errors
    /// If the line is no request, or one that is not known. Nothing is guessed:
    /// unknown keys and arguments are errors too.
    pub fn parse(line: &str) -> Result<Self, RefusedRequest> {
        let not_a_request = |reason: String| RefusedRequest {
            error: CallError::NotARequest(reason),
            id: None,
        };
        if !is_object(line) {
            return Err(not_a_request("it must be an object".to_string()));
        }
        let envelope: Envelope<'_> =
            serde_json::from_str(line).map_err(|e| not_a_request(e.to_string()))?;
        match Call::read(&envelope.execute, envelope.arguments) {
            Ok(call) => Ok(Self {
                call,
                id: envelope.id,
            }),
            Err(error) => Err(RefusedRequest {
                error,
                id: envelope.id,
            }),
        }
    }

    /// The line with its end.
    pub fn to_line(&self) -> Vec<u8> {
        crate::reply::line_of(self)
    }
}

impl Call {
    /// Names of all commands, in the order of `guest-info`.
    pub const NAMES: [&'static str; 13] = [
        "guest-sync",
        "guest-sync-delimited",
        "guest-ping",
        "guest-info",
        "tandem-status",
        "tandem-configure",
        "tandem-prepare-unplug",
        "tandem-resume",
        "tandem-announce",
        "tandem-failover",
        "tandem-failback",
        "tandem-subscribe",
        "tandem-unsubscribe",
    ];

    /// The command's name, one of [`Call::NAMES`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::GuestSync(_) => "guest-sync",
            Self::GuestSyncDelimited(_) => "guest-sync-delimited",
            Self::GuestPing => "guest-ping",
            Self::GuestInfo => "guest-info",
            Self::TandemStatus => "tandem-status",
            Self::TandemConfigure(_) => "tandem-configure",
            Self::TandemPrepareUnplug(_) => "tandem-prepare-unplug",
            Self::TandemResume(_) => "tandem-resume",
            Self::TandemAnnounce(_) => "tandem-announce",
            Self::TandemFailover(_) => "tandem-failover",
            Self::TandemFailback(_) => "tandem-failback",
            Self::TandemSubscribe => "tandem-subscribe",
            Self::TandemUnsubscribe => "tandem-unsubscribe",
        }
    }

    fn read(name: &str, arguments: Option<&RawValue>) -> Result<Self, CallError> {
        let arguments = Arguments { name, arguments };
        Ok(match name {
            "guest-sync" => Self::GuestSync(arguments.read()?),
            "guest-sync-delimited" => Self::GuestSyncDelimited(arguments.read()?),
            "guest-ping" => arguments.none(Self::GuestPing)?,
            "guest-info" => arguments.none(Self::GuestInfo)?,
            "tandem-status" => arguments.none(Self::TandemStatus)?,
            "tandem-configure" => Self::TandemConfigure(arguments.given()?.read()?),
            "tandem-prepare-unplug" => Self::TandemPrepareUnplug(arguments.read()?),
            "tandem-resume" => Self::TandemResume(arguments.read()?),
            "tandem-announce" => Self::TandemAnnounce(arguments.read()?),
            "tandem-failover" => Self::TandemFailover(arguments.read()?),
            "tandem-failback" => Self::TandemFailback(arguments.read()?),
            "tandem-subscribe" => arguments.none(Self::TandemSubscribe)?,
            "tandem-unsubscribe" => arguments.none(Self::TandemUnsubscribe)?,
            _ => return Err(CallError::UnknownCommand(shortened(name))),
        })
    }
}

impl From<Request> for Call {
    fn from(request: Request) -> Self {
        match request {
            Request::Failover { bond } => Self::TandemFailover(BondArguments { bond }),
            Request::Failback { bond } => Self::TandemFailback(BondArguments { bond }),
            Request::PrepareUnplug { bond, vf } => {
                Self::TandemPrepareUnplug(UnplugArguments { bond, vf })
            }
            Request::Resume { bond } => Self::TandemResume(BondArguments { bond }),
            Request::Announce { bond } => Self::TandemAnnounce(BondArguments { bond }),
        }
    }
}

struct Arguments<'a> {
    name: &'a str,
    arguments: Option<&'a RawValue>,
}

impl Arguments<'_> {
    /// For a command that would undo much if its arguments were forgotten.
    fn given(&self) -> Result<&Self, CallError> {
        match self.arguments {
            Some(_) => Ok(self),
            None => Err(self.error("they are missing")),
        }
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        let text = self.arguments.map_or("{}", RawValue::get);
        if !is_object(text) {
            return Err(self.error("they must be an object"));
        }
        serde_json::from_str(text).map_err(|e| self.error(&e.to_string()))
    }

    fn error(&self, reason: &str) -> CallError {
        CallError::Arguments {
            command: self.name.to_string(),
            reason: shortened(reason),
        }
    }

    fn none(&self, call: Call) -> Result<Call, CallError> {
        self.read::<NoArguments>().map(|_| call)
    }
}

/// A request's identity: any JSON value, at most [`Id::MAX_BYTES`] long as text.
/// Kept as it was written, so that a number comes back with all its digits.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Id(Box<RawValue>);

impl Id {
    /// Longest identity, in bytes of JSON text.
    pub const MAX_BYTES: usize = 256;

    /// The identity as JSON text.
    pub fn as_json(&self) -> &str {
        self.0.get()
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        let text = number.to_string();
        Self(RawValue::from_string(text).expect("a number is JSON"))
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for Id {}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        if raw.get().len() > Self::MAX_BYTES {
            return Err(serde::de::Error::custom(format!(
                "`id` is longer than {} bytes",
                Self::MAX_BYTES
            )));
        }
        Ok(Self(raw.to_owned()))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Any JSON value of at most 256 bytes as text; comes back with the reply.",
        })
    }
}

/// `serde_json` would also take a list for a structure, value by value.
pub(crate) fn is_object(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{')
}

/// Keeps replies short whatever was sent.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}
