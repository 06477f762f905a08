//! A guest's lines, as a host takes them: replies, events, and what of them gets to metrics, to clients of the
//! control socket and to people.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use tandem_core::status::Answer;
use tandem_host::control::{ControlReply, MAX_REPLY_BYTES};
use tandem_host::daemon::fuzzing::KnownDomains;
use tandem_host::hypervisor::{DomainFacts, DomainLook, DomainState};
use tandem_host::report::domain_text;
use tandem_host::xml::Document;
use tandem_wire::from_guest::{FromGuest, content};
use tandem_wire::reply::{Configured, Empty, GuestInfo, StatusReport};

use crate::open_metrics;
use crate::shown::is_printable;

/// A domain's name may be anything, and does not come from the guest.
const DOMAIN: &str = "g\"1\\";
const BOND: &str = "bond0";
const BONDS: &str = r#"<bonds xmlns="https://github.com/tandem-vf/tandem/xmlns/bonds/1"><bond name="bond0">
    <standby mac="52:54:00:00:00:01"/><vf mac="52:54:00:00:00:02"/></bond></bonds>"#;
/// Of one domain with one bond: each family once for the domain, or once for its bond and once for all others,
/// and those by cause six times each.
const MAX_SERIES: usize = 64;
/// Versions that a guest may have as labels in its life, with the one for all others.
const MAX_VERSIONS: usize = 9;
/// What is shown of one domain at most, in characters.
const MAX_SHOWN: usize = 512 * 1024;

pub(super) fn run(bytes: &[u8]) {
    let text = super::text(bytes);
    let known = KnownDomains::nothing();
    let bonds = Document::parse(BONDS).expect("they are bonds").bonds;
    known.show(&DomainLook {
        facts: DomainFacts {
            state: DomainState::Running,
            ..DomainFacts::absent(DOMAIN)
        },
        bonds: Ok(Some(bonds)),
        progress: None,
        claims: Vec::new(),
    });
    let mut bonds = BTreeSet::new();
    let mut versions = BTreeSet::new();
    for line in text.lines() {
        match FromGuest::parse(line) {
            Ok(FromGuest::Return { value, .. }) => {
                same::<GuestInfo>(value.get());
                same::<Answer>(value.get());
                same::<Configured>(value.get());
                same::<Empty>(value.get());
                same::<StatusReport>(value.get());
                let report: Result<StatusReport, _> = content("tandem-status", &value);
                if let Ok(report) = report {
                    known.guest(DOMAIN, report, value.get().len());
                    check(&known, &mut bonds, &mut versions);
                }
            }
            Ok(FromGuest::Event(event)) => {
                let line = event.to_line();
                let again = String::from_utf8(line).expect("it is text");
                match FromGuest::parse(&again) {
                    Ok(FromGuest::Event(same)) => assert_eq!(same, event),
                    other => panic!("{again} is {other:?}"),
                }
            }
            Ok(FromGuest::Error { error, .. }) => {
                let _ = (error.command_code(), error.configure_code());
            }
            Ok(FromGuest::UnknownEvent { .. }) | Err(_) => {}
        }
    }
    // However often it says something else.
    assert!(bonds.len() <= 2, "the guest has made series of {bonds:?}");
    assert!(versions.len() <= MAX_VERSIONS, "and of {versions:?}");
}

fn check(known: &KnownDomains, bonds: &mut BTreeSet<String>, versions: &mut BTreeSet<String>) {
    let metrics = known.metrics();
    let samples = open_metrics::read(&metrics);
    assert!(
        samples.len() <= MAX_SERIES,
        "{} series of one domain",
        samples.len()
    );
    for mut sample in samples {
        // What this host has carried is no domain's, and nobody's to change: nothing was.
        if sample.name.starts_with("tandem_carr") {
            assert!(sample.labels.keys().all(|label| *label == "end") && sample.value == 0.0);
            continue;
        }
        assert_eq!(sample.labels.remove("domain").as_deref(), Some(DOMAIN));
        let is_its_own = sample.labels.get("bond").is_some_and(|bond| bond == BOND);
        // However often the guest names it.
        assert!(
            !is_its_own || !sample.name.starts_with("tandem_bond_on_") || sample.value <= 1.0,
            "the bond counts for more than one: {sample:?}"
        );
        for (name, value) in sample.labels {
            match name {
                "bond" => {
                    bonds.insert(value);
                }
                "version" => {
                    let reads = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
                    assert!(value.len() <= 20 && value.chars().all(reads), "{value:?}");
                    versions.insert(value);
                }
                "cause" | "to" => assert!(
                    value
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
                ),
                other => panic!("{} has the label {other}", sample.name),
            }
        }
    }
    let line = known.line(DOMAIN).expect("it is known");
    assert!(
        line.len() <= MAX_REPLY_BYTES + 1,
        "{} bytes for a client",
        line.len()
    );
    let reply: ControlReply =
        serde_json::from_slice(&line).expect("clients read what serve writes");
    assert_eq!(reply.to_line(), line);
    let ControlReply::Domain(shown) = reply else {
        panic!("it is a domain");
    };
    is_printable(&domain_text(&shown.report, Some(shown.age_ms)), MAX_SHOWN);
}

/// What is read and written again is read as the same.
fn same<T: DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(text: &str) {
    if let Ok(read) = serde_json::from_str::<T>(text) {
        let again = serde_json::to_string(&read).expect("it is JSON");
        let reread: T =
            serde_json::from_str(&again).unwrap_or_else(|error| panic!("{again}: {error}"));
        assert_eq!(reread, read);
    }
}
