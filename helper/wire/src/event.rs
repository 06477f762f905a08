//! What the guest tells subscribers.

use alloc::string::String;
use alloc::vec::Vec;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tandem_core::status::Event;

use crate::framing::line_of;

/// One event, as QMP writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventMessage {
    /// What happened.
    pub event: Pushed,
    /// When it was sent.
    pub timestamp: Timestamp,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// Something about a bond.
    Bond(Event),
    /// This connection was read too slowly: that many events before the next one are lost.
    EventsLost {
        /// How many.
        count: u64,
    },
}

/// Wall clock of the guest, as in QMP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Microseconds of that second.
    pub microseconds: u32,
}

pub(crate) const EVENTS_LOST: &str = "events-lost";

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct LostData {
    count: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    event: String,
    timestamp: Timestamp,
    data: Value,
}

impl EventMessage {
    /// The line with its end.
    pub fn to_line(&self) -> Vec<u8> {
        line_of(self)
    }
}

/// The core writes an event as `{NAME: DATA}`; QMP has name and data apart.
impl Serialize for EventMessage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (event, data) = match &self.event {
            Pushed::EventsLost { count } => (
                String::from(EVENTS_LOST),
                serde_json::to_value(LostData { count: *count }).map_err(S::Error::custom)?,
            ),
            Pushed::Bond(event) => {
                let Ok(Value::Object(map)) = serde_json::to_value(event) else {
                    return Err(S::Error::custom("an event is not an object"));
                };
                map.into_iter()
                    .next()
                    .ok_or_else(|| S::Error::custom("an event has no name"))?
            }
        };
        let timestamp = self.timestamp;
        Line {
            event,
            timestamp,
            data,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EventMessage {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let line = Line::deserialize(deserializer)?;
        let event = if line.event == EVENTS_LOST {
            let LostData { count } = serde_json::from_value(line.data).map_err(D::Error::custom)?;
            Pushed::EventsLost { count }
        } else {
            let tagged = Map::from_iter([(line.event, line.data)]);
            Pushed::Bond(serde_json::from_value(Value::Object(tagged)).map_err(D::Error::custom)?)
        };
        Ok(Self {
            event,
            timestamp: line.timestamp,
        })
    }
}
