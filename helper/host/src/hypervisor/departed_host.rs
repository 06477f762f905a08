//! The host that a domain has left, as it is seen from where the domain runs now.

use super::{
    Answer, DomainFacts, Events, Host, HostError, JobFacts, JobWhich, MigrateOptions, Migration,
    Nic, event_queue,
};
use crate::xml::Bonds;

/// Has no domain, and does nothing.
#[derive(Debug)]
pub(crate) struct DepartedHost {
    uri: String,
}

impl DepartedHost {
    pub(crate) fn new(uri: &str) -> Self {
        Self {
            uri: uri.to_owned(),
        }
    }

    fn refused<'a, T: Send + 'a>(&'a self, what: &str) -> Answer<'a, T> {
        let error = HostError::Refused {
            host: self.uri.clone(),
            what: what.to_owned(),
            reason: "the domain has left this host".to_owned(),
        };
        Box::pin(std::future::ready(Err(error)))
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Host for DepartedHost {
    fn uri(&self) -> &str {
        &self.uri
    }
    fn domains(&self) -> Answer<'_, Vec<String>> {
        ready(Vec::new())
    }
    fn domain<'a>(&'a self, name: &'a str) -> Answer<'a, DomainFacts> {
        ready(DomainFacts::absent(name))
    }
    fn bonds<'a>(&'a self, _: &'a str) -> Answer<'a, Option<Bonds>> {
        ready(None)
    }
    fn set_bonds<'a>(&'a self, _: &'a str, _: Option<&'a Bonds>) -> Answer<'a, ()> {
        self.refused("set bonds")
    }
    fn progress<'a>(&'a self, _: &'a str) -> Answer<'a, Option<String>> {
        ready(None)
    }
    fn set_progress<'a>(&'a self, _: &'a str, _: Option<&'a str>) -> Answer<'a, ()> {
        self.refused("write a record")
    }
    fn detach<'a>(&'a self, _: &'a str, _: &'a Nic) -> Answer<'a, ()> {
        self.refused("detach")
    }
    fn attach<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, ()> {
        self.refused("attach")
    }
    fn check_device<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
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
    fn job<'a>(&'a self, _: &'a str, _: JobWhich) -> Answer<'a, JobFacts> {
        ready(JobFacts::default())
    }
    fn cancel<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        self.refused("cancel")
    }
    fn events(&self) -> Answer<'_, Events> {
        // Its queue ends at once, and with it whoever listens.
        let (_, events) = event_queue();
        ready(events)
    }
}
