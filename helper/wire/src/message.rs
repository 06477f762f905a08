//! What the host asks of the guest.

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tandem_core::Policy;
use tandem_core::input::Request;
use tandem_core::policy::BondPolicy;

use crate::framing::line_of;
use crate::protocol::Protocols;

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

/// A request as the guest reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What is asked.
    pub call: Call,
    /// What the answer needs.
    pub reply_to: ReplyTo,
}

/// What the answer to a request says besides its result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplyTo {
    /// The request's identity.
    pub id: Option<Id>,
    /// Keys of the request that were passed over, as paths; the first [`ReplyTo::MAX_IGNORED`].
    pub ignored: Vec<String>,
}

impl ReplyTo {
    /// Keys that are named at most.
    pub const MAX_IGNORED: usize = 16;

    fn note(&mut self, path: &dyn core::fmt::Display) {
        if self.ignored.len() < Self::MAX_IGNORED {
            self.ignored.push(shortened(&path.to_string()));
        }
    }
}

/// Every command with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "execute", content = "arguments", rename_all = "kebab-case")]
pub enum Call {
    /// Returns the number it is given: requests and replies are in step again, after a migration for example.
    GuestSync(SyncArguments),
    /// The same, with byte 0xFF before the reply.
    GuestSyncDelimited(SyncArguments),
    /// Liveness: returns an empty object.
    GuestPing,
    /// Versions, features and supported commands. A host that names its versions of the messages agrees
    /// with the guest on the highest that both speak; until then it is the guest's lowest.
    GuestInfo(InfoArguments),
    /// Returns everything known about the bonds.
    TandemStatus,
    /// Gives the guest its bonds, where its own files define none.
    TandemConfigure(#[serde(serialize_with = "without_defaults")] Policy),
    /// Sends events on this connection from now on.
    TandemSubscribe,
    /// Stops sending events.
    TandemUnsubscribe,
    /// Asks the machine for something.
    #[serde(untagged)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    Command(#[serde(serialize_with = "taken_apart")] Request),
}

/// Arguments of `guest-sync` and `guest-sync-delimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SyncArguments {
    /// Any number; choose one that was not used before.
    pub id: i64,
}

/// Arguments of `guest-info`. They may be left out, and a newer host may say more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct InfoArguments {
    /// Versions of the messages that the host speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Protocols>,
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
    /// If the line is no request, or one that is not known. Nothing is guessed: unknown arguments are
    /// errors too, but for keys of a policy that say how something shall be and not which device is meant.
    pub fn parse(line: &str) -> Result<Received, RefusedRequest> {
        let not_a_request = |reason: String| RefusedRequest {
            error: CallError::NotARequest(reason),
            id: None,
        };
        if !is_object(line) {
            return Err(not_a_request("it must be an object".to_string()));
        }
        let mut reply_to = ReplyTo::default();
        let envelope: Envelope<'_> = read_noting(line, |path| reply_to.note(path))
            .map_err(|e| not_a_request(e.to_string()))?;
        reply_to.id = envelope.id;
        match Call::read(&envelope.execute, envelope.arguments, &mut reply_to) {
            Ok(call) => Ok(Received { call, reply_to }),
            Err(error) => Err(RefusedRequest {
                error,
                id: reply_to.id,
            }),
        }
    }

    /// The line with its end.
    pub fn to_line(&self) -> Vec<u8> {
        line_of(self)
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
            Self::GuestInfo(_) => "guest-info",
            Self::TandemStatus => "tandem-status",
            Self::TandemConfigure(_) => "tandem-configure",
            Self::TandemSubscribe => "tandem-subscribe",
            Self::TandemUnsubscribe => "tandem-unsubscribe",
            Self::Command(request) => command_name(request),
        }
    }

    fn read(
        name: &str,
        arguments: Option<&RawValue>,
        reply_to: &mut ReplyTo,
    ) -> Result<Self, CallError> {
        let arguments = Arguments { name, arguments };
        Ok(match name {
            "guest-sync" => Self::GuestSync(arguments.read()?),
            "guest-sync-delimited" => Self::GuestSyncDelimited(arguments.read()?),
            "guest-ping" => arguments.none(Self::GuestPing)?,
            "guest-info" => Self::GuestInfo(arguments.noting(reply_to)?),
            "tandem-status" => arguments.none(Self::TandemStatus)?,
            "tandem-configure" => Self::TandemConfigure(arguments.with_bonds()?.noting(reply_to)?),
            "tandem-subscribe" => arguments.none(Self::TandemSubscribe)?,
            "tandem-unsubscribe" => arguments.none(Self::TandemUnsubscribe)?,
            "tandem-prepare-unplug"
            | "tandem-resume"
            | "tandem-announce"
            | "tandem-failover"
            | "tandem-failback" => Self::Command(arguments.put_together()?),
            _ => return Err(CallError::UnknownCommand(shortened(name))),
        })
    }
}

/// Before the core's name of a request.
pub(crate) const COMMAND_PREFIX: &str = "tandem-";

fn command_name(request: &Request) -> &'static str {
    match request {
        Request::PrepareUnplug { .. } => "tandem-prepare-unplug",
        Request::Resume { .. } => "tandem-resume",
        Request::Announce { .. } => "tandem-announce",
        Request::Failover { .. } => "tandem-failover",
        Request::Failback { .. } => "tandem-failback",
    }
}

/// The core writes a request as `{NAME: ARGUMENTS}`; QGA has name and arguments apart.
fn taken_apart<S: Serializer>(request: &Request, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Parts {
        execute: &'static str,
        arguments: Map<String, Value>,
    }

    let named = serde_json::to_value(request).map_err(S::Error::custom)?;
    let Some(Value::Object(arguments)) = named.as_object().and_then(|map| map.values().next())
    else {
        return Err(S::Error::custom("a request has no arguments"));
    };
    // What is not named is left out.
    let given = arguments.iter().filter(|(_, value)| !value.is_null());
    Parts {
        execute: command_name(request),
        arguments: given
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    }
    .serialize(serializer)
}

/// The core's policy without what an older guest takes for granted: keys that have their default. So a key
/// that such a guest does not know is no matter as long as nobody uses it.
fn without_defaults<S: Serializer>(policy: &Policy, serializer: S) -> Result<S::Ok, S::Error> {
    let bonds = policy.bonds.iter().map(|bond| {
        let BondPolicy {
            name, standby, vfs, ..
        } = bond;
        let plain = BondPolicy::new(name.clone(), standby.clone(), vfs.clone());
        let mut written = serde_json::to_value(bond)?;
        let plain = serde_json::to_value(plain)?;
        drop_equal(&mut written, &plain);
        for key in ["name", "standby", "vfs"] {
            written[key] = plain[key].clone();
        }
        Ok(written)
    });
    let bonds: Result<Vec<Value>, serde_json::Error> = bonds.collect();
    Map::from_iter([("bonds".to_owned(), bonds.map_err(S::Error::custom)?.into())])
        .serialize(serializer)
}

fn drop_equal(value: &mut Value, default: &Value) {
    let (Some(map), Some(defaults)) = (value.as_object_mut(), default.as_object()) else {
        return;
    };
    map.retain(|key, value| defaults.get(key) != Some(value));
    for (key, value) in map {
        if let Some(default) = defaults.get(key.as_str()) {
            drop_equal(value, default);
        }
    }
}

/// Reads JSON, and tells the path of each key that was passed over.
fn read_noting<'de, T: Deserialize<'de>>(
    text: &'de str,
    mut note: impl FnMut(&serde_ignored::Path<'_>),
) -> serde_json::Result<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_ignored::deserialize(&mut json, |path| note(&path))?;
    json.end()?;
    Ok(value)
}

struct Arguments<'a> {
    name: &'a str,
    arguments: Option<&'a RawValue>,
}

impl Arguments<'_> {
    /// Without bonds, this command takes all there are away: that has to be said, and not by a wrong key.
    fn with_bonds(&self) -> Result<&Self, CallError> {
        #[derive(Deserialize)]
        struct Bonds {
            #[serde(rename = "bonds")]
            _given: IgnoredAny,
        }

        self.read::<Bonds>().map(|_| self)
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_str(self.object()?).map_err(|e| self.error(&e.to_string()))
    }

    /// As [`Self::read`], where keys may be passed over. An address or route of which a part is not
    /// understood would be another one.
    fn noting<T: DeserializeOwned>(&self, reply_to: &mut ReplyTo) -> Result<T, CallError> {
        let mut unknown = None;
        let value = read_noting(self.object()?, |path| {
            let path = format!("arguments.{path}");
            if path.contains(".addressing.") {
                unknown.get_or_insert(path);
            } else {
                reply_to.note(&path);
            }
        });
        match (value, unknown) {
            (Ok(value), None) => Ok(value),
            (Ok(_), Some(path)) => Err(self.error(&format!("unknown key `{path}`"))),
            (Err(error), _) => Err(self.error(&error.to_string())),
        }
    }

    /// The machine's request, as the core reads it; see [`taken_apart`].
    fn put_together(&self) -> Result<Request, CallError> {
        let name = self.name.strip_prefix(COMMAND_PREFIX).unwrap_or(self.name);
        let text = format!("{{\"{name}\":{}}}", self.object()?);
        serde_json::from_str(&text).map_err(|e| self.error(&e.to_string()))
    }

    fn object(&self) -> Result<&str, CallError> {
        let text = self.arguments.map_or("{}", RawValue::get);
        if is_object(text) {
            Ok(text)
        } else {
            Err(self.error("they must be an object"))
        }
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
