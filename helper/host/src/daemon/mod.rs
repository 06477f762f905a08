//! Cares for all domains of a host: gives each guest its bonds once per boot, keeps what it says,
//! and plugs in the VF of one that came without it.
//!
//! ```text
//! hypervisor's events --> supervisor --DesiredState--> channel task --> registry --> control socket,
//!                             |                          (one a guest)               metrics
//!                             +--> replug                     ^
//!                                                             +-- leases of other tools
//! ```
//!
//! A channel task stays connected to its guest and subscribes, so that a change is known at once. A
//! channel takes one client at a time: other tools ask for a lease of it (see [`crate::control`]),
//! and the channel task hangs up for as long as they have it.

mod carries;
mod channel_task;
mod claims;
mod control_socket;
mod domain_task;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http;
mod lease;
mod manager;
mod metrics;
mod options;
mod registry;
mod replug;
mod sources;
mod supervisor;
#[cfg(test)]
mod tests;
mod told;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::task::JoinSet;

use crate::files::{Lasts, Readers, replace};
use crate::hypervisor::Host;
use control_socket::{Answers, ControlSocket};
use lease::HostLeases;
pub use metrics::{Metric, metrics};
pub use options::{Options, ServeError, Sources};
use registry::Registry;
use supervisor::Supervisor;

/// The file of metrics is not written oftener than this.
const PUBLISH_GAP: Duration = Duration::from_secs(5);

/// Serves until `stop` ends.
///
/// # Errors
/// If the hypervisor has no events at all, or socket or port can't be had. A hypervisor that can't
/// be reached is tried again.
pub async fn serve(
    host: Arc<dyn Host>,
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    allow_many_files();
    let registry = Arc::new(Registry::new());
    let host_leases = Arc::new(HostLeases::default());
    let mut tasks = JoinSet::new();
    if let Some(address) = options.listen {
        let listener = http::open(address).await?;
        tasks.spawn(http::serve(listener, Arc::clone(&registry)));
    }
    if let Some(path) = &options.socket {
        let answers = Answers {
            uri: host.uri().to_owned(),
            registry: Arc::clone(&registry),
            host_leases: Arc::clone(&host_leases),
        };
        tasks.spawn(ControlSocket::open(path)?.serve(answers));
    }
    if let Some(path) = options.metrics.clone() {
        tasks.spawn(publish_changes(path, Arc::clone(&registry)));
    }
    let events = host.events().await?;
    let metrics = options.metrics.clone();
    let supervisor = Supervisor::new(host, options, Arc::clone(&registry), host_leases);
    supervisor.run(events, stop).await;
    if let Some(path) = &metrics {
        publish(path, &registry);
    }
    Ok(())
}

/// A connection for each guest, and some more; the usual limit is 1,024 files.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files can't be raised: {error}");
    }
}

async fn publish_changes(path: PathBuf, registry: Arc<Registry>) {
    let mut changes = registry.subscribe();
    loop {
        changes.mark_unchanged();
        publish(&path, &registry);
        tokio::time::sleep(PUBLISH_GAP).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn publish(path: &Path, registry: &Registry) {
    // All may read it: a collector of text files is another user, and nothing in it is secret.
    let text = metrics::text(registry);
    if let Err(error) = replace(path, &text, Readers::All, Lasts::No) {
        tracing::warn!("can't write {}: {error}", path.display());
    }
}
