//! A domain as its hypervisor and its guest describe it.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use tandem_core::status::{BondStatus, Traffic};
use tandem_core::words;
use tandem_wire::reply::StatusReport;

use crate::evacuate::{Progress, Stage};
use crate::hypervisor::{DomainLook, DomainState, Nic};
use crate::words::{printable, quoted};

/// What is known about a domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DomainReport {
    /// Its name.
    pub domain: String,
    /// Its UUID.
    pub uuid: String,
    /// Whether it runs.
    pub state: DomainState,
    /// Why, in the hypervisor's words.
    pub reason: String,
    /// Its bonds.
    pub bonds: Vec<BondReport>,
    /// What is wrong with the bonds in its XML.
    pub bonds_error: Option<String>,
    /// The evacuation that is recorded with it.
    pub evacuation: Option<EvacuationReport>,
    /// How its guest is known.
    pub channel: ChannelUse,
    /// What its guest says; nothing vouches for it.
    pub guest: Option<StatusReport>,
    /// Why its guest says nothing, or nothing new.
    pub guest_error: Option<String>,
    /// Why its guest does not have the bonds of its XML, where it should.
    pub configure_error: Option<String>,
}

/// A bond of the domain's XML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BondReport {
    /// Its name.
    pub name: String,
    /// The device that is its standby, as the hypervisor shows it.
    pub standby: Option<String>,
    /// The device that is its VF.
    pub vf: Option<String>,
}

/// How a guest is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelUse {
    /// Nobody is connected.
    None,
    /// It was asked once.
    Asked,
    /// It tells each change as it happens.
    Subscribed,
    /// Another tool has the channel; what the guest said before is kept.
    Leased,
}

/// An evacuation that has not ended, or ended without a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EvacuationReport {
    /// Names it.
    pub evacuation: String,
    /// What may have been begun.
    pub stage: Stage,
    /// Who drives it, in words.
    pub driven_by: String,
    /// The domain runs here without a device that it should have.
    pub degraded: bool,
    /// How many of those are of no bond, and were let go.
    #[serde(default)]
    pub lacking: u8,
    /// Attempts of `serve` to plug in the VF.
    pub attempts: u32,
    /// How the last of them ended, or why there is none.
    pub last: Option<String>,
}

impl DomainReport {
    /// What a look shows; nothing of the guest yet.
    pub fn of(look: &DomainLook) -> Self {
        let facts = &look.facts;
        let (bonds, bonds_error) = match &look.bonds {
            Ok(bonds) => (bonds.as_ref(), None),
            Err(reason) => (None, Some(reason.clone())),
        };
        let bonds = bonds.iter().flat_map(|bonds| &bonds.bonds);
        let bonds = bonds.map(|bond| BondReport {
            name: bond.name.to_string(),
            standby: bond.standby_device(&facts.nics).map(device),
            vf: bond.vf(&facts.nics).map(device),
        });
        Self {
            domain: facts.name.clone(),
            uuid: facts.uuid.clone(),
            state: facts.state,
            reason: facts.reason.clone(),
            bonds: bonds.collect(),
            bonds_error,
            evacuation: look
                .progress
                .as_deref()
                .map(|record| EvacuationReport::of(record, &facts.name)),
            channel: ChannelUse::None,
            guest: None,
            guest_error: None,
            configure_error: None,
        }
    }
}

impl EvacuationReport {
    fn of(record: &str, domain: &str) -> Self {
        match Progress::parse_for(record, domain) {
            Ok(record) => Self {
                driven_by: record.owner_in_words(),
                degraded: record.is_degraded(),
                lacking: record.lacking,
                attempts: 0,
                last: (record.is_degraded() && !record.lacks_only_plug())
                    .then(|| format!("`tandem-host recover {}` puts it back", quoted(domain))),
                evacuation: record.evacuation,
                stage: record.stage,
            },
            Err(error) => Self {
                evacuation: String::new(),
                stage: Stage::Claimed,
                driven_by: "it can't be told".to_owned(),
                degraded: false,
                lacking: 0,
                attempts: 0,
                last: Some(error.to_string()),
            },
        }
    }
}

/// A device as people name it: alias, MAC, function of the host.
pub(crate) fn device(nic: &Nic) -> String {
    let parts = [
        Some(nic.alias.clone()).filter(|alias| !alias.is_empty()),
        nic.mac.map(|mac| mac.to_string()),
        nic.pci_source
            .map(|function| format!("host function {function}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return "a device without name".to_owned();
    }
    printable(&parts.join(", "))
}

/// For people. `age_ms` is how old the guest's word is, where that matters.
pub fn domain_text(report: &DomainReport, age_ms: Option<u64>) -> String {
    let mut text = format!("{}: {}", printable(&report.domain), word(&report.state));
    if !report.reason.is_empty() {
        text.push_str(&format!(" ({})", printable(&report.reason)));
    }
    text.push('\n');
    let mut line = |args: std::fmt::Arguments<'_>| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {args}");
    };
    if let Some(error) = &report.bonds_error {
        line(format_args!("its XML: {}", printable(error)));
    }
    for bond in &report.bonds {
        let shown = |device: &Option<String>| device.clone().unwrap_or("not there now".to_owned());
        line(format_args!(
            "{}: standby {}; VF {}",
            printable(&bond.name),
            shown(&bond.standby),
            shown(&bond.vf)
        ));
    }
    if let Some(evacuation) = &report.evacuation {
        line(format_args!("evacuation: {}", evacuation_text(evacuation)));
    }
    if let Some(error) = &report.configure_error {
        line(format_args!(
            "not configured as its XML says: {}",
            printable(error)
        ));
    }
    if let Some(error) = &report.guest_error {
        line(format_args!("guest: {}", printable(error)));
    }
    if let Some(freshness) = freshness(report, age_ms) {
        line(format_args!("guest: {freshness}"));
    }
    let may = |guest: &StatusReport| words::host_may(guest.status.host_may);
    if let Some(text) = report.guest.as_ref().and_then(may) {
        line(format_args!("guest: {text}"));
    }
    let bonds = report.guest.iter().flat_map(|guest| &guest.status.bonds);
    for bond in bonds {
        line(format_args!("guest: {}", guest_line(bond)));
        for problem in &bond.problems {
            line(format_args!(
                "guest: {}: {}; {}",
                word(&problem.code),
                printable(&problem.message),
                printable(&problem.remedy)
            ));
        }
    }
    text
}

fn evacuation_text(evacuation: &EvacuationReport) -> String {
    let state = if evacuation.degraded {
        match evacuation.lacking {
            0 => "it runs without a device that it should have".to_owned(),
            1 => "it runs without a device of no bond that was let go".to_owned(),
            more => format!("it runs without {more} devices of no bond that were let go"),
        }
    } else {
        "not ended".to_owned()
    };
    let mut text = format!(
        "{state} (stage {}, driven by {})",
        word(&evacuation.stage),
        printable(&evacuation.driven_by)
    );
    if evacuation.attempts > 0 {
        text.push_str(&format!(", {} attempts of serve", evacuation.attempts));
    }
    if let Some(last) = &evacuation.last {
        text.push_str(&format!(": {}", printable(last)));
    }
    text
}

fn freshness(report: &DomainReport, age_ms: Option<u64>) -> Option<String> {
    let age_s = age_ms? / 1000;
    report.guest.as_ref()?;
    Some(match report.channel {
        ChannelUse::Subscribed => format!("subscribed; its last word is {age_s} s old"),
        _ => format!("as it was {age_s} s ago"),
    })
}

fn guest_line(bond: &BondStatus) -> String {
    let traffic = match bond.traffic {
        Traffic::None => "nobody carries its traffic",
        Traffic::Vf => "the VF carries its traffic",
        Traffic::Standby => "the standby carries its traffic",
        Traffic::Other => "a port that is neither VF nor standby carries its traffic",
        Traffic::Unknown => "only its newer version knows who carries its traffic",
    };
    format!(
        "{} is {}, {traffic}: {}",
        printable(bond.name.as_str()),
        word(&bond.state),
        printable(&bond.reason)
    )
}

/// A variant's name, as JSON has it.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => "unknown".to_owned(),
    }
}
