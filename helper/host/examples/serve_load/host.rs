//! A hypervisor in memory with domains that run and to which nothing happens.

use std::path::{Path, PathBuf};

use tandem_host::hypervisor::{
    ActiveDomain, AgentChannel, Answer, ChannelSocket, Claim, DomainFacts, DomainLook, DomainState,
    EventSender, Events, Host, HostError, JobFacts, JobWhich, Look, MigrateOptions, Migration, Nic,
    NicKind, event_queue,
};
use tandem_host::xml::{Bonds, Document};

use super::name;

/// See above.
#[derive(Debug)]
pub(super) struct Simulated {
    folder: PathBuf,
    count: usize,
    bonds: Bonds,
    /// Keeps the queue of events open.
    senders: std::sync::Mutex<Vec<EventSender>>,
}

impl Simulated {
    pub(super) fn new(folder: &Path, count: usize) -> Self {
        let example = include_str!("../../schema/examples/static.xml");
        Self {
            folder: folder.to_owned(),
            count,
            bonds: Document::parse(example)
                .expect("the example is sound")
                .bonds,
            senders: Default::default(),
        }
    }

    fn names(&self) -> impl Iterator<Item = String> {
        (0..self.count).map(name)
    }

    fn refused<'a, T: Send + 'a>(&'a self, what: &str) -> Answer<'a, T> {
        let error = HostError::Refused {
            host: self.uri().to_owned(),
            what: what.to_owned(),
            reason: "it is only simulated".to_owned(),
        };
        Box::pin(std::future::ready(Err(error)))
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

fn nic(alias: &str, mac: &str, kind: NicKind) -> Nic {
    Nic {
        alias: alias.to_owned(),
        mac: mac.parse().ok(),
        kind,
        pci_source: None,
        xml: format!("<interface type='bridge'><mac address='{mac}'/></interface>"),
    }
}

impl Look for Simulated {
    fn uri(&self) -> &str {
        "simulated:///"
    }
    fn look<'a>(&'a self, name: &'a str) -> Answer<'a, DomainLook> {
        let facts = DomainFacts {
            uuid: "27b57f69-6f78-4fd1-b3b8-2d2b6e2c9d2f".to_owned(),
            state: DomainState::Running,
            reason: "booted".to_owned(),
            run_id: "1".to_owned(),
            nics: vec![
                nic("net0", "52:54:00:12:34:01", NicKind::Interface),
                nic("ua-vf0", "52:54:00:12:34:02", NicKind::HostdevInterface),
            ],
            channel: Some(AgentChannel {
                socket: Some(ChannelSocket::named(&self.folder.join(name))),
                refused: None,
                opened: Some(true),
            }),
            ..DomainFacts::absent(name)
        };
        ready(DomainLook {
            facts,
            bonds: Ok(Some(self.bonds.clone())),
            progress: None,
            claims: Vec::new(),
        })
    }
    fn active(&self) -> Answer<'_, Vec<ActiveDomain>> {
        let active = self.names().map(|name| ActiveDomain {
            name,
            run_id: "1".to_owned(),
        });
        ready(active.collect())
    }
    fn job<'a>(&'a self, _: &'a str, _: JobWhich) -> Answer<'a, JobFacts> {
        ready(JobFacts::default())
    }
    fn events(&self) -> Answer<'_, Events> {
        let (sender, events) = event_queue();
        self.senders.lock().expect("no holder panics").push(sender);
        ready(events)
    }
}

impl Host for Simulated {
    fn set_bonds<'a>(&'a self, _: &'a str, _: Option<&'a Bonds>) -> Answer<'a, ()> {
        self.refused("set bonds")
    }
    fn set_progress<'a>(&'a self, _: &'a str, _: Option<&'a str>) -> Answer<'a, ()> {
        self.refused("write a record")
    }
    fn set_claim<'a>(&'a self, _: &'a str, _: &'a Claim) -> Answer<'a, ()> {
        self.refused("claim")
    }
    fn detach<'a>(&'a self, _: &'a str, _: &'a Nic) -> Answer<'a, ()> {
        self.refused("detach")
    }
    fn attach<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, ()> {
        self.refused("attach")
    }
    fn check_device<'a>(&'a self, _: &'a str, _: usize) -> Answer<'a, ()> {
        self.refused("check a device")
    }
    fn migrate<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a MigrateOptions,
    ) -> Answer<'a, Box<dyn Migration>> {
        self.refused("migrate")
    }
    fn cancel<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        self.refused("cancel")
    }
    fn unpause<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        self.refused("run again")
    }
}
