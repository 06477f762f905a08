//! Ways in for tests/fuzz to what `serve` keeps of a guest and tells its clients. Built with `--cfg fuzzing` only.

use tandem_wire::reply::StatusReport;

use super::registry::Registry;
use super::{http, metrics};
use crate::hypervisor::DomainLook;
use crate::report::DomainReport;

/// What is known of some domains.
#[derive(Debug)]
pub struct KnownDomains(Registry);

impl KnownDomains {
    /// Nothing yet.
    pub fn nothing() -> Self {
        Self(Registry::new())
    }

    /// What the hypervisor shows.
    pub fn show(&self, look: &DomainLook) {
        self.0.show(DomainReport::of(look), true);
    }

    /// The guest's answer to `tandem-status`; `bytes` is its length.
    pub fn guest(&self, domain: &str, report: StatusReport, bytes: usize) {
        self.0.guest(domain, report, bytes);
    }

    /// One line for clients of the control socket.
    pub fn line(&self, domain: &str) -> Option<Vec<u8>> {
        self.0.one(domain).map(|reply| reply.to_line())
    }

    /// The metrics.
    pub fn metrics(&self) -> String {
        metrics::text(&self.0)
    }

    /// The answer to an HTTP request.
    pub fn http(&self, head: &[u8]) -> Vec<u8> {
        http::answer(head, &self.0)
    }
}
