//! The service over a fake hypervisor and fake guests.

mod degraded;
mod fake;
mod follow;
mod foreign;
mod guest;
mod hostile;
mod lease;
mod web;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Options, ServeError, serve};
use crate::control::{ControlReply, ControlRequest, Shown, Watching};
use crate::hypervisor::{DomainEvent, EventKind, Host};
use fake::Fake;
use guest::{Guest, Manner};

/// A service, with all that it is asked for in one folder.
struct Service {
    folder: tempfile::TempDir,
    fake: Arc<Fake>,
    end: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

/// The folder in which a service and its guests will be.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

impl Service {
    /// One for these guests, in the folder where they are.
    fn new(folder: tempfile::TempDir, guests: &[(&str, &Guest)]) -> Self {
        let domains: Vec<_> = guests
            .iter()
            .map(|(name, guest)| (*name, guest.socket.as_path()))
            .collect();
        Self::over(folder, Fake::new(&domains), Options::default())
    }

    /// One for an honest guest of the domain g1.
    fn of_one() -> (Self, Guest) {
        let folder = folder();
        let guest = Guest::new(&folder.path().join("g1"), Manner::Honest);
        (Self::new(folder, &[("g1", &guest)]), guest)
    }

    fn over(folder: tempfile::TempDir, fake: Arc<Fake>, options: Options) -> Self {
        let options = Options {
            metrics: Some(folder.path().join("tandem.prom")),
            socket: Some(folder.path().join("serve.sock")),
            ..options
        };
        let (end, ended) = oneshot::channel::<()>();
        let host: Arc<dyn Host> = Arc::<Fake>::clone(&fake);
        let task = tokio::spawn(serve(host, options, async {
            let _ = ended.await;
        }));
        Self {
            folder,
            fake,
            end,
            task,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("serve.sock")
    }

    /// The hypervisor tells of a domain.
    fn happens(&self, domain: &str, kind: EventKind) {
        self.fake.happens(DomainEvent::of(domain, kind));
    }

    async fn ask(&self, request: ControlRequest) -> Watching {
        loop {
            // The service begins as a task of its own.
            match Watching::ask(&self.socket(), &request).await {
                Ok(connection) => return connection,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    /// All changes of a domain, beginning with what is known.
    async fn watch(&self, domain: &str) -> Watching {
        self.ask(ControlRequest::Watch {
            uri: "fake".to_owned(),
            domain: Some(domain.to_owned()),
        })
        .await
    }

    /// All changes since its guest first answered.
    async fn watch_answering(&self, domain: &str) -> Watching {
        let mut watching = self.watch(domain).await;
        seen(&mut watching, |shown| generation(shown) == 1).await;
        watching
    }

    async fn lease(&self, domain: &str) -> Watching {
        let domain = domain.to_owned();
        let mut lease = self.ask(ControlRequest::Lease { domain }).await;
        assert_eq!(lease.next().await.unwrap(), ControlReply::Leased {});
        lease
    }

    async fn ends(self) -> tempfile::TempDir {
        self.end.send(()).unwrap();
        self.task.await.unwrap().unwrap();
        self.folder
    }
}

/// Waits until a domain is told to be so.
async fn seen(watching: &mut Watching, so: impl Fn(&Shown) -> bool) -> Shown {
    loop {
        let reply = watching.next_within(LONG).await;
        if let ControlReply::Domain(shown) = reply.expect("it was never so")
            && so(&shown)
        {
            return *shown;
        }
    }
}

fn generation(shown: &Shown) -> u64 {
    let guest = shown.report.guest.as_ref();
    guest.map_or(0, |guest| guest.status.generation)
}

/// Beyond the longest wait between two attempts; the clock of most tests runs free.
const LONG: Duration = Duration::from_secs(3 * 3600);
const PATIENCE: Duration = Duration::from_secs(20);
