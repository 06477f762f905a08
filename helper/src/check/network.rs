//! Whether the guest has its network on the bonds: what the running service tells, and what lies around it.

use tandem_core::policy::Policy;
use tandem_core::status::ProblemCode;

use super::setup::effective_policy;
use super::system::System;
use super::verdict::{Finding, Level, Verdict};
use crate::config::{Config, ConfigError};
use crate::surroundings::{self, Concern};

/// One finding for each problem of the network; one if there is none.
pub(super) fn findings(system: &System, config: &Result<Config, ConfigError>) -> Vec<Finding> {
    let policy = config
        .as_ref()
        .map(|config| effective_policy(system, config));
    let policy = policy.unwrap_or_default();
    let told = system.told.iter().flatten().cloned();
    let concerns = told.chain(around(system, &policy));
    let mut found: Vec<_> = concerns.filter_map(verdict).collect();
    if found.is_empty() {
        let detail = match &system.told {
            Ok(_) => "no problem".to_owned(),
            Err(error) => format!("not looked at: {error}"),
        };
        found.push(Verdict::ok(detail));
    }
    found.into_iter().map(|one| one.of("network")).collect()
}

fn around(system: &System, policy: &Policy) -> Vec<Concern> {
    let links = system.links.as_deref().unwrap_or_default();
    surroundings::concerns(system, policy, links, &system.permanent)
}

/// Problems of the bond itself are the status's.
fn verdict(concern: Concern) -> Option<Verdict> {
    let Concern { bond, problem } = concern;
    let (level, consequence) = match problem.code {
        ProblemCode::NoAddress => (Level::Fatal, "nobody reaches the guest over the bond"),
        ProblemCode::NoDefaultRoute => (
            Level::Fatal,
            "the guest reaches nothing beyond its own network",
        ),
        ProblemCode::LeaseUnrenewed => (
            Level::Degraded,
            "the address ends with its lease, or somebody else gets it too",
        ),
        ProblemCode::PortContested => (
            Level::Degraded,
            "each time traffic may leave past the bond for a moment",
        ),
        ProblemCode::ManagerIgnoresBond => (
            Level::Degraded,
            "the bond gets no address, or loses those that it has",
        ),
        ProblemCode::WaitOnlineNamesPort => (
            Level::Degraded,
            "each boot waits until that gives up, usually after 120 s",
        ),
        ProblemCode::VfWithoutDriver => (Level::Degraded, "the traffic stays on the standby"),
        _ => return None,
    };
    let device = problem.device.filter(|device| *device != bond);
    let device = device
        .map(|device| format!(", {device}"))
        .unwrap_or_default();
    Some(Verdict {
        level,
        detail: format!("{bond}{device}: {}", problem.message),
        consequence,
        remedy: problem.code.remedy(),
    })
}
