//! QEMU's own live migration.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::connection::Connection;
use super::{Qemu, URI_PREFIX, files, look};
use crate::hypervisor::{
    Answer, Events, HostError, JobPhase, MAX_PROGRESS_BYTES, MigrateOptions, Migration, event_queue,
};

/// How often the state is asked for, should the event of the end be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A migration that QEMU runs. Dropped before its end, it is not cancelled: QEMU goes on.
#[derive(Debug)]
struct Running {
    connection: Arc<Connection>,
    events: Events,
    domain: String,
    /// Post-copy begins after the first pass over the memory.
    postcopy: bool,
}

impl Qemu {
    /// Most of them are libvirt's, or would have to be set on the destination's QEMU before it waits.
    pub(super) fn check_options(&self, options: &MigrateOptions) -> Result<(), HostError> {
        let named = [
            (options.xml.is_some(), "--xml"),
            (options.peer_to_peer, "--p2p"),
            (options.persistent_xml.is_some(), "--persistent-xml"),
            (options.dname.is_some(), "--dname"),
            (options.resume_postcopy, "--postcopy-resume"),
            (options.storage.is_some(), "--copy-storage-…"),
            (options.parallel, "--parallel"),
            (options.compressed, "--compressed"),
            (options.timeout.is_some(), "--timeout"),
            (options.tls, "--tls"),
            (options.is_unsafe, "--unsafe"),
            (!options.more.is_empty(), "words after `--`"),
        ];
        let named = named.iter().filter(|(is_set, _)| *is_set);
        let named: Vec<&str> = named.map(|(_, name)| *name).collect();
        if named.is_empty() {
            return Ok(());
        }
        let reason = format!(
            "a plain QEMU is migrated without {}; leave that out",
            named.join(", ")
        );
        Err(self.refused("migrate", reason))
    }

    pub(super) async fn start_migration(
        &self,
        name: &str,
        destination: &str,
        options: &MigrateOptions,
    ) -> Result<Box<dyn Migration>, HostError> {
        self.require(name).await?;
        let Some(uri) = &options.migrate_uri else {
            let reason = "QEMU needs the URI that the destination waits on (`-incoming`); give --migrate-uri";
            return Err(self.refused("migrate", reason));
        };
        self.check_options(options)?;
        let (sender, events) = event_queue();
        self.connection.subscribe(sender);
        let capability = |name: &str, state: bool| json!({ "capability": name, "state": state });
        let capabilities = json!({ "capabilities": [
            capability("auto-converge", options.auto_converge),
            capability("postcopy-ram", options.postcopy),
            // Else QEMU calls a migration complete whose destination did not load it.
            capability("return-path", both_ways(uri)),
        ] });
        self.execute("migrate-set-capabilities", capabilities)
            .await?;
        for (parameter, limit) in [
            ("max-bandwidth", options.bandwidth_mib_s),
            ("max-postcopy-bandwidth", options.postcopy_bandwidth_mib_s),
        ] {
            if let Some(limit) = limit {
                let bytes = limit.saturating_mul(1 << 20);
                let parameters = json!({ parameter: bytes });
                self.execute("migrate-set-parameters", parameters).await?;
            }
        }
        self.pass_on_files(destination)?;
        self.execute("migrate", json!({ "uri": uri })).await?;
        Ok(Box::new(Running {
            connection: Arc::clone(&self.connection),
            events,
            domain: name.to_owned(),
            postcopy: options.postcopy,
        }))
    }

    /// Bonds and progress come along with the guest, as with libvirt, where the destination's socket
    /// is on this machine.
    fn pass_on_files(&self, destination: &str) -> Result<(), HostError> {
        let Some(there) = destination.strip_prefix(URI_PREFIX) else {
            return Ok(());
        };
        let there = there.split(",agent=").next().unwrap_or_default();
        for (file, ending, max_bytes) in [
            (
                self.bonds_file(),
                files::BONDS,
                crate::xml::bonds::MAX_BYTES,
            ),
            (self.progress_file(), files::PROGRESS, MAX_PROGRESS_BYTES),
        ] {
            let copied = files::read(&file, max_bytes).and_then(|text| {
                let copy = files::beside(Path::new(there), ending);
                files::write(&copy, text.as_deref())
            });
            copied.map_err(|error| {
                let what = format!("a copy of {} for the destination", file.display());
                self.refused(&what, error.to_string())
            })?;
        }
        Ok(())
    }

    pub(super) async fn cancel_migration(&self, name: &str) -> Result<(), HostError> {
        self.require(name).await?;
        match self.migration().await?.phase {
            JobPhase::None | JobPhase::Completed | JobPhase::Failed | JobPhase::Cancelled => {
                Err(HostError::AlreadyGone {
                    domain: name.to_owned(),
                    what: "the migration".to_owned(),
                })
            }
            _ => self.execute("migrate_cancel", json!({})).await.map(|_| ()),
        }
    }
}

/// Transports on which the destination can answer; `exec:` and `fd:` may be pipes.
fn both_ways(uri: &str) -> bool {
    ["tcp:", "unix:", "vsock:"]
        .iter()
        .any(|transport| uri.starts_with(transport))
}

impl Migration for Running {
    /// QEMU leads it by itself.
    fn give_up(&mut self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn finished(&mut self) -> Answer<'_, ()> {
        Box::pin(async {
            loop {
                let info = self.connection.execute("query-migrate", json!({})).await?;
                let failed = |reason: &str| HostError::MigrationFailed {
                    domain: self.domain.clone(),
                    reason: reason.to_owned(),
                };
                match (look::job(&info).phase, info["status"].as_str()) {
                    (JobPhase::Completed, _) => return Ok(()),
                    (JobPhase::Failed, _) => {
                        let reason = info["error-desc"].as_str();
                        return Err(failed(&crate::agent::printable(
                            reason.unwrap_or("QEMU does not say why"),
                        )));
                    }
                    (JobPhase::Cancelled, Some("cancelled")) => {
                        let domain = self.domain.clone();
                        return Err(HostError::Cancelled { domain });
                    }
                    (JobPhase::None, _) => return Err(failed("QEMU knows of no migration")),
                    _ => {}
                }
                let passes = info["ram"]["dirty-sync-count"].as_u64().unwrap_or(0);
                if self.postcopy && passes > 1 {
                    self.postcopy = false;
                    let command = "migrate-start-postcopy";
                    self.connection.execute(command, json!({})).await?;
                }
                // Whatever happened, or nothing: the state is asked for again.
                let _ = timeout(LOOK_AGAIN, self.events.next()).await;
            }
        })
    }
}
