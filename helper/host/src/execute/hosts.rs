//! Both hosts of an evacuation.

use std::sync::Arc;

use crate::evacuate::Side;
use crate::hypervisor::{DepartedHost, Host, HostError, Look};

/// Both hosts.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// Where the domain runs at first; `None` where it has left that for good.
    pub source: Option<Arc<dyn Host>>,
    /// Where it shall go.
    pub destination: Arc<dyn Host>,
}

impl Hosts {
    /// A host, to look at.
    pub(crate) fn seen(&self, side: Side) -> &dyn Look {
        match (side, &self.source) {
            (Side::Destination, _) => self.destination.as_ref(),
            (Side::Source, Some(source)) => source.as_ref(),
            (Side::Source, None) => &DepartedHost,
        }
    }

    /// A host, to have it do something.
    pub(crate) fn at(&self, side: Side) -> Result<&dyn Host, HostError> {
        match side {
            Side::Destination => Ok(self.destination.as_ref()),
            Side::Source => self.source.as_deref().ok_or_else(|| HostError::Refused {
                host: DepartedHost.uri().to_owned(),
                what: "a change of the domain".to_owned(),
                reason: "the domain has left this host".to_owned(),
            }),
        }
    }
}
