//! Carries out the machine's actions; the only place that changes the kernel.
//!
//! Each action runs on a thread of its own, with sockets of its own: a netlink
//! request is carried out in the caller's context, and a driver may hold the
//! kernel's RTNL lock for seconds (iavf waits up to 2.5 s for its PF when a MAC is
//! set), in which the service's own thread has to go on.

mod addressing;
mod announce;
mod ask;
mod assign;
mod bond;
mod broadcast;
mod clone;
mod error;
mod fast_path;
pub mod left_over;
mod link;
mod listen;
mod local;
mod neighbours;
mod nexthop;
mod path_check;

#[cfg(fuzzing)]
pub(crate) use nexthop::NextHop;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tandem_core::Input;
use tandem_core::action::{Action, ActionId, ActionKind, Asking};
use tandem_core::input::{Outcome, Source};

use crate::ebpf::fast_path::FastPaths;
use crate::netlink::request::Requests;
use crate::observe::{Completion, Touched};
use error::ActError;
use link::present;

/// Longest time that an action may take.
pub const LIMIT: Duration = Duration::from_secs(5);
/// Threads at most that end with the question that they put: the kernel may keep one beyond its limit.
const MOST_OWN_THREADS: usize = 8;

/// Carries out actions, each within a time limit.
#[derive(Clone)]
pub struct Executor {
    limit: Duration,
    fast_paths: Option<FastPaths>,
    own_threads: Arc<AtomicUsize>,
}

impl Executor {
    /// An executor with the usual time limit.
    pub fn new() -> Self {
        Self {
            limit: LIMIT,
            fast_paths: None,
            own_threads: Arc::default(),
        }
    }

    /// Takes the fast-path programs, once they are loaded; until then actions that
    /// are about them fail.
    pub fn use_fast_paths(&mut self, fast_paths: Option<FastPaths>) {
        self.fast_paths = fast_paths;
    }

    /// Starts an action. The future ends within the time limit; hand its result to
    /// [`crate::observe::Sources::complete`], which reads what was touched and then
    /// yields the `Input::Done`. Actions that are started one after the other run
    /// side by side.
    ///
    /// `Observe` of the eBPF monitor and of the channel is not for the executor;
    /// `Observe` of the others is answered at once.
    ///
    /// Has to be called within a tokio runtime. An action that has run into its
    /// time limit keeps its thread until the kernel lets it go, so end the runtime
    /// with `shutdown_background`.
    pub fn start(&self, action: Action) -> impl Future<Output = Completion> + Send + 'static {
        let Action { id, kind } = action;
        let limit = self.limit;
        let touched = touched_by(&kind);
        let fast_paths = self.fast_paths.clone();
        // Made again and again while nothing happens: no thread is woken for it where none is needed.
        let looks = match (&kind, &fast_paths) {
            (
                ActionKind::ReadTraffic {
                    bond,
                    port,
                    go_on,
                    anew: false,
                },
                Some(fast_paths),
            ) => fast_path::look(fast_paths, *bond, *port, *go_on),
            _ => None,
        };
        let work = looks.ok_or_else(|| {
            let is_question = matches!(kind, ActionKind::AskPath { .. });
            let work = move || {
                let mut inputs = Vec::new();
                let result = carry_out(id, &kind, fast_paths.as_ref(), &mut inputs);
                (result, inputs)
            };
            match is_question {
                true => on_its_own(&self.own_threads, work),
                false => pooled(work),
            }
        });
        async move {
            let (outcome, learnt) = match work {
                Ok(looks) => {
                    let found = looks.end().await;
                    (Outcome::Accepted, vec![Input::PortTraffic(found)])
                }
                Err(work) => outcome_within(limit, work).await,
            };
            Completion {
                action: id,
                outcome,
                learnt,
                touched,
            }
        }
    }
}

impl Default for Executor {
    fn default() -> Self {
        Self::new()
    }
}

/// On a thread that others use after it: it is woken to wait for them, and to end.
fn pooled(work: impl FnOnce() -> Done + Send + 'static) -> Work {
    let work = tokio::task::spawn_blocking(work);
    Box::pin(async { work.await.map_err(|error| error.to_string()) })
}

/// On a thread that ends with it: that wakes a guest at rest no more often than the work does. `threads` are those that there are.
fn on_its_own(threads: &Arc<AtomicUsize>, work: impl FnOnce() -> Done + Send + 'static) -> Work {
    /// Given back when the thread ends, whatever ends it.
    struct Place(Arc<AtomicUsize>);
    impl Drop for Place {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let (done, ended) = tokio::sync::oneshot::channel();
    let is_free = threads.fetch_add(1, Ordering::Relaxed) < MOST_OWN_THREADS;
    let place = Place(Arc::clone(threads));
    let thread = std::thread::Builder::new().name("tandem-ask".to_owned());
    let work = move || {
        let _place = place;
        // Nobody waits any more once the limit is over.
        done.send(work()).is_ok()
    };
    let started = match is_free {
        true => thread
            .spawn(work)
            .map_err(|error| format!("no thread for it: {error}")),
        false => Err("the kernel holds earlier ones back".to_owned()),
    };
    Box::pin(async {
        started?;
        ended.await.map_err(|_| "it panicked".to_owned())
    })
}

/// Waits for an action, but not longer than the limit.
async fn outcome_within(limit: Duration, work: Work) -> (Outcome, Vec<Input>) {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok((Ok(()), inputs))) => (Outcome::Accepted, inputs),
        Ok(Ok((Err(error), inputs))) => (error.into_outcome(), inputs),
        Ok(Err(error)) => {
            let message = format!("the action ended abnormally: {error}");
            (Outcome::Failed { errno: 0, message }, Vec::new())
        }
        Err(_) => (Outcome::TimedOut, Vec::new()),
    }
}

/// How an action ended, and what was learnt in passing.
type Done = (Result<(), ActError>, Vec<Input>);

/// An action under way. An error says that it ended abnormally.
type Work = Pin<Box<dyn Future<Output = Result<Done, String>> + Send>>;

fn carry_out(
    id: ActionId,
    kind: &ActionKind,
    fast_paths: Option<&FastPaths>,
    inputs: &mut Vec<Input>,
) -> Result<(), ActError> {
    if let ActionKind::SetFastPath { bond, fast_path } = kind
        && fast_path.is_nothing()
    {
        inputs.extend(fast_path::let_go(fast_paths, *bond, id));
        return Ok(());
    }
    let mut requests = Requests::open().map_err(ActError::at("open a netlink socket"))?;
    fast_path::expect_both(fast_paths, kind);
    let result = match kind {
        ActionKind::SetFastPath { bond, fast_path } => {
            fast_path::set(&mut requests, fast_paths, *bond, fast_path, id, inputs)
        }
        ActionKind::ReadFrames { bond, ports } => fast_path::read(fast_paths, *bond, ports, inputs),
        ActionKind::ReadTraffic {
            bond, port, anew, ..
        } => {
            inputs.extend(fast_path::test(&mut requests, fast_paths, *bond, *anew));
            fast_path::read_traffic(&mut requests, fast_paths, *port, inputs)
        }
        ActionKind::AskPath {
            bond,
            port,
            other,
            how,
        } => {
            let asked = match how {
                Asking::OnTrial => ask::try_out(&mut requests, *bond, *port, *other),
                Asking::Fully | Asking::Briefly => {
                    ask::ask_path(&mut requests, *bond, [*port, *other], *how)
                }
            };
            let asked = asked.map(|answer| {
                inputs.push(Input::PathAsked {
                    bond: *bond,
                    port: *port,
                    answer,
                });
            });
            if *how != Asking::OnTrial {
                // In passing: this thread is there, and nothing else wakes one while the bond is at rest. Not before the
                // question: a dead path has to be left, and what came of an order in the meantime is not to be overwritten.
                inputs.extend(fast_path::test(&mut requests, fast_paths, *bond, false));
            }
            asked
        }
        _ => attempt(&mut requests, kind),
    };
    let Err(error) = result else {
        return Ok(());
    };
    // A device that vanished shows in many ways; a request that names it as a
    // bond's new member gets EINVAL, for instance.
    for device in kind.devices() {
        if matches!(present(&mut requests, device), Err(ActError::Gone)) {
            return Err(ActError::Gone);
        }
    }
    Err(error)
}

fn attempt(requests: &mut Requests, kind: &ActionKind) -> Result<(), ActError> {
    match *kind {
        ActionKind::CreateBond {
            ref name,
            mac,
            options,
        } => bond::create(requests, name, mac, &options),
        ActionKind::SetBondOptions { bond, options } => bond::set_options(requests, bond, &options),
        ActionKind::SetPrimary { bond, port } => bond::set_primary(requests, bond, port),
        ActionKind::SetAdminUp { link, up } => link::set_admin_up(requests, link, up),
        ActionKind::SetMtu { link, mtu } => link::set_mtu(requests, link, mtu),
        ActionKind::SetMac { link, mac } => link::set_mac(requests, link, mac),
        ActionKind::CheckFree { port, bond } => link::check_free(requests, port, bond),
        ActionKind::Enslave { port, bond } => link::enslave(requests, port, bond),
        ActionKind::Release { port, bond } => link::release(requests, port, bond),
        ActionKind::MoveAddressing { from, to } => addressing::r#move(requests, from, to),
        ActionKind::AddAddressing {
            link,
            ref addresses,
            ref routes,
        } => assign::add(requests, link, addresses, routes),
        ActionKind::FlushAddressing { link } => addressing::flush(requests, link),
        ActionKind::Announce { bond, port } => announce::announce(requests, bond, port),
        ActionKind::CheckPath {
            bond,
            from,
            to,
            proof,
        } => path_check::check_path(requests, bond, from, to, proof),
        ActionKind::Observe {
            source: Source::Links | Source::Addressing | Source::Udev,
        } => Ok(()),
        ActionKind::SetFastPath { .. }
        | ActionKind::ReadFrames { .. }
        | ActionKind::ReadTraffic { .. }
        | ActionKind::AskPath { .. }
        | ActionKind::Observe { .. } => Err(ActError::Refused {
            errno: 0,
            message: "not an action of the executor".to_owned(),
        }),
    }
}

/// What has to be read after an action, whatever came of it.
fn touched_by(kind: &ActionKind) -> Touched {
    match *kind {
        // Its index is not known yet.
        ActionKind::CreateBond { .. } => Touched {
            source: Some(Source::Links),
            ..Touched::default()
        },
        ActionKind::Observe { source } => Touched {
            source: Some(source),
            ..Touched::default()
        },
        ActionKind::Announce { .. }
        | ActionKind::CheckFree { .. }
        | ActionKind::CheckPath { .. }
        | ActionKind::SetFastPath { .. }
        | ActionKind::ReadFrames { .. }
        | ActionKind::ReadTraffic { .. }
        | ActionKind::AskPath { .. } => Touched::default(),
        ActionKind::MoveAddressing { .. }
        | ActionKind::AddAddressing { .. }
        | ActionKind::FlushAddressing { .. } => Touched {
            addressing: kind.devices(),
            ..Touched::default()
        },
        // Opening and closing a link makes and removes addresses and routes.
        ActionKind::SetAdminUp { .. } | ActionKind::Enslave { .. } | ActionKind::Release { .. } => {
            Touched {
                links: kind.devices(),
                addressing: kind.devices(),
                source: None,
            }
        }
        ActionKind::SetBondOptions { .. }
        | ActionKind::SetMtu { .. }
        | ActionKind::SetMac { .. }
        | ActionKind::SetPrimary { .. } => Touched {
            links: kind.devices(),
            ..Touched::default()
        },
    }
}

#[cfg(test)]
mod tests;
