//! One action, carried out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio::time::timeout;

use super::guest::{Channel, Warnings};
use super::hosts::Hosts;
use super::lock::Lock;
use super::record::with_progress;
use super::records::Records;
use crate::carry::{CarrySettings, Prepared};
use crate::control::LeaseClient;
use crate::evacuate::{
    Action, ActionKind, ClaimFact, Failure, FailureKind, Input, Namesake, Owner, Progress,
    RecordFact, Reply, Side, SideFacts, Spec, Vf,
};
use crate::hypervisor::{
    Claim, DomainFacts, DomainLook, DomainState, HostError, JobFacts, JobWhich, MigrateOptions,
    Migration, machine_of,
};
use crate::xml::device::network_of;

/// Everything that an action may need. Shared by the tasks that carry actions out.
#[derive(Debug)]
pub(super) struct ActionContext {
    pub(super) hosts: Hosts,
    pub(super) spec: Spec,
    pub(super) migrate: MigrateOptions,
    pub(super) policy: Option<tandem_core::Policy>,
    pub(super) folder: std::path::PathBuf,
    /// Held for as long as anything is done.
    pub(super) _lock: Lock,
    pub(super) records: Option<Records>,
    /// This host's own record is this process's.
    pub(super) wrote: AtomicBool,
    /// The record in the metadata, as it was written last.
    pub(super) saved: std::sync::Mutex<Option<String>>,
    pub(super) channels: [Channel; 2],
    pub(super) warnings: Warnings,
    pub(super) lease_client: LeaseClient,
    pub(super) inputs: mpsc::Sender<Input>,
    /// Reservations of the destination's devices, by their numbers in the spec.
    pub(super) vf_locks: std::sync::Mutex<BTreeMap<usize, Lock>>,
    /// Gives up the handle on the migration.
    pub(super) migration: std::sync::Mutex<Option<oneshot::Sender<()>>>,
    /// The carry that is wanted.
    pub(super) carry: Option<CarrySettings>,
    /// The carry that waits for the migration to begin.
    pub(super) prepared_carry: std::sync::Mutex<Option<Prepared>>,
    /// A look at the source showed a migration.
    pub(super) job_seen: AtomicBool,
    /// The domain's UUID, as the source showed it first.
    pub(super) uuid: OnceLock<String>,
    /// The name that it had on the destination before.
    pub(super) name_of_uuid: OnceCell<Option<String>>,
    /// No action takes longer.
    pub(super) action_limit: Duration,
}

fn claim_fact(claim: Claim) -> ClaimFact {
    let owner = Owner::parse(&claim.text);
    ClaimFact {
        owner: owner.filter(|owner| owner.token == claim.token),
        token: claim.token,
    }
}

fn index(side: Side) -> usize {
    usize::from(side == Side::Destination)
}

impl ActionContext {
    /// Carries it out and tells its end.
    pub(super) async fn carry_out(self: Arc<Self>, action: Action) {
        let is_migration = matches!(action.kind, ActionKind::Migrate);
        // An action that was given up must not go on next to the one that comes after it.
        let reply = match timeout(self.action_limit, self.reply(action.kind)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => Reply::Failed(Failure::from(&error)),
            Err(_) => {
                let seconds = self.action_limit.as_secs();
                let text = format!("it did not end within {seconds} s and was given up");
                Reply::Failed(Failure::new(FailureKind::TimedOut, text))
            }
        };
        if is_migration && let Reply::Failed(failure) = &reply {
            self.give_up_carry(&failure.message).await;
        }
        let done = Input::Done {
            action: action.id,
            reply,
        };
        // The runner is gone only when the process is about to end.
        let _ = self.inputs.send(done).await;
    }

    async fn reply(self: &Arc<Self>, kind: ActionKind) -> Result<Reply, HostError> {
        let name = self.spec.name(kind.side());
        match kind {
            ActionKind::Observe { side } => {
                return Ok(Reply::Observed(Box::new(self.look(side).await?)));
            }
            ActionKind::Guest { side, call } => {
                let channel = &self.channels[index(side)];
                if channel.socket.lock().expect("no holder panics").is_none() {
                    // It may have been opened since the last look.
                    self.keep_socket(side, &self.hosts.seen(side).look(name).await?.facts);
                }
                let policy = self.policy.as_ref();
                let warnings = &self.warnings;
                return Ok(channel
                    .ask(&self.lease_client, name, &self.spec, policy, warnings, call)
                    .await);
            }
            ActionKind::Claim { side, owner } => {
                let text = owner.to_text();
                let token = owner.token;
                let claim = Claim { token, text };
                self.hosts.at(side)?.set_claim(name, &claim).await?;
            }
            ActionKind::Unclaim { side, token } => {
                let text = String::new();
                let claim = Claim { token, text };
                self.hosts.at(side)?.set_claim(name, &claim).await?;
            }
            ActionKind::Save { side, record } => {
                // First here: what is in the metadata is of no use without.
                if let Some(records) = &self.records {
                    if let Err(error) = records.keep(&record) {
                        let failure = Failure::new(FailureKind::Refused, error.to_string());
                        return Ok(Reply::Failed(failure));
                    }
                    self.wrote.store(true, Ordering::Relaxed);
                }
                let text = record.progress.to_text();
                *self.saved.lock().expect("no holder panics") = Some(text.clone());
                self.hosts.at(side)?.set_progress(name, Some(&text)).await?;
            }
            ActionKind::Clear { side } => self.hosts.at(side)?.set_progress(name, None).await?,
            ActionKind::ClaimVf { device } => return self.claim_vf(device).await,
            ActionKind::CheckVf { device } => self.check_vf(device).await?,
            ActionKind::ReleaseVfs => self.vf_locks.lock().expect("no holder panics").clear(),
            ActionKind::Detach { nic, .. } => {
                self.hosts.at(Side::Source)?.detach(name, &nic).await?;
            }
            ActionKind::Attach { side, device } => self.attach(side, device).await?,
            ActionKind::Migrate => self.migrate(false).await?,
            ActionKind::ResumeMemory => self.migrate(true).await?,
            ActionKind::Cancel => self.cancel().await?,
            ActionKind::Unpause { side } => self.hosts.at(side)?.unpause(name).await?,
            ActionKind::Carry => return Ok(self.stand_ready().await),
        }
        Ok(Reply::Accepted)
    }

    async fn look(&self, side: Side) -> Result<SideFacts, HostError> {
        let name = self.spec.name(side);
        let host = self.hosts.seen(side);
        let DomainLook {
            facts,
            progress,
            claims,
            ..
        } = host.look(name).await?;
        self.keep_socket(side, &facts);
        let in_the_way = self.in_the_way(side, &facts).await;
        if matches!(facts.state, DomainState::Absent | DomainState::Incoming) {
            return Ok(SideFacts {
                state: facts.state,
                nics: facts.nics,
                job: JobFacts::default(),
                record: RecordFact::Absent,
                claims: Vec::new(),
                in_the_way,
            });
        }
        let record = match progress {
            None => RecordFact::Absent,
            Some(text) => match Progress::parse_for(&text, name) {
                Ok(record) => RecordFact::Present(Box::new(record)),
                Err(error) => RecordFact::Unreadable(error.to_string()),
            },
        };
        let runs = matches!(facts.state, DomainState::Running | DomainState::Paused);
        let job: JobFacts = match side {
            Side::Source if runs => host.job(name, JobWhich::Current).await?,
            // Only for the report.
            Side::Destination if facts.state == DomainState::Running => {
                let job = host.job(name, JobWhich::Completed).await;
                job.unwrap_or_default()
            }
            _ => JobFacts::default(),
        };
        if side == Side::Source && job.is_under_way() {
            self.job_seen.store(true, Ordering::Relaxed);
        }
        Ok(SideFacts {
            state: facts.state,
            nics: facts.nics,
            job,
            record,
            claims: claims.into_iter().map(claim_fact).collect(),
            in_the_way,
        })
    }

    /// Who else has the name or the UUID on the destination: libvirt takes no second one
    /// (`virDomainObjListAddLocked`, `src/conf/virdomainobjlist.c`, libvirt 11.3).
    async fn in_the_way(&self, side: Side, facts: &DomainFacts) -> Option<Namesake> {
        if side == Side::Source {
            if !facts.uuid.is_empty() {
                // Of a look that came before it is the same.
                let _ = self.uuid.set(facts.uuid.clone());
            }
            return None;
        }
        let uuid = self.uuid.get()?;
        // A plain QEMU that waits for the domain has none of its own.
        if !facts.uuid.is_empty() && facts.state != DomainState::Incoming {
            let is_another = facts.uuid != *uuid;
            return is_another.then(|| Namesake::OfName(facts.uuid.clone()));
        }
        if facts.state != DomainState::Absent {
            return None;
        }
        // Once: it costs a slow host a call.
        let ask = || async { self.hosts.destination.name_of(uuid).await.ok().flatten() };
        let name = self.name_of_uuid.get_or_init(ask).await.as_ref()?;
        let is_another = name != self.spec.name(Side::Destination);
        is_another.then(|| Namesake::OfUuid(name.clone()))
    }

    /// On the source a guest that has not opened the channel is not waited for. On the destination it is:
    /// the hypervisor may not have heard of it yet.
    fn keep_socket(&self, side: Side, facts: &DomainFacts) {
        let channel = facts.channel.as_ref();
        let open = channel.filter(|one| side == Side::Destination || one.opened != Some(false));
        let socket = open.and_then(|one| one.socket.clone());
        let kept = &self.channels[index(side)];
        *kept.socket.lock().expect("no holder panics") = socket;
        let refused = channel.and_then(|one| one.refused.clone());
        *kept.refused.lock().expect("no holder panics") = refused;
    }

    /// A reservation among the processes of this machine; the host itself has none to offer. A function that
    /// somebody else took meanwhile the hypervisor refuses to plug in.
    async fn claim_vf(&self, device: usize) -> Result<Reply, HostError> {
        let Some(vf) = self.vf(Side::Destination, device) else {
            return Ok(Reply::Accepted);
        };
        let machine = machine_of(&self.spec.destination_uri);
        let name = match vf.identity.pci {
            Some(_) => format!("{machine} {}", vf.identity.describe()),
            // Its alias or MAC means something within its domain only.
            None => format!("{machine} {} {}", self.spec.domain, vf.identity.describe()),
        };
        let held = |locks: &BTreeMap<usize, Lock>| locks.contains_key(&device);
        if !held(&self.vf_locks.lock().expect("no holder panics")) {
            match Lock::take(&self.folder, "vf", &name) {
                Ok(lock) => {
                    let mut locks = self.vf_locks.lock().expect("no holder panics");
                    locks.insert(device, lock);
                }
                Err(error) => {
                    let failure = Failure::new(FailureKind::Refused, error.to_string());
                    return Ok(Reply::Failed(failure));
                }
            }
        }
        self.check_vf(device).await?;
        Ok(Reply::Accepted)
    }

    async fn check_vf(&self, device: usize) -> Result<(), HostError> {
        let Some(vf) = self.vf(Side::Destination, device) else {
            return Ok(());
        };
        let network = network_of(&vf.device);
        let devices = self.spec.devices.iter();
        let arriving = devices.filter_map(|one| one.vf(Side::Destination));
        let together = arriving.filter(|one| network_of(&one.device) == network);
        let together = together.count();
        self.hosts
            .destination
            .check_device(&vf.device, together)
            .await
    }

    async fn attach(&self, side: Side, device: usize) -> Result<(), HostError> {
        let Some(vf) = self.vf(side, device) else {
            return Ok(());
        };
        let host = self.hosts.at(side)?;
        host.attach(self.spec.name(side), &vf.device).await
    }

    fn vf(&self, side: Side, device: usize) -> Option<&Vf> {
        self.spec.devices.get(device)?.vf(side)
    }

    async fn migrate(self: &Arc<Self>, resume_postcopy: bool) -> Result<(), HostError> {
        let mut options = self.migrate.clone();
        options.resume_postcopy = resume_postcopy;
        let saved = self.saved.lock().expect("no holder panics").clone();
        if let (Some(xml), Some(record)) = (&options.xml, saved) {
            // libvirt takes the metadata from that file: without the record in it, a recovery
            // would not find it on the destination.
            let with_record = with_progress(xml, &record);
            options.xml = Some(with_record.map_err(|error| HostError::InvalidXml {
                domain: self.spec.domain.clone(),
                reason: format!("--xml: {error}"),
            })?);
        }
        let source = self.hosts.at(Side::Source)?;
        let started = source.migrate(&self.spec.domain, &self.spec.destination_uri, &options);
        let mut migration: Box<dyn Migration> = started.await?;
        let (tell_carry, ended_for_carry) = oneshot::channel();
        self.conduct(ended_for_carry);
        let inputs = self.inputs.clone();
        let (give_up, given_up) = oneshot::channel();
        *self.migration.lock().expect("no holder panics") = Some(give_up);
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = migration.finished() => Some(ended),
                Ok(()) = given_up => None,
            };
            let result = match ended {
                Some(ended) => ended.map_err(|error| Failure::from(&error)),
                None => {
                    let _ = migration.give_up().await;
                    let text = "the migration was given up before it began";
                    Err(Failure::new(FailureKind::Cancelled, text))
                }
            };
            // Nobody listens where nothing is carried.
            let _ = tell_carry.send(result.is_ok());
            let _ = inputs.send(Input::MigrationEnded(result)).await;
        });
        Ok(())
    }

    /// A handle on a migration that has not begun, such as a `virsh` that waits for the destination, is
    /// given up. Any other is left alone, whatever the hypervisor says: in post-copy its end could be
    /// the guest's.
    async fn cancel(&self) -> Result<(), HostError> {
        let source = self.hosts.at(Side::Source)?;
        let cancelled = source.cancel(&self.spec.domain).await;
        if cancelled.is_err() && self.has_not_begun().await {
            let give_up = self.migration.lock().expect("no holder panics").take();
            if let Some(give_up) = give_up {
                // Refused by one that has ended.
                let _ = give_up.send(());
            }
        }
        cancelled
    }

    /// No look ever showed a migration, and one of now shows that the domain runs without.
    async fn has_not_begun(&self) -> bool {
        let Ok(facts) = self.look(Side::Source).await else {
            return false;
        };
        let idle = facts.state == DomainState::Running && !facts.job.is_under_way();
        idle && !self.job_seen.load(Ordering::Relaxed)
    }
}
