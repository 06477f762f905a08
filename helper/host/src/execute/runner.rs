//! The loop: do what the evacuation wants, wait for whatever comes first.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::calls::ActionContext;
use super::hosts::Hosts;
use super::lock::Lock;
use super::records::Records;
use crate::carry::CarrySettings;
use crate::control::LeaseClient;
use crate::evacuate::{Evacuation, Input, Outcome, Side};
use crate::hypervisor::{EventKind, MigrateOptions};

/// Inputs that wait; every sender waits for room.
const QUEUE: usize = 256;

/// How often it was asked to stop. Who comes late hears of it too.
pub type Stops = watch::Receiver<u32>;

/// Sees how it goes on.
pub trait Watcher {
    /// Something may have changed; `now_ms` since the start.
    fn show(&mut self, evacuation: &Evacuation, now_ms: u64);
    /// Something to tell people at once.
    fn say(&mut self, text: &str);
}

/// What an evacuation runs on.
#[derive(Debug)]
pub struct Runner {
    /// Both hosts.
    pub hosts: Hosts,
    /// How to migrate.
    pub migrate: MigrateOptions,
    /// The bonds of the domain's XML, for the guest.
    pub policy: Option<tandem_core::Policy>,
    /// Where lock files are.
    pub folder: PathBuf,
    /// The domain's.
    pub lock: Lock,
    /// Where the record is kept; `None` if a recovery makes its plan anew each time.
    pub records: Option<Records>,
    /// The carry that is wanted, if one is.
    pub carry: Option<CarrySettings>,
    /// The way to the guest's channel.
    pub lease_client: LeaseClient,
}

/// How the loop ended.
#[derive(Debug)]
pub enum RunEnd {
    /// The evacuation came to an end.
    With(Box<Outcome>),
    /// The operator did not want to wait for it; a recovery is needed.
    Left {
        /// Where the domain stays, once that is decided.
        runs_on: Option<Side>,
    },
}

impl Runner {
    /// Runs the evacuation to its end. A first request to stop rolls back, a second one leaves at once.
    pub async fn run(
        self,
        mut evacuation: Evacuation,
        mut stops: Stops,
        watcher: &mut (dyn Watcher + Send),
    ) -> RunEnd {
        let (inputs, mut incoming) = mpsc::channel(QUEUE);
        let begun = Instant::now();
        let context = Arc::new(ActionContext {
            spec: evacuation.spec().clone(),
            hosts: self.hosts,
            migrate: self.migrate,
            policy: self.policy,
            folder: self.folder,
            _lock: self.lock,
            records: self.records,
            lease_client: self.lease_client,
            wrote: AtomicBool::new(false),
            saved: std::sync::Mutex::new(None),
            channels: Default::default(),
            warnings: Default::default(),
            inputs,
            vf_locks: Default::default(),
            migration: std::sync::Mutex::new(None),
            carry: self.carry,
            prepared_carry: std::sync::Mutex::new(None),
            job_seen: AtomicBool::new(false),
            uuid: Default::default(),
            name_of_uuid: Default::default(),
            action_limit: Duration::from_millis(evacuation.action_limit_ms()),
        });
        let listeners = Side::BOTH.map(|side| tokio::spawn(listen(Arc::clone(&context), side)));
        let mut stopped = 0;
        let ended = loop {
            let now_ms = elapsed_ms(begun);
            watcher.show(&evacuation, now_ms);
            if let Some(outcome) = evacuation.outcome() {
                let mut outcome = outcome.clone();
                outcome.warnings = context.warnings.take();
                break RunEnd::With(Box::new(outcome));
            }
            if let Some(action) = evacuation.next_action() {
                tracing::debug!(?action, "does");
                tokio::spawn(Arc::clone(&context).carry_out(action));
            }
            let deadline_ms = evacuation.next_deadline().unwrap_or(u64::MAX);
            let deadline = begun + Duration::from_millis(deadline_ms.min(now_ms + 3_600_000));
            let input = tokio::select! {
                Some(input) = incoming.recv() => input,
                () = tokio::time::sleep_until(deadline) => Input::Tick,
                () = more_than(stopped, &mut stops) => {
                    stopped += 1;
                    if stopped > 1 {
                        break RunEnd::Left { runs_on: evacuation.residence() };
                    }
                    watcher.say("stopping; the domain is left in order (once more: leave at once)");
                    Input::Abort
                }
            };
            tracing::debug!(?input, "learns");
            evacuation.handle(elapsed_ms(begun), input);
        };
        for listener in listeners {
            listener.abort();
            // Whatever it holds is let go of by then.
            let _ = listener.await;
        }
        if matches!(ended, RunEnd::With(_)) {
            context.leave_carry().await;
        }
        if evacuation.is_over()
            && context.wrote.load(Ordering::Relaxed)
            && let Some(records) = &context.records
            && let Err(error) = records.forget(&context.spec.domain)
        {
            watcher.say(&error.to_string());
        }
        ended
    }
}

fn elapsed_ms(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Waits until it was asked once more; for ever, if nobody is left who could.
async fn more_than(stopped: u32, stops: &mut Stops) {
    if stops.wait_for(|asked| *asked > stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Hands on what happens to the domain. Without events, looks at intervals find out too.
async fn listen(context: Arc<ActionContext>, side: Side) {
    let mut events = match context.hosts.seen(side).events().await {
        Ok(events) => events,
        Err(error) => {
            tracing::warn!("no events of the {}: {error}", side.as_str());
            return;
        }
    };
    while let Some(event) = events.next().await {
        let ours = event
            .domain
            .is_none_or(|name| name == context.spec.name(side));
        let kind: EventKind = event.kind;
        if ours
            && context
                .inputs
                .send(Input::Event { side, kind })
                .await
                .is_err()
        {
            return;
        }
    }
}
