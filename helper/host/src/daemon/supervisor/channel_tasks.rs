//! The supervisor's channel tasks: begun with their domains, begun again when one fails, and which socket is whose.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError};
use tokio::time::Instant;

use super::Supervisor;
use crate::daemon::channel_task::{ChannelTask, DesiredState};
use crate::daemon::domain_task::{DomainTask, TaskHandle};
use crate::daemon::replug::Replug;
use crate::daemon::told::Told;
use crate::evacuate::Progress;
use crate::execute::{Lock, is_of_this_machine};
use crate::hypervisor::{ChannelSocket, DomainLook};
use crate::report::ChannelUse;
use crate::words::printable;

impl Supervisor {
    /// Another process of this machine drives its evacuation, perhaps one that has asked for no lease. An
    /// attempt of our own has the lock too.
    pub(super) fn is_driven_here(&self, look: &DomainLook) -> bool {
        let name = look.facts.name.as_str();
        let domain_task = self.domain_tasks.get(name);
        let is_ours = domain_task.is_some_and(|domain_task| domain_task.replug.is_busy());
        let record = look.progress.as_deref();
        let Some(record) = record.map(|text| Progress::parse_for(text, name)) else {
            return false;
        };
        let is_held = |name: &str| Lock::is_held(&self.options.state, "domain", name);
        let is_driven = match &record {
            // Under the name that the domain had there, if it came under another one.
            Ok(record) => {
                let owner = record.owner.as_ref();
                owner.is_some_and(is_of_this_machine) && (is_held(name) || is_held(&record.domain))
            }
            // Of a newer program, perhaps: the lock tells.
            Err(_) => is_held(name),
        };
        is_driven && !is_ours
    }

    /// The domain has this socket now; others may have had it, or may have it again for themselves.
    pub(super) fn claim(&mut self, name: &str, path: Option<&Path>) {
        for other in self.claims.set(name, path) {
            let Some(domain_task) = self.domain_tasks.get(&other) else {
                continue;
            };
            let channel = self.claims.judged(&other, domain_task.channel.clone());
            if let (Ok(_), Err(reason)) = (&domain_task.channel, &channel) {
                tracing::warn!("domain {}: {}", printable(&other), printable(reason));
            }
            domain_task.desired.send_if_modified(|desired| {
                let differs = desired.channel != channel;
                desired.channel = channel;
                differs
            });
        }
    }

    pub(super) fn domain_task(
        &mut self,
        name: &str,
        desired: DesiredState,
        channel: Result<ChannelSocket, String>,
    ) -> DomainTask {
        let replug = Replug::new(&desired.run_id);
        let (desired, changes) = watch::channel(desired);
        DomainTask {
            desired,
            channel,
            channel_task: TaskHandle::new(self.begin(name, changes)),
            looked: Instant::now(),
            look_at: None,
            quick: 0,
            replug,
        }
    }

    fn begin(&mut self, name: &str, desired: watch::Receiver<DesiredState>) -> AbortHandle {
        let channel_task = ChannelTask {
            name: name.to_owned(),
            desired,
            channel_leases: self.host_leases.of(name),
            registry: Arc::clone(&self.registry),
            interval: self.options.interval,
            configured: None,
            told: Told::default(),
        };
        self.channel_tasks.spawn((self.keep)(channel_task))
    }

    /// A channel task has ended: of a domain that has gone, or by a fault of this program.
    pub(super) fn channel_task_ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, reason) = match ended {
            Ok((id, ())) => (id, "it came to its end".to_owned()),
            Err(error) if error.is_cancelled() => return,
            Err(error) => (error.id(), error.to_string()),
        };
        let mut domain_tasks = self.domain_tasks.iter_mut();
        let Some((name, domain_task)) =
            domain_tasks.find(|(_, domain_task)| domain_task.channel_task.task.id() == id)
        else {
            return;
        };
        let wait = domain_task.channel_task.ended().as_secs();
        tracing::error!(
            "domain {}: the task that keeps its channel ended: {reason}; it is begun again in {wait} s",
            printable(name)
        );
        let told = format!("its channel is left for {wait} s, after a fault of this program");
        self.registry.silent(name, ChannelUse::None, told);
    }

    pub(super) fn begin_again(&mut self, name: &str) {
        let Some(desired) = self
            .domain_tasks
            .get(name)
            .map(|domain_task| domain_task.desired.subscribe())
        else {
            return;
        };
        let task = self.begin(name, desired);
        if let Some(domain_task) = self.domain_tasks.get_mut(name) {
            domain_task.channel_task.begun_again(task);
        }
    }
}
