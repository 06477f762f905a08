//! A hypervisor in memory, whose facts a test changes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::hypervisor::{
    ActiveDomain, AgentChannel, Answer, ChannelSocket, Claim, DomainEvent, DomainFacts, DomainLook,
    DomainState, EventSender, Events, Host, HostError, JobFacts, JobWhich, Look, MigrateOptions,
    Migration, Nic, event_queue,
};
use crate::xml::device::parse_device;
use crate::xml::{Bonds, Document};

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) has_bonds: AtomicBool,
    pub(super) domains: Mutex<BTreeMap<String, (DomainFacts, Option<String>)>>,
    sender: Mutex<Option<EventSender>>,
    pub(super) is_down: AtomicBool,
    pub(super) looks: AtomicUsize,
    pub(super) rolls: AtomicUsize,
    pub(super) attaches: AtomicUsize,
    /// Attempts to attach that fail before one works.
    pub(super) attach_failures: AtomicUsize,
    /// A device with this in its XML is never attached.
    pub(super) broken: Mutex<Option<String>>,
    /// The bonds of all domains, if not those of the example.
    pub(super) bonds: Mutex<Option<Bonds>>,
    claims: Mutex<Vec<Claim>>,
}

impl Fake {
    pub(super) fn new(domains: &[(&str, &Path)]) -> Arc<Self> {
        let fake = Self {
            has_bonds: AtomicBool::new(true),
            domains: Mutex::default(),
            sender: Mutex::default(),
            is_down: AtomicBool::new(false),
            looks: AtomicUsize::new(0),
            rolls: AtomicUsize::new(0),
            attaches: AtomicUsize::new(0),
            attach_failures: AtomicUsize::new(0),
            broken: Mutex::default(),
            bonds: Mutex::default(),
            claims: Mutex::default(),
        };
        for (name, socket) in domains {
            fake.start(name, socket, "1");
        }
        Arc::new(fake)
    }

    pub(super) fn start(&self, name: &str, socket: &Path, run_id: &str) {
        let facts = DomainFacts {
            state: DomainState::Running,
            run_id: run_id.to_owned(),
            channel: Some(AgentChannel {
                socket: Some(ChannelSocket::named(socket)),
                refused: None,
                opened: Some(true),
            }),
            ..DomainFacts::absent(name)
        };
        let mut domains = self.domains.lock().unwrap();
        domains.insert(name.to_owned(), (facts, None));
    }

    pub(super) fn edit(&self, name: &str, edit: impl FnOnce(&mut DomainFacts)) {
        edit(&mut self.domains.lock().unwrap().get_mut(name).unwrap().0);
    }

    pub(super) fn record(&self, name: &str, record: Option<String>) {
        self.domains.lock().unwrap().get_mut(name).unwrap().1 = record;
    }

    pub(super) fn happens(&self, event: DomainEvent) {
        let sender = self.sender.lock().unwrap();
        assert!(sender.as_ref().unwrap().send(event));
    }

    fn ask<'a, T: Send + 'a>(&self, value: T) -> Answer<'a, T> {
        let down = self.is_down.load(Ordering::Relaxed);
        let answer = if down { Err(unreachable()) } else { Ok(value) };
        Box::pin(std::future::ready(answer))
    }

    fn entry(&self, name: &str) -> (DomainFacts, Option<String>) {
        let known = self.domains.lock().unwrap().get(name).cloned();
        known.unwrap_or_else(|| (DomainFacts::absent(name), None))
    }
}

fn unreachable() -> HostError {
    HostError::Unreachable {
        host: "fake".to_owned(),
        reason: "no daemon".to_owned(),
    }
}

fn bonds() -> Bonds {
    let example = include_str!("../../../schema/examples/static.xml");
    Document::parse(example).unwrap().bonds
}

impl Look for Fake {
    fn uri(&self) -> &str {
        "fake"
    }
    fn look<'a>(&'a self, name: &'a str) -> Answer<'a, DomainLook> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let (facts, progress) = self.entry(name);
        self.ask(DomainLook {
            facts,
            bonds: Ok(self.has_bonds.load(Ordering::Relaxed).then(|| {
                let own = self.bonds.lock().unwrap().clone();
                own.unwrap_or_else(bonds)
            })),
            progress,
            claims: self.claims.lock().unwrap().clone(),
        })
    }
    fn active(&self) -> Answer<'_, Vec<ActiveDomain>> {
        self.rolls.fetch_add(1, Ordering::Relaxed);
        let domains = self.domains.lock().unwrap();
        let active = domains.iter().map(|(name, (facts, _))| ActiveDomain {
            name: name.clone(),
            run_id: facts.run_id.clone(),
        });
        let active = active.collect();
        self.ask(active)
    }
    fn job<'a>(&'a self, _: &'a str, _: JobWhich) -> Answer<'a, JobFacts> {
        self.ask(JobFacts::default())
    }
    fn events(&self) -> Answer<'_, Events> {
        let (sender, events) = event_queue();
        *self.sender.lock().unwrap() = Some(sender);
        self.ask(events)
    }
}

impl Host for Fake {
    fn set_bonds<'a>(&'a self, _: &'a str, _: Option<&'a Bonds>) -> Answer<'a, ()> {
        unreachable!("serve changes no bonds")
    }
    fn set_progress<'a>(&'a self, name: &'a str, record: Option<&'a str>) -> Answer<'a, ()> {
        self.record(name, record.map(str::to_owned));
        self.ask(())
    }
    fn set_claim<'a>(&'a self, _: &'a str, claim: &'a Claim) -> Answer<'a, ()> {
        let mut claims = self.claims.lock().unwrap();
        claims.retain(|one| one.token != claim.token);
        claims.extend((!claim.text.is_empty()).then(|| claim.clone()));
        self.ask(())
    }
    fn detach<'a>(&'a self, _: &'a str, _: &'a Nic) -> Answer<'a, ()> {
        unreachable!("serve detaches nothing")
    }
    fn attach<'a>(&'a self, name: &'a str, device: &'a str) -> Answer<'a, ()> {
        self.attaches.fetch_add(1, Ordering::Relaxed);
        let fail = |left: usize| left.checked_sub(1);
        let failures = &self.attach_failures;
        let failed = failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fail);
        let broken = self.broken.lock().unwrap().clone();
        if failed.is_ok() || broken.is_some_and(|broken| device.contains(&broken)) {
            let error = HostError::Refused {
                host: "fake".to_owned(),
                what: "attach".to_owned(),
                reason: "the VF is in use".to_owned(),
            };
            return Box::pin(std::future::ready(Err(error)));
        }
        let nic = parse_device(device).unwrap();
        self.edit(name, |facts| facts.nics.push(nic));
        self.ask(())
    }
    fn check_device<'a>(&'a self, _: &'a str, _: usize) -> Answer<'a, ()> {
        self.ask(())
    }
    fn migrate<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a MigrateOptions,
    ) -> Answer<'a, Box<dyn Migration>> {
        unreachable!("serve migrates nothing")
    }
    fn cancel<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        unreachable!("serve cancels nothing")
    }
    fn unpause<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        unreachable!("serve runs nothing again")
    }
}
