//! One action, carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::guest::Channel;
use super::lock::Lock;
use super::record::with_progress;
use super::runner::Hosts;
use crate::control::Lessor;
use crate::decide::{
    Action, ActionKind, Failure, FailureKind, Input, Plan, Progress, RecordFact, Reply, Side,
    SideFacts,
};
use crate::hypervisor::{
    DomainFacts, DomainLook, DomainState, Host, HostError, JobFacts, JobWhich, MigrateOptions,
    Migration,
};

/// Everything that an action may need. Shared by the tasks that carry actions out.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) hosts: Hosts,
    pub(super) plan: Plan,
    pub(super) migrate: MigrateOptions,
    pub(super) policy: Option<tandem_core::Policy>,
    pub(super) folder: std::path::PathBuf,
    pub(super) lock: Lock,
    /// The lock file's record is this process's.
    pub(super) wrote: AtomicBool,
    pub(super) channels: [Channel; 2],
    pub(super) lessor: Lessor,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) vf_lock: std::sync::Mutex<Option<Lock>>,
    pub(super) migration: std::sync::Mutex<Option<JoinHandle<()>>>,
}

fn index(side: Side) -> usize {
    usize::from(side == Side::Destination)
}

impl Desk {
    pub(super) fn host(&self, side: Side) -> &dyn Host {
        match side {
            Side::Source => self.hosts.source.as_ref(),
            Side::Destination => self.hosts.destination.as_ref(),
        }
    }

    /// Carries it out and tells its end.
    pub(super) async fn carry_out(self: Arc<Self>, action: Action) {
        let reply = match self.reply(action.kind).await {
            Ok(reply) => reply,
            Err(error) => Reply::Failed(Failure::from(&error)),
        };
        let done = Input::Done {
            action: action.id,
            reply,
        };
        // The runner is gone only when the process is about to end.
        let _ = self.inputs.send(done).await;
    }

    async fn reply(self: &Arc<Self>, kind: ActionKind) -> Result<Reply, HostError> {
        let name = self.plan.domain.as_str();
        match kind {
            ActionKind::Observe { side } => {
                return Ok(Reply::Observed(Box::new(self.look(side).await?)));
            }
            ActionKind::Guest { side, call } => {
                let channel = &self.channels[index(side)];
                if channel.socket.lock().expect("no holder panics").is_none() {
                    // It may have been opened since the last look.
                    self.keep_socket(side, &self.host(side).domain(name).await?);
                }
                let policy = self.policy.as_ref();
                return Ok(channel.ask(&self.lessor, &self.plan, policy, call).await);
            }
            ActionKind::Save { side, progress } => {
                let text = progress.to_text();
                self.wrote.store(true, Ordering::Relaxed);
                if let Err(error) = self.lock.keep(Some(&text)) {
                    tracing::warn!("{error}");
                }
                self.host(side).set_progress(name, Some(&text)).await?;
            }
            ActionKind::Clear { side } => self.host(side).set_progress(name, None).await?,
            ActionKind::ClaimVf => return self.claim_vf().await,
            ActionKind::ReleaseVf => *self.vf_lock.lock().expect("no holder panics") = None,
            ActionKind::Detach { nic } => self.host(Side::Source).detach(name, &nic).await?,
            ActionKind::Attach { side } => self.attach(side).await?,
            ActionKind::Migrate => self.migrate().await?,
            ActionKind::Cancel => self.cancel().await?,
            ActionKind::Unpause => self.host(Side::Source).unpause(name).await?,
        }
        Ok(Reply::Accepted)
    }

    async fn look(&self, side: Side) -> Result<SideFacts, HostError> {
        let name = self.plan.domain.as_str();
        let host = self.host(side);
        let DomainLook {
            facts, progress, ..
        } = host.look(name).await?;
        self.keep_socket(side, &facts);
        if matches!(facts.state, DomainState::Absent | DomainState::Incoming) {
            return Ok(SideFacts {
                state: facts.state,
                nics: facts.nics,
                job: JobFacts::default(),
                record: RecordFact::Absent,
            });
        }
        let record = match progress {
            None => RecordFact::Absent,
            Some(text) => match Progress::parse(&text) {
                Ok(record) => RecordFact::Present(Box::new(record)),
                Err(error) => RecordFact::Unreadable(error.to_string()),
            },
        };
        let runs = matches!(facts.state, DomainState::Running | DomainState::Paused);
        let job = match side {
            Side::Source if runs => host.job(name, JobWhich::Current).await?,
            // Only for the report.
            Side::Destination if facts.state == DomainState::Running => {
                let job = host.job(name, JobWhich::Completed).await;
                job.unwrap_or_default()
            }
            _ => JobFacts::default(),
        };
        Ok(SideFacts {
            state: facts.state,
            nics: facts.nics,
            job,
            record,
        })
    }

    /// On the source a guest that has not opened the channel is not waited for. On the destination it is:
    /// the hypervisor may not have heard of it yet.
    fn keep_socket(&self, side: Side, facts: &DomainFacts) {
        let channel = facts.channel.as_ref();
        let open = channel.filter(|one| side == Side::Destination || one.opened != Some(false));
        let socket = open.and_then(|one| one.socket.clone());
        let kept = &self.channels[index(side)].socket;
        *kept.lock().expect("no holder panics") = socket;
    }

    /// A reservation among the processes of this machine; the host itself has none to offer, so
    /// it is asked again right before the VF is plugged in.
    async fn claim_vf(&self) -> Result<Reply, HostError> {
        let Some(vf) = &self.plan.destination_vf else {
            return Ok(Reply::Accepted);
        };
        let name = format!("{} {}", self.plan.destination_uri, vf.identity.describe());
        let held = self.vf_lock.lock().expect("no holder panics").is_some();
        if !held {
            match Lock::take(&self.folder, "vf", &name) {
                Ok(lock) => *self.vf_lock.lock().expect("no holder panics") = Some(lock),
                Err(error) => {
                    let failure = Failure::new(FailureKind::Refused, error.to_string());
                    return Ok(Reply::Failed(failure));
                }
            }
        }
        self.host(Side::Destination)
            .check_device(&vf.device)
            .await?;
        Ok(Reply::Accepted)
    }

    async fn attach(&self, side: Side) -> Result<(), HostError> {
        let Some(vf) = self.plan.vf(side) else {
            return Ok(());
        };
        let host = self.host(side);
        host.check_device(&vf.device).await?;
        host.attach(&self.plan.domain, &vf.device).await
    }

    async fn migrate(self: &Arc<Self>) -> Result<(), HostError> {
        let mut options = self.migrate.clone();
        if let (Some(xml), Some(record)) = (&options.xml, self.lock.record()) {
            // libvirt takes the metadata from that file: without the record in it, a recovery
            // would not find it on the destination.
            let with_record = with_progress(xml, &record.to_text());
            options.xml = Some(with_record.map_err(|error| HostError::InvalidXml {
                domain: self.plan.domain.clone(),
                reason: format!("--xml: {error}"),
            })?);
        }
        let source = self.host(Side::Source);
        let started = source.migrate(&self.plan.domain, &self.plan.destination_uri, &options);
        let mut migration: Box<dyn Migration> = started.await?;
        let inputs = self.inputs.clone();
        let task = tokio::spawn(async move {
            let result = migration.finished().await;
            let result = result.map_err(|error| Failure::from(&error));
            let _ = inputs.send(Input::MigrationEnded(result)).await;
        });
        *self.migration.lock().expect("no holder panics") = Some(task);
        Ok(())
    }

    /// Where the hypervisor has no migration to cancel, or can't be asked, the handle is given up,
    /// which ends what it stands for.
    async fn cancel(&self) -> Result<(), HostError> {
        let cancelled = self.host(Side::Source).cancel(&self.plan.domain).await;
        if cancelled.is_err() {
            let task = self.migration.lock().expect("no holder panics").take();
            if let Some(task) = task.filter(|task| !task.is_finished()) {
                task.abort();
                let failure = Failure::new(FailureKind::Cancelled, "the migration was given up");
                let _ = self.inputs.send(Input::MigrationEnded(Err(failure))).await;
            }
        }
        cancelled
    }
}
