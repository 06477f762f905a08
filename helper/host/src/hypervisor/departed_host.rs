//! The host that a domain has left, as it is seen from where the domain runs now.

use super::domain::{ActiveDomain, DomainFacts, DomainLook};
use super::error::Answer;
use super::events::{Events, event_queue};
use super::host::Look;
use super::migration::{JobFacts, JobWhich};

/// Has no domain.
#[derive(Debug)]
pub(crate) struct DepartedHost;

fn ready<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Look for DepartedHost {
    fn uri(&self) -> &str {
        "the source"
    }
    fn look<'a>(&'a self, name: &'a str) -> Answer<'a, DomainLook> {
        ready(DomainLook::without_xml(DomainFacts::absent(name)))
    }
    fn active(&self) -> Answer<'_, Vec<ActiveDomain>> {
        ready(Vec::new())
    }
    fn job<'a>(&'a self, _: &'a str, _: JobWhich) -> Answer<'a, JobFacts> {
        ready(JobFacts::default())
    }
    fn events(&self) -> Answer<'_, Events> {
        // Its queue ends at once, and with it whoever listens.
        let (_, events) = event_queue();
        ready(events)
    }
}
