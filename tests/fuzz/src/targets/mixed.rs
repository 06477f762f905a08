//! Messages of one version through the types of another (`docs/trust.md`, "When versions mix"): a line of guest,
//! host or record as it is, and as a newer version would say it, with a key more in each object; a guest's also
//! with words that nobody knows yet.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tandem_core::status::Answer;
use tandem_host::evacuate::{Progress, Record};
use tandem_wire::from_guest::FromGuest;
use tandem_wire::message::{Call, RequestLine};
use tandem_wire::reply::{Configured, GuestInfo, StatusReport};

/// A key that no version knows.
const NEW: &str = "zz-of-tomorrow";
/// A word that no version knows.
const NEW_WORD: &str = "zz-word";
/// Keys whose words a newer guest may have more of.
const WORDS: [&str; 12] = [
    "policy",
    "state",
    "traffic",
    "held",
    "unproved",
    "code",
    "from",
    "to",
    "cause",
    "warned-by",
    "source",
    "health",
];
const DOMAIN: &str = "g1";

pub(super) fn run(bytes: &[u8]) {
    let text = super::text(bytes);
    for line in text.lines() {
        // The frozen answers have the command in front.
        let line = line.find('{').map_or(line, |at| &line[at..]);
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            let _ = (FromGuest::parse(line), RequestLine::parse(line));
            continue;
        };
        // A key that is there twice is another matter.
        let line = value.to_string();
        let newer = newer(&value).to_string();
        guest_to_host(&line, &newer);
        words_to_host(&line, &with_new_words(&value).to_string());
        host_to_guest(&line, &newer);
        records(&line, &newer);
    }
}

/// The same with a key more in each object, but for those that are an enumeration's name around its content.
fn newer(value: &Value) -> Value {
    match value {
        Value::Object(map) if map.len() == 1 && map.values().all(Value::is_object) => {
            let known = map.iter().map(|(key, value)| (key.clone(), newer(value)));
            Value::Object(known.collect())
        }
        Value::Object(map) => {
            let known = map.iter().map(|(key, value)| (key.clone(), newer(value)));
            let new = [(NEW.to_owned(), Value::from(1))];
            Value::Object(known.chain(new).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(newer).collect(),
        other => other.clone(),
    }
}

/// An older host understands a newer guest as if it said no more.
fn guest_to_host(line: &str, newer: &str) {
    match (FromGuest::parse(line), FromGuest::parse(newer)) {
        (Ok(FromGuest::Event(event)), Ok(FromGuest::Event(same))) => assert_eq!(event, same),
        (
            Ok(FromGuest::Error { error, id }),
            Ok(FromGuest::Error {
                error: same,
                id: same_id,
            }),
        ) => {
            // Whatever the identity is, it comes back as it was sent.
            assert!(error == same && (id == same_id || newer.contains("\"id\":{")));
        }
        (Ok(FromGuest::Return { value, .. }), Ok(FromGuest::Return { value: same, .. })) => {
            let (value, same) = (value.get(), same.get());
            alike::<StatusReport>(value, same);
            alike::<GuestInfo>(value, same);
            alike::<Answer>(value, same);
            alike::<Configured>(value, same);
        }
        (Ok(FromGuest::UnknownEvent { .. }), Ok(FromGuest::UnknownEvent { .. })) => {}
        (Err(_), _) => {}
        (Ok(known), new) => panic!("{known:?} becomes {new:?}"),
    }
}

/// The same with another word for each that stands for a state, a cause or a kind.
fn with_new_words(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let said = |(key, value): (&String, &Value)| {
                let is_word = WORDS.contains(&key.as_str()) && value.is_string();
                let value = if is_word {
                    NEW_WORD.into()
                } else {
                    with_new_words(value)
                };
                (key.clone(), value)
            };
            Value::Object(map.iter().map(said).collect())
        }
        Value::Array(items) => items.iter().map(with_new_words).collect(),
        other => other.clone(),
    }
}

/// An older host reads what it has a word for, and takes the rest for unknown.
fn words_to_host(line: &str, newer: &str) {
    match (FromGuest::parse(line), FromGuest::parse(newer)) {
        (Ok(FromGuest::Return { value, .. }), Ok(FromGuest::Return { value: new, .. })) => {
            readable::<StatusReport>(value.get(), new.get());
            readable::<GuestInfo>(value.get(), new.get());
            readable::<Answer>(value.get(), new.get());
            readable::<Configured>(value.get(), new.get());
        }
        (Ok(FromGuest::Event(_)), Ok(FromGuest::Event(_)))
        | (Ok(FromGuest::Error { .. }), Ok(FromGuest::Error { .. }))
        | (Ok(FromGuest::UnknownEvent { .. }), Ok(FromGuest::UnknownEvent { .. }))
        | (Err(_), _) => {}
        (Ok(known), new) => panic!("{known:?} becomes {new:?}: {newer}"),
    }
}

fn readable<T: DeserializeOwned>(line: &str, newer: &str) {
    if serde_json::from_str::<T>(line).is_ok()
        && let Err(error) = serde_json::from_str::<T>(newer)
    {
        panic!("{error}: {newer}");
    }
}

fn alike<T: DeserializeOwned + PartialEq + std::fmt::Debug>(line: &str, newer: &str) {
    if let Ok(known) = serde_json::from_str::<T>(line) {
        match serde_json::from_str::<T>(newer) {
            Ok(same) => assert_eq!(same, known),
            Err(error) => panic!("{error}: {newer}"),
        }
    }
}

/// An older guest does what a newer host says, and tells what it passed over; or refuses.
fn host_to_guest(line: &str, newer: &str) {
    let (Ok(known), new) = (RequestLine::parse(line), RequestLine::parse(newer)) else {
        return;
    };
    let written = RequestLine {
        call: known.call.clone(),
        id: known.reply_to.id.clone(),
    };
    let written = String::from_utf8(written.to_line()).expect("it is text");
    let again = RequestLine::parse(written.trim_end())
        .unwrap_or_else(|error| panic!("{written}: {error:?}"));
    let configures = matches!(known.call, Call::TandemConfigure(_));
    assert!(
        again.call == known.call || configures && same_bonds(&again.call, &known.call),
        "{written}"
    );
    if let Ok(new) = new {
        assert_eq!(
            new.call, known.call,
            "{newer} is something else to an older guest"
        );
        assert!(
            new.reply_to.ignored.iter().any(|path| path.contains(NEW)),
            "{newer}: {:?}",
            new.reply_to
        );
    }
}

/// A host does not write where its policy is from.
fn same_bonds(one: &Call, other: &Call) -> bool {
    match (one, other) {
        (Call::TandemConfigure(one), Call::TandemConfigure(other)) => one.bonds == other.bonds,
        _ => false,
    }
}

/// Nobody goes on with a record that says more than is known.
fn records(line: &str, newer: &str) {
    if let Ok(progress) = Progress::parse_for(line, DOMAIN) {
        assert_eq!(
            Progress::parse_for(&progress.to_text(), DOMAIN),
            Ok(progress)
        );
        assert!(Progress::parse_for(newer, DOMAIN).is_err());
    }
    if Record::parse_for(line, DOMAIN).is_ok() {
        assert!(Record::parse_for(newer, DOMAIN).is_err());
    }
}
