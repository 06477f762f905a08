//! Two fake hosts and the guest between them, by the rules of libvirt and QEMU.

use tandem_core::types::Mac;
use tandem_host::evacuate::{
    ClaimFact, Failure, FailureKind, Owner, Progress, RecordFact, Side, SideFacts,
};
use tandem_host::hypervisor::{DomainState, EventKind, JobFacts, JobPhase, Nic, NicKind};

use crate::devices::{FakeDevice, nic, vf};
use crate::script::{Carry, Course, Script};

pub(crate) const DOMAIN: &str = "guest";
pub(crate) const STANDBY_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

/// One host.
#[derive(Debug, Clone)]
pub(crate) struct FakeHost {
    pub(crate) state: DomainState,
    pub(crate) nics: Vec<Nic>,
    /// The record, as text.
    pub(crate) record: Option<String>,
    /// Who claims the domain.
    pub(crate) rivals: Vec<Owner>,
    /// Who reserved each device here.
    pub(crate) claims: Vec<Option<String>>,
    /// Can't be asked until then, in ms.
    pub(crate) down_until_ms: u64,
}

/// A migration under way.
#[derive(Debug, Clone)]
pub(crate) struct Migration {
    /// Process that waits for its end.
    pub(crate) owner: usize,
    pub(crate) begun_ms: u64,
    pub(crate) course: Course,
    pub(crate) lost: bool,
    /// So often its connection still breaks in post-copy.
    pub(crate) breaks: u32,
    pub(crate) stage: MigrationStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MigrationStage {
    Copying,
    SwitchOver,
    PostCopy,
    Broken,
    Leaving,
}

/// Both hosts and the guest.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) script: Script,
    pub(crate) hosts: [FakeHost; 2],
    pub(crate) migration: Option<Migration>,
    /// Both halves of a carry stand ready.
    pub(crate) carries: bool,
    /// What becomes of each device.
    pub(crate) devices: Vec<FakeDevice>,
    /// The guest has the bond that the host gave it; a boot forgets it.
    pub(crate) has_bond: bool,
    /// The guest boots until then, in ms.
    pub(crate) booting_until_ms: u64,
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
        let devices: Vec<FakeDevice> = script.devices().map(FakeDevice::new).collect();
        let host = |_: Side| FakeHost {
            state: DomainState::Absent,
            nics: Vec::new(),
            record: None,
            rivals: Vec::new(),
            claims: vec![None; devices.len()],
            down_until_ms: 0,
        };
        let mut hosts = Side::BOTH.map(host);
        hosts[0].state = DomainState::Running;
        hosts[0].nics.push(standby());
        for (device, one) in script.devices().enumerate() {
            if !one.gone_already {
                hosts[0].nics.push(nic(Side::Source, device));
            }
        }
        Self {
            script,
            hosts,
            migration: None,
            carries: false,
            devices,
            has_bond: true,
            booting_until_ms: 0,
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

    /// Where the guest's processors run.
    pub(crate) fn runs_on(&self) -> Option<Side> {
        let runs = |side: &Side| self.host(*side).state == DomainState::Running;
        Side::BOTH.into_iter().find(runs)
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
            claims: host.rivals.iter().filter(|_| is_there).map(claim).collect(),
            in_the_way: None,
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
            host.rivals.clear();
        }
    }

    pub(crate) fn migrate(&mut self, owner: usize, now_ms: u64) -> Result<(), Failure> {
        self.require_record("a migration", |record| record.migration_begun);
        for device in 0..self.devices.len() {
            if self.has(Side::Source, device) {
                self.violations.push(format!(
                    "a migration was begun with device {device} plugged in"
                ));
            }
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
            breaks: match self.script.course {
                Course::PostCopyBreaks(breaks) => breaks,
                _ => 0,
            },
            stage: MigrationStage::Copying,
        });
        Ok(())
    }

    pub(crate) fn require_record(&mut self, what: &str, fits: impl Fn(&Progress) -> bool) {
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

    /// The rest of the memory comes after all.
    pub(crate) fn resume_memory(&mut self, owner: usize) -> Result<(), Failure> {
        match &mut self.migration {
            Some(migration) if migration.stage == MigrationStage::Broken => {
                migration.stage = MigrationStage::PostCopy;
                migration.owner = owner;
                Ok(())
            }
            _ => Err(Failure::new(
                FailureKind::Refused,
                "no post-copy has broken off",
            )),
        }
    }

    /// The halves of a carry stand ready, or not.
    pub(crate) fn carry(&mut self) -> Result<(), Failure> {
        let refused = self.script.carry == Carry::Refused;
        if refused {
            return Err(Failure::new(FailureKind::Refused, "no half can be started"));
        }
        self.carries = true;
        Ok(())
    }

    /// Ends a migration that came to nothing.
    pub(crate) fn fail_migration(&mut self, kind: FailureKind, text: &str) {
        let Some(migration) = self.migration.take() else {
            return;
        };
        if matches!(
            migration.stage,
            MigrationStage::Leaving | MigrationStage::PostCopy | MigrationStage::Broken
        ) {
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
            (MigrationStage::Copying, Course::PostCopy | Course::PostCopyBreaks(_))
                if percent >= 50 =>
            {
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
            (MigrationStage::PostCopy, _) if migration.breaks > 0 => {
                migration.breaks -= 1;
                migration.stage = MigrationStage::Broken;
                let failure = Failure::new(FailureKind::MigrationFailed, "broken pipe");
                self.ended.push((migration.owner, Err(failure)));
                None
            }
            (MigrationStage::Broken, _) => None,
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
        let rivals = source.rivals.clone();
        let keeps = !self.script.record_stays_behind;
        // In post-copy the processors can't stand still.
        let leaves_paused = self.carries
            && self.script.carry == Carry::LeavesPaused
            && !matches!(
                self.script.course,
                Course::PostCopy | Course::PostCopyBreaks(_)
            );
        for device in &mut self.devices {
            device.since_ms = now_ms;
        }
        let there = self.host_mut(Side::Destination);
        there.state = if leaves_paused {
            DomainState::Paused
        } else {
            DomainState::Running
        };
        there.nics = nics;
        there.record = record.filter(|_| keeps);
        there.rivals = if keeps { rivals } else { Vec::new() };
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
        let paused = |side: Side| self.host(side).state == DomainState::Paused;
        // A carry's stop leaves it paused where it arrives.
        let between = paused(Side::Source) || (self.carries && paused(Side::Destination));
        if running > 1 {
            self.violations.push("the domain runs twice".into());
        }
        if running == 0 && !between && !self.shut_down {
            self.violations.push("the domain runs nowhere".into());
        }
        for side in Side::BOTH {
            for device in 0..self.devices.len() {
                let identity = vf(side, device).identity;
                let nics = self.host(side).nics.iter();
                if nics.filter(|nic| identity.is(nic)).count() > 1 {
                    let fault =
                        format!("device {device} is attached twice on the {}", side.as_str());
                    self.violations.push(fault);
                }
            }
        }
    }
}

fn claim(owner: &Owner) -> ClaimFact {
    ClaimFact {
        token: owner.token.clone(),
        owner: Some(owner.clone()),
    }
}

fn job(migration: &Migration, now_ms: u64) -> JobFacts {
    let phase = match migration.stage {
        MigrationStage::Copying => JobPhase::PreCopy,
        MigrationStage::SwitchOver => JobPhase::SwitchOver,
        MigrationStage::PostCopy => JobPhase::PostCopy,
        MigrationStage::Broken => JobPhase::PostCopyBroken,
        MigrationStage::Leaving => JobPhase::SwitchOver,
    };
    JobFacts {
        phase,
        elapsed_ms: Some(now_ms - migration.begun_ms),
        ..JobFacts::default()
    }
}
