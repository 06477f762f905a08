//! What says which evacuation there is: the record in a domain's metadata (the first line), this host's own
//! record (the second), and the bonds of the metadata (the rest).

use std::collections::BTreeMap;

use tandem_core::types::{IfName, Mac};
use tandem_host::evacuate::{
    Action, ActionKind, AgentUse, ClaimFact, Device, DeviceRole, Evacuation, GuestCall,
    GuestStatus, Input, Limits, Owner, Progress, Record, RecordFact, Reply, Side, SideFacts, Spec,
    Vf, VfIdentity,
};
use tandem_host::hypervisor::{DomainState, JobFacts, MAX_PROGRESS_BYTES, Nic, NicKind};
use tandem_host::trust::{Allowed, ReplugFile, UriOrigin, check_device, check_uri};
use tandem_host::xml::Document;

use crate::harmless;
use crate::shown::is_printable;

const DOMAIN: &str = "A";
const VF_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
const DEVICE: &str =
    "<interface type='network'><source network='vfs'/><alias name='ua-vf'/></interface>";
/// Steps of a recovery at most; each waits for its time.
const MAX_STEPS: usize = 5_000;
/// Beats that an owner may still add to one that was read.
const MORE_BEATS: u64 = 1 << 40;
const MAX_MESSAGE: usize = 4_000;

pub(super) fn run(bytes: &[u8]) {
    let text = super::text(bytes);
    let mut parts = text.splitn(3, '\n');
    let mut part = || parts.next().unwrap_or_default();
    let (found, own, bonds) = (part(), part(), part());
    match Progress::parse_for(found, DOMAIN) {
        Ok(progress) => {
            sound(&progress);
            recover(progress);
        }
        Err(error) => is_printable(&error.to_string(), MAX_MESSAGE),
    }
    own_record(own);
    harmless_if_taken(found);
    harmless_if_taken(own);
    replugged(bonds);
}

fn sound(progress: &Progress) {
    let names = [Some(progress.domain.as_str()), progress.renamed.as_deref()];
    assert!(names.contains(&Some(DOMAIN)));
    assert!(
        progress.beat.checked_add(MORE_BEATS).is_some(),
        "its beat wraps"
    );
    let bond = progress.bond.as_ref().map(|name| name.parse::<IfName>());
    assert!(bond.is_none_or(|name| name.is_ok()));
    let again = progress.to_text();
    assert!(again.len() <= MAX_PROGRESS_BYTES && !again.contains('\n'));
    assert_eq!(Progress::parse_for(&again, DOMAIN).as_ref(), Ok(progress));
    assert!(names.contains(&Some("B")) || Progress::parse_for(&again, "B").is_err());
    is_printable(&progress.owner_in_words(), MAX_MESSAGE);
}

fn own_record(text: &str) {
    match Record::parse_for(text, DOMAIN) {
        Ok(record) => {
            let names = [Side::Source, Side::Destination].map(|side| record.spec.name(side));
            assert!(names.contains(&DOMAIN));
            assert_eq!(
                Record::parse_for(&record.to_text(), DOMAIN).as_ref(),
                Ok(&record)
            );
            for uri in [&record.spec.source_uri, &record.spec.destination_uri] {
                harmless_if_taken(uri);
            }
            for device in &record.spec.devices {
                for vf in device.source.iter().chain(&device.destination) {
                    harmless_if_taken(&vf.device);
                }
            }
        }
        Err(error) => is_printable(&error.to_string(), MAX_MESSAGE),
    }
}

fn harmless_if_taken(text: &str) {
    match check_uri(text, UriOrigin::OwnRecord) {
        Ok(()) => harmless::uri(text),
        Err(error) => is_printable(&error.to_string(), MAX_MESSAGE),
    }
    match check_device(text) {
        Ok(()) => harmless::device(text),
        Err(error) => is_printable(&error.to_string(), MAX_MESSAGE),
    }
}

/// The metadata chooses among what root's file lists, and nothing else.
fn replugged(bonds: &str) {
    let Ok(document) = Document::parse(bonds) else {
        return;
    };
    let file = ReplugFile {
        vf: vec![Allowed {
            domains: vec![DOMAIN.to_owned()],
            network: "vfs".to_owned(),
            macs: vec![VF_MAC.to_string()],
        }],
    };
    for bond in &document.bonds.bonds {
        assert!(file.vf("B", bond, &[]).is_err());
        let Ok(vf) = file.vf(DOMAIN, bond, &[standby()]) else {
            continue;
        };
        let begin = "<interface type='network'><mac address='52:54:00:00:00:02'/><source network='vfs'/><alias name='";
        let alias = vf
            .device
            .strip_prefix(begin)
            .and_then(|rest| rest.strip_suffix("'/></interface>"));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        assert!(
            alias.is_some_and(|alias| alias.chars().all(plain)),
            "{}",
            vf.device
        );
    }
}

fn standby() -> Nic {
    Nic {
        alias: "net0".to_owned(),
        mac: Some(Mac([0x52, 0x54, 0, 0, 0, 1])),
        kind: NicKind::Interface,
        pci_source: None,
        xml: "<interface/>".to_owned(),
    }
}

fn vf_nic() -> Nic {
    Nic {
        alias: "ua-vf".to_owned(),
        mac: Some(VF_MAC),
        xml: DEVICE.to_owned(),
        ..standby()
    }
}

/// Two hosts, one of which runs the domain.
struct World {
    spec: Spec,
    runs: Side,
    plugged: bool,
    records: BTreeMap<Side, RecordFact>,
    claims: Vec<ClaimFact>,
    migrations: usize,
}

/// A recovery by root's own spec acts on that alone, and comes to its end.
fn recover(progress: Progress) {
    let vf = Vf {
        identity: VfIdentity {
            pci: None,
            alias: Some("ua-vf".to_owned()),
            mac: Some(VF_MAC),
        },
        guest_mac: Some(VF_MAC),
        device: DEVICE.to_owned(),
    };
    let spec = Spec {
        domain: DOMAIN.to_owned(),
        renamed: None,
        source_uri: "qemu:///system".to_owned(),
        destination_uri: "qemu+ssh://b/system".to_owned(),
        devices: vec![Device {
            role: DeviceRole::Vf {
                bond: Some("bond0".to_owned()),
            },
            source: Some(vf.clone()),
            destination: Some(vf),
        }],
        agent: AgentUse::IfThere,
        reaches_destination_agent: true,
        configure: true,
        yes_degraded: false,
    };
    let runs = progress.home.unwrap_or(match progress.migration_begun {
        true => Side::Destination,
        false => Side::Source,
    });
    let present = RecordFact::Present(Box::new(progress.clone()));
    let mut world = World {
        spec: spec.clone(),
        runs,
        plugged: progress.beat % 2 == 1,
        records: [(runs, present)].into(),
        claims: Vec::new(),
        migrations: 0,
    };
    let owner = Owner {
        token: "own".to_owned(),
        host: "here".to_owned(),
        pid: 7,
        started_at: "now".to_owned(),
    };
    let record = Record {
        progress,
        spec,
        pace: None,
    };
    let mut evacuation = Evacuation::recover(record, owner, Limits::default(), false, 0);
    let mut now_ms = 0;
    for _ in 0..MAX_STEPS {
        if let Some(outcome) = evacuation.outcome() {
            let cause = outcome.cause.iter().map(|cause| cause.message.as_str());
            cause.for_each(|message| is_printable(message, MAX_MESSAGE));
            return;
        }
        let input = match evacuation.next_action() {
            Some(Action { id: action, kind }) => {
                let reply = world.carry_out(kind);
                Input::Done { action, reply }
            }
            None => {
                now_ms = evacuation
                    .next_deadline()
                    .expect("it waits for something")
                    .max(now_ms + 1);
                Input::Tick
            }
        };
        evacuation.handle(now_ms, input);
    }
    panic!("a recovery does not end");
}

impl World {
    fn carry_out(&mut self, kind: ActionKind) -> Reply {
        match kind {
            ActionKind::Observe { side } => return Reply::Observed(Box::new(self.facts(side))),
            ActionKind::Guest {
                call: GuestCall::Status,
                ..
            } => {
                let status = GuestStatus {
                    bond_known: true,
                    standby_usable: true,
                    vf_active: self.plugged,
                    ..GuestStatus::default()
                };
                return Reply::Status([(0, status)].into());
            }
            ActionKind::Claim { owner, .. } => self.claims.push(ClaimFact {
                token: owner.token.clone(),
                owner: Some(*owner),
            }),
            ActionKind::Unclaim { token, .. } => self.claims.retain(|one| one.token != token),
            ActionKind::Save { side, record } => {
                assert_eq!(
                    record.spec, self.spec,
                    "it acts on what somebody else wrote"
                );
                assert_eq!(record.progress.domain, DOMAIN);
                self.records
                    .insert(side, RecordFact::Present(Box::new(record.progress)));
            }
            ActionKind::Clear { side } => {
                self.records.remove(&side);
            }
            ActionKind::Detach { nic, .. } => {
                assert_eq!(*nic, vf_nic(), "it takes another device");
                self.plugged = false;
            }
            ActionKind::Attach { side, .. } => self.plugged |= side == self.runs,
            ActionKind::Migrate => {
                self.migrations += 1;
                assert!(self.migrations <= 1 && self.runs == Side::Source);
            }
            _ => {}
        }
        Reply::Accepted
    }

    fn facts(&self, side: Side) -> SideFacts {
        let here = side == self.runs;
        let nics = [standby()].into_iter().chain(self.plugged.then(vf_nic));
        SideFacts {
            state: if here {
                DomainState::Running
            } else {
                DomainState::Absent
            },
            nics: nics.filter(|_| here).collect(),
            job: JobFacts::default(),
            record: self
                .records
                .get(&side)
                .cloned()
                .unwrap_or(RecordFact::Absent),
            claims: self.claims.iter().filter(|_| here).cloned().collect(),
            in_the_way: None,
        }
    }
}
