//! Ways in for tests/fuzz to what reads virsh's words. Built with `--cfg fuzzing` only.

use super::{channel, read, refusal};
use crate::hypervisor::{AgentChannel, DomainEvent, HostError, JobFacts};
use crate::xml::domain::DomainXml;

/// What was read of a text that virsh printed.
#[derive(Debug)]
pub struct Printed {
    /// The reason of `domstate`.
    pub reason: Option<String>,
    /// Names of `list` with UUIDs, and with numbers.
    pub names: [Vec<String>; 2],
    /// Figures of `domjobinfo`.
    pub job: Option<JobFacts>,
    /// Each line's event.
    pub events: Vec<DomainEvent>,
    /// The same, of a line that QEMU's monitor wrote.
    pub monitor_events: Vec<DomainEvent>,
    /// What each command's failure means.
    pub refusals: Vec<HostError>,
}

/// Commands whose failures are told apart.
const COMMANDS: [&str; 5] = [
    "migrate",
    "detach-device",
    "attach-device",
    "domjobabort",
    "dumpxml",
];

/// Takes the text for the output of each command, and for virsh's errors.
pub fn printed(text: &str, domain: &str) -> Printed {
    let by_uuid = read::uuids(text).into_iter();
    let by_number = read::active(text).into_iter();
    read::copy_phase(text);
    read::info(text);
    crate::evacuate::Owner::parse(text);
    read::is_active(text);
    crate::xml::network::Pool::of(text);
    Printed {
        reason: read::state(text).map(|(_, reason)| reason),
        names: [
            by_uuid.map(|(_, name)| name.to_owned()).collect(),
            by_number.map(|domain| domain.name).collect(),
        ],
        job: read::job(text).map(|job| job.facts),
        events: text.lines().filter_map(read::event).collect(),
        monitor_events: text.lines().filter_map(read::monitor_event).collect(),
        refusals: COMMANDS
            .map(|command| refusal::of("qemu:///system", command, domain, text))
            .into(),
    }
}

/// The channel of a domain, as it may be opened.
pub fn channel_of(xml: &DomainXml) -> Option<AgentChannel> {
    channel::of(xml, "qemu:///system", &[])
}
