//! Two fake hosts and the guest between them, by the rules of libvirt and QEMU.

use tandem_core::types::{Mac, PciAddress};
use tandem_host::evacuate::{
    Failure, FailureKind, Progress, RecordFact, Side, SideFacts, Stage, Vf, VfIdentity,
};
use tandem_host::hypervisor::{DomainState, EventKind, JobFacts, JobPhase, Nic, NicKind};

use crate::script::{Course, Script, Unplug};

pub(crate) const DOMAIN: &str = "guest";
pub(crate) const STANDBY_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const VF_MACS: [Mac; 2] = [Mac([0x52, 0x54, 0, 0, 0, 2]), Mac([0x52, 0x54, 0, 0, 0, 3])];

/// One host.
#[derive(Debug, Clone)]
pub(crate) struct FakeHost {
    pub(crate) state: DomainState,
    pub(crate) nics: Vec<Nic>,
    /// The record, as text.
    pub(crate) record: Option<String>,
    /// Who reserved the VF here.
    pub(crate) claim: Option<String>,
    /// Can't be asked until then, in ms.
    pub(crate) down_until_ms: u64,
    pub(crate) attach_failures: u32,
}

/// A migration under way.
#[derive(Debug, Clone)]
pub(crate) struct Migration {
    /// Process that waits for its end.
    pub(crate) owner: usize,
    pub(crate) begun_ms: u64,
    pub(crate) course: Course,
    pub(crate) lost: bool,
    pub(crate) stage: MigrationStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MigrationStage {
    Copying,
    SwitchOver,
    PostCopy,
    Leaving,
}

/// Both hosts and the guest.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) script: Script,
    pub(crate) hosts: [FakeHost; 2],
    pub(crate) migration: Option<Migration>,
    /// The guest was asked to release the VF, and did not take it again.
    pub(crate) prepared: bool,
    /// The guest has the bond that the host gave it; a boot forgets it.
    pub(crate) has_bond: bool,
    /// The guest boots until then, in ms.
    pub(crate) booting_until_ms: u64,
    pub(crate) vf_since_ms: u64,
    pub(crate) refusals: u32,
    /// An unplug is under way in the guest.
    pub(crate) unplugging: bool,
    /// Times that the VF left; an unplug concerns the VF of its time.
    pub(crate) releases: u32,
    pub(crate) shut_down: bool,
    /// The call that is being carried out is awaited, and not what a timeout or a kill left.
    pub(crate) caller_lives: bool,
    /// What must never be.
    pub(crate) violations: Vec<String>,
    /// What is to be told, and how it ended, once a migration has.
    pub(crate) ended: Vec<(usize, Result<(), Failure>)>,
    pub(crate) events: Vec<(Side, EventKind)>,
}

pub(crate) fn index(side: Side) -> usize {
    usize::from(side == Side::Destination)
}

/// The VF of a host.
pub(crate) fn vf(side: Side) -> Vf {
    let bus = if side == Side::Source { 3 } else { 4 };
    let pci = PciAddress {
        domain: 0,
        bus,
        device: 16,
        function: 0,
    };
    Vf {
        identity: VfIdentity {
            pci: Some(pci),
            alias: None,
            mac: None,
        },
        guest_mac: None,
        device: format!("<hostdev><source>{pci}</source></hostdev>"),
    }
}

fn vf_nic(side: Side) -> Nic {
    Nic {
        alias: "hostdev0".to_owned(),
        mac: Some(VF_MACS[index(side)]),
        kind: NicKind::HostdevInterface,
        pci_source: vf(side).identity.pci,
        xml: vf(side).device,
    }
}

fn standby() -> Nic {
    Nic {
        alias: "net0".to_owned(),
        mac: Some(STANDBY_MAC),
        kind: NicKind::Interface,
        pci_source: None,
        xml: "<interface/>".to_owned(),
    }
}

impl World {
    pub(crate) fn new(script: Script) -> Self {
        let host = |side: Side| FakeHost {
            state: DomainState::Absent,
            nics: Vec::new(),
            record: None,
            claim: None,
            down_until_ms: 0,
            attach_failures: script.attach_failures[index(side)],
        };
        let mut hosts = Side::BOTH.map(host);
        hosts[0].state = DomainState::Running;
        hosts[0].nics.push(standby());
        if !script.vf_gone_already {
            hosts[0].nics.push(vf_nic(Side::Source));
        }
        Self {
            script,
            hosts,
            migration: None,
            prepared: false,
            has_bond: true,
            booting_until_ms: 0,
            vf_since_ms: 0,
            refusals: 0,
            unplugging: false,
            releases: 0,
            shut_down: false,
            caller_lives: true,
            violations: Vec::new(),
            ended: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(crate) fn host(&self, side: Side) -> &FakeHost {
        &self.hosts[index(side)]
    }

    pub(crate) fn host_mut(&mut self, side: Side) -> &mut FakeHost {
        &mut self.hosts[index(side)]
    }

    pub(crate) fn has_vf(&self, side: Side) -> bool {
        let identity = vf(side).identity;
        self.host(side).nics.iter().any(|nic| identity.is(nic))
    }

    /// Where the guest's processors run.
    pub(crate) fn runs_on(&self) -> Option<Side> {
        let runs = |side: &Side| self.host(*side).state == DomainState::Running;
        Side::BOTH.into_iter().find(runs)
    }

    /// The guest's traffic goes over the VF.
    pub(crate) fn uses_vf(&self, now_ms: u64) -> bool {
        let attached = self.runs_on().is_some_and(|side| self.has_vf(side));
        attached && self.has_bond && !self.prepared && now_ms >= self.vf_since_ms + 1_500
    }

    pub(crate) fn record(&self, side: Side) -> Option<Progress> {
        let text = self.host(side).record.as_ref()?;
        Some(Progress::parse_for(text, DOMAIN).expect("a record of ours"))
    }

    pub(crate) fn facts(&self, side: Side, now_ms: u64) -> SideFacts {
        let host = self.host(side);
        let job = match &self.migration {
            Some(migration) if side == Side::Source => job(migration, now_ms),
            _ => JobFacts::default(),
        };
        let is_there = host.state != DomainState::Absent;
        let record = match &host.record {
            Some(text) if is_there => match Progress::parse_for(text, DOMAIN) {
                Ok(record) => RecordFact::Present(Box::new(record)),
                Err(e) => RecordFact::Unreadable(e.to_string()),
            },
            _ => RecordFact::Absent,
        };
        let nics = if is_there {
            host.nics.clone()
        } else {
            Vec::new()
        };
        SideFacts {
            state: host.state,
            nics,
            job,
            record,
        }
    }

    /// The domain leaves a host, by migration or by its end.
    fn remove(&mut self, side: Side) {
        let is_persistent = self.script.is_persistent && side == Side::Source;
        let host = self.host_mut(side);
        host.state = if is_persistent {
            DomainState::ShutOff
        } else {
            DomainState::Absent
        };
        host.nics.clear();
        if !is_persistent {
            host.record = None;
        }
    }

    pub(crate) fn attach(&mut self, side: Side, now_ms: u64) -> Result<(), Failure> {
        let fail = |kind, text: &str| Err(Failure::new(kind, text));
        let has_vf = self.has_vf(side);
        let busy = self.migration.is_some();
        let blind = self.script.attach_is_blind;
        let host = self.host_mut(side);
        match host.state {
            DomainState::Absent => return fail(FailureKind::NoSuchDomain, "no such domain"),
            DomainState::ShutOff | DomainState::Incoming => {
                return fail(FailureKind::Refused, "the domain does not run");
            }
            DomainState::Running | DomainState::Paused => {}
        }
        if busy {
            return fail(FailureKind::Refused, "a migration has the domain");
        }
        if has_vf && !blind {
            return fail(FailureKind::AlreadyThere, "the VF is there");
        }
        if host.attach_failures > 0 {
            host.attach_failures = host
                .attach_failures
                .saturating_sub(u32::from(host.attach_failures != u32::MAX));
            return fail(FailureKind::Other, "vfio: group is not viable");
        }
        host.nics.push(vf_nic(side));
        self.vf_since_ms = now_ms;
        self.events.push((
            side,
            EventKind::DeviceAdded {
                alias: "hostdev0".into(),
            },
        ));
        Ok(())
    }

    /// `Ok(Some(ms))`: the guest will release it after so long.
    pub(crate) fn detach(&mut self) -> Result<Option<u64>, Failure> {
        self.require_record("an unplug", |record| record.stage >= Stage::Unplugging);
        let host = self.host(Side::Source);
        if host.state == DomainState::Absent {
            return Err(Failure::new(FailureKind::NoSuchDomain, "no such domain"));
        }
        if !self.has_vf(Side::Source) {
            return Err(Failure::new(FailureKind::AlreadyGone, "the VF is gone"));
        }
        match self.script.unplug {
            Unplug::Ignored => Ok(None),
            Unplug::Refused(times) if self.refusals < times => {
                self.refusals += 1;
                let alias = "hostdev0".to_owned();
                self.events
                    .push((Side::Source, EventKind::UnplugRefused { alias }));
                Ok(None)
            }
            Unplug::Refused(_) => Ok(Some(500)),
            Unplug::After(ms) if !self.unplugging => {
                self.unplugging = true;
                Ok(Some(ms))
            }
            Unplug::After(_) => Ok(None),
        }
    }

    /// The guest has released the VF on the source.
    pub(crate) fn released(&mut self) {
        self.unplugging = false;
        self.releases += 1;
        let identity = vf(Side::Source).identity;
        let host = self.host_mut(Side::Source);
        let before = host.nics.len();
        host.nics.retain(|nic| !identity.is(nic));
        if host.nics.len() < before {
            // The guest takes whatever VF comes next.
            self.prepared = false;
            let alias = "hostdev0".to_owned();
            self.events
                .push((Side::Source, EventKind::DeviceRemoved { alias }));
        }
    }

    pub(crate) fn migrate(&mut self, owner: usize, now_ms: u64) -> Result<(), Failure> {
        self.require_record("a migration", |record| record.migration_begun);
        if self.has_vf(Side::Source) {
            self.violations
                .push("a migration was begun with the VF plugged in".into());
        }
        let refuse = |text: &str| Err(Failure::new(FailureKind::Refused, text));
        if self.host(Side::Source).state != DomainState::Running || self.migration.is_some() {
            return refuse("the domain does not run");
        }
        let there = self.host(Side::Destination);
        if there.state != DomainState::Absent || there.down_until_ms > now_ms {
            return refuse("the destination can't be reached");
        }
        self.host_mut(Side::Destination).state = DomainState::Incoming;
        self.migration = Some(Migration {
            owner,
            begun_ms: now_ms,
            course: self.script.course,
            lost: false,
            stage: MigrationStage::Copying,
        });
        Ok(())
    }

    fn require_record(&mut self, what: &str, fits: impl Fn(&Progress) -> bool) {
        let source = self.host(Side::Source).state;
        let is_there = matches!(source, DomainState::Running | DomainState::Paused);
        if !is_there || !self.caller_lives {
            return;
        }
        let record = self.record(Side::Source);
        if !record.as_ref().is_some_and(fits) {
            self.violations.push(format!(
                "{what} was asked for before its record: {record:?}"
            ));
        }
    }

    /// Ends a migration that came to nothing.
    pub(crate) fn fail_migration(&mut self, kind: FailureKind, text: &str) {
        let Some(migration) = self.migration.take() else {
            return;
        };
        if migration.stage == MigrationStage::Leaving || migration.stage == MigrationStage::PostCopy
        {
            // Too late: it runs there.
            self.migration = Some(migration);
            return;
        }
        self.remove(Side::Destination);
        let stranded = migration.stage == MigrationStage::SwitchOver
            && migration.course == (Course::FailsInSwitchOver { stranded: true });
        let source = self.host_mut(Side::Source);
        if source.state == DomainState::Paused && !stranded {
            source.state = DomainState::Running;
        }
        self.ended
            .push((migration.owner, Err(Failure::new(kind, text))));
        self.events.push((Side::Source, EventKind::JobFinished));
    }

    /// A fixed share of the migration has passed, in percent. Returns when to come again, in ms.
    pub(crate) fn progress(&mut self, now_ms: u64) -> Option<u64> {
        let total_ms = self.script.migration_ms;
        let migration = self.migration.as_mut()?;
        let percent = (now_ms - migration.begun_ms) * 100 / total_ms.max(1);
        let is_copying = migration.stage == MigrationStage::Copying;
        match (migration.stage, migration.course) {
            (_, Course::NoMemory) => {
                self.fail_migration(FailureKind::MigrationFailed, "cannot allocate memory");
                None
            }
            (_, Course::FailsAt(at)) if is_copying && percent >= at => {
                self.fail_migration(FailureKind::MigrationFailed, "connection reset");
                None
            }
            (_, Course::CancelledAt(at)) if is_copying && percent >= at => {
                self.fail_migration(FailureKind::Cancelled, "cancelled by client");
                None
            }
            (_, Course::LosesHandle(at)) if is_copying && percent >= at && !migration.lost => {
                migration.lost = true;
                let failure = Failure::new(FailureKind::Other, "virsh lost its connection");
                self.ended.push((migration.owner, Err(failure)));
                Some(now_ms + 1)
            }
            (MigrationStage::Copying, Course::Hangs) => Some(now_ms + 1_000),
            (MigrationStage::Copying, Course::PostCopy) if percent >= 50 => {
                migration.stage = MigrationStage::PostCopy;
                self.arrive(now_ms);
                Some(now_ms + total_ms / 2 + 1)
            }
            (MigrationStage::Copying, _) if percent >= 100 => {
                migration.stage = MigrationStage::SwitchOver;
                self.host_mut(Side::Source).state = DomainState::Paused;
                Some(now_ms + 80)
            }
            (MigrationStage::Copying, _) => Some(now_ms + (total_ms / 20).max(1)),
            (MigrationStage::SwitchOver, Course::FailsInSwitchOver { .. }) => {
                self.fail_migration(FailureKind::MigrationFailed, "load of migration failed");
                None
            }
            (MigrationStage::SwitchOver, _) => {
                migration.stage = MigrationStage::Leaving;
                self.arrive(now_ms);
                Some(now_ms + 150)
            }
            (MigrationStage::PostCopy | MigrationStage::Leaving, _) => {
                let owner = migration.owner;
                self.migration = None;
                self.remove(Side::Source);
                self.ended.push((owner, Ok(())));
                self.events.push((Side::Source, EventKind::JobFinished));
                None
            }
        }
    }

    /// The point of no return.
    fn arrive(&mut self, now_ms: u64) {
        let source = self.host_mut(Side::Source);
        source.state = DomainState::Paused;
        let record = source.record.clone();
        let nics = source.nics.clone();
        let keeps = !self.script.record_stays_behind;
        self.vf_since_ms = now_ms;
        let there = self.host_mut(Side::Destination);
        there.state = DomainState::Running;
        there.nics = nics;
        there.record = record.filter(|_| keeps);
    }

    /// A hypervisor's daemon goes away for a while. Domains live on; migrations do not.
    pub(crate) fn outage(&mut self, side: Side, until_ms: u64) {
        let host = self.host_mut(side);
        host.down_until_ms = host.down_until_ms.max(until_ms);
        let why = "connection to the daemon was lost";
        self.fail_migration(FailureKind::Unreachable, why);
    }

    /// The guest powers off.
    pub(crate) fn shut_down(&mut self) {
        if self.migration.is_some() {
            self.fail_migration(FailureKind::MigrationFailed, "domain is not running");
        }
        if self.migration.is_none()
            && let Some(side) = self.runs_on()
        {
            self.remove(side);
            self.shut_down = true;
        }
    }

    /// What must be true at every moment.
    pub(crate) fn check(&mut self) {
        let running = |side: &Side| self.host(*side).state == DomainState::Running;
        let running = Side::BOTH.iter().filter(|side| running(side)).count();
        let between = self.host(Side::Source).state == DomainState::Paused;
        if running > 1 {
            self.violations.push("the domain runs twice".into());
        }
        if running == 0 && !between && !self.shut_down {
            self.violations.push("the domain runs nowhere".into());
        }
        for side in Side::BOTH {
            let others = self
                .host(side)
                .nics
                .iter()
                .filter(|nic| nic.alias != "net0");
            if others.count() > 1 {
                self.violations
                    .push(format!("the VF is attached twice on the {}", side.as_str()));
            }
        }
    }
}

fn job(migration: &Migration, now_ms: u64) -> JobFacts {
    let phase = match migration.stage {
        MigrationStage::Copying => JobPhase::PreCopy,
        MigrationStage::SwitchOver => JobPhase::SwitchOver,
        MigrationStage::PostCopy => JobPhase::PostCopy,
        MigrationStage::Leaving => JobPhase::SwitchOver,
    };
    JobFacts {
        phase,
        elapsed_ms: Some(now_ms - migration.begun_ms),
        ..JobFacts::default()
    }
}
