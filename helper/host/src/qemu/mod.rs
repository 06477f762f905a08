//! Plain QEMU, without libvirt: one process, its QMP socket, and its agent channel's socket.
//!
//! QEMU serves one QMP client at a time, so this driver keeps one connection for everything and
//! makes a new one when it breaks. What libvirt keeps in a domain's metadata lies in files beside
//! the QMP socket: `SOCKET.bonds.xml` and `SOCKET.progress`.
//!
//! A device is one JSON object with the arguments of `device_add`, or
//! `{"netdev": {…}, "device": {…}}` with those of `netdev_add` too.
//!
//! The destination's QEMU has to wait for the migration already (`-incoming URI`), and that URI is
//! the option `--migrate-uri`.

mod connection;
mod device;
mod device_text;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod look;
mod migrate;
mod qmp;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::hypervisor::{
    ActiveDomain, Answer, Claim, DomainLook, DomainState, Events, Host, HostError, JobFacts,
    JobWhich, Look, MAX_PROGRESS_BYTES, MigrateOptions, Migration, Nic, event_queue,
};
use crate::xml::{Bonds, Document};
use connection::Connection;
pub(crate) use device_text::read as read_device;

/// A speed that nothing has.
const UNLIMITED: u64 = u64::MAX;

/// How the operator names a QEMU: `qmp:/run/vm1/qmp.sock`, and `,agent=/run/vm1/agent.sock`.
pub const URI_PREFIX: &str = "qmp:";

/// One QEMU process.
#[derive(Debug, Clone)]
pub struct Qemu {
    uri: String,
    socket: PathBuf,
    agent: Option<PathBuf>,
    connection: Arc<Connection>,
}

impl Qemu {
    /// A QEMU by its sockets; nothing is opened yet.
    pub fn new(socket: &Path, agent: Option<&Path>) -> Self {
        let uri = format!("{URI_PREFIX}{}", socket.display());
        Self {
            connection: Arc::new(Connection::new(&uri, socket)),
            uri,
            socket: socket.to_owned(),
            agent: agent.map(Path::to_owned),
        }
    }

    /// A QEMU by URI: `qmp:SOCKET` or `qmp:SOCKET,agent=SOCKET`; `None` for other URIs.
    pub fn from_uri(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix(URI_PREFIX)?;
        let (socket, agent) = match rest.split_once(",agent=") {
            Some((socket, agent)) => (socket, Some(Path::new(agent))),
            None => (rest, None),
        };
        (!socket.is_empty()).then(|| Self::new(Path::new(socket), agent))
    }

    async fn execute(&self, command: &str, arguments: Value) -> Result<Value, HostError> {
        self.connection.execute(command, arguments).await
    }

    /// QEMU knows one domain: its own, by its `-name`, or any name if it has none.
    async fn require(&self, name: &str) -> Result<(), HostError> {
        let own = self.own_name().await?;
        if own.is_empty() || own == name {
            return Ok(());
        }
        Err(HostError::NoSuchDomain {
            host: self.uri.clone(),
            domain: name.to_owned(),
        })
    }

    fn claim_file(&self) -> PathBuf {
        files::beside(&self.socket, files::CLAIM)
    }

    fn bonds_file(&self) -> PathBuf {
        files::beside(&self.socket, files::BONDS)
    }

    fn progress_file(&self) -> PathBuf {
        files::beside(&self.socket, files::PROGRESS)
    }

    /// The bonds of its file, if it is there; or what is wrong with them.
    fn bonds(&self) -> Result<Option<Bonds>, String> {
        let file = self.bonds_file();
        let in_file = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let text =
            files::read(&file, crate::xml::bonds::MAX_BYTES).map_err(|error| in_file(&error))?;
        let document = text.map(|text| Document::parse(&text)).transpose();
        let document = document.map_err(|error| in_file(&error))?;
        Ok(document.map(|document| document.bonds))
    }

    /// The file's first line is the token.
    fn claims(&self) -> Result<Vec<Claim>, HostError> {
        let text = files::read(&self.claim_file(), MAX_PROGRESS_BYTES)
            .map_err(|error| self.refused("the file of the claim", error.to_string()))?;
        let claim = text.as_deref().and_then(|text| text.split_once('\n'));
        let claim = claim.filter(|(token, _)| Claim::is_token(token));
        let claim = claim.map(|(token, text)| Claim {
            token: token.to_owned(),
            text: text.to_owned(),
        });
        Ok(claim.into_iter().collect())
    }

    fn refused(&self, what: &str, reason: impl Into<String>) -> HostError {
        HostError::Refused {
            host: self.uri.clone(),
            what: what.to_owned(),
            reason: reason.into(),
        }
    }
}

impl Look for Qemu {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn look<'a>(&'a self, name: &'a str) -> Answer<'a, DomainLook> {
        Box::pin(async move {
            Ok(DomainLook {
                facts: self.facts(name).await?,
                bonds: self.bonds(),
                progress: files::read(&self.progress_file(), MAX_PROGRESS_BYTES)
                    .map_err(|error| self.refused("the file of progress", error.to_string()))?,
                claims: self.claims()?,
            })
        })
    }

    fn state<'a>(&'a self, _: &'a str) -> Answer<'a, DomainState> {
        Box::pin(self.run_state())
    }

    fn process<'a>(&'a self, _: &'a str) -> Answer<'a, Option<i32>> {
        let told = files::listener(&self.socket);
        let told = told.map_err(|error| self.refused("who listens", error.to_string()));
        Box::pin(async { told.map(Some) })
    }

    fn active(&self) -> Answer<'_, Vec<ActiveDomain>> {
        Box::pin(async {
            let name = match self.own_name().await? {
                // A guest without a name needs one for its reader.
                name if name.is_empty() => "guest".to_owned(),
                name => name,
            };
            let facts = self.facts(&name).await?;
            let is_active = matches!(facts.state, DomainState::Running | DomainState::Paused);
            let run_id = facts.run_id;
            Ok(is_active
                .then_some(ActiveDomain { name, run_id })
                .into_iter()
                .collect())
        })
    }

    fn job<'a>(&'a self, name: &'a str, _: JobWhich) -> Answer<'a, JobFacts> {
        Box::pin(async move {
            self.require(name).await?;
            self.migration().await
        })
    }

    fn events(&self) -> Answer<'_, Events> {
        Box::pin(async {
            let (sender, events) = event_queue();
            self.connection.subscribe(sender);
            Ok(events)
        })
    }
}

impl Host for Qemu {
    fn set_bonds<'a>(&'a self, _: &'a str, bonds: Option<&'a Bonds>) -> Answer<'a, ()> {
        Box::pin(async move {
            let text = bonds.map(Bonds::to_xml);
            files::write(&self.bonds_file(), text.as_deref())
                .map_err(|error| self.refused("the file of bonds", error.to_string()))
        })
    }

    fn set_progress<'a>(&'a self, _: &'a str, record: Option<&'a str>) -> Answer<'a, ()> {
        Box::pin(async move {
            if record.is_some_and(|record| record.len() > MAX_PROGRESS_BYTES) {
                let reason = format!("a record is at most {MAX_PROGRESS_BYTES} bytes");
                return Err(self.refused("the file of progress", reason));
            }
            files::write(&self.progress_file(), record)
                .map_err(|error| self.refused("the file of progress", error.to_string()))
        })
    }

    fn set_claim<'a>(&'a self, _: &'a str, claim: &'a Claim) -> Answer<'a, ()> {
        Box::pin(async move {
            let text = format!("{}\n{}", claim.token, claim.text);
            let text = (!claim.text.is_empty()).then_some(text.as_str());
            files::write(&self.claim_file(), text)
                .map_err(|error| self.refused("the file of the claim", error.to_string()))
        })
    }

    fn detach<'a>(&'a self, name: &'a str, nic: &'a Nic) -> Answer<'a, ()> {
        Box::pin(self.detach_device(name, nic))
    }

    fn attach<'a>(&'a self, name: &'a str, device: &'a str) -> Answer<'a, ()> {
        Box::pin(self.attach_device(name, device))
    }

    fn check_device<'a>(&'a self, device: &'a str, _: usize) -> Answer<'a, ()> {
        Box::pin(async move { self.check_pci_function(device) })
    }

    fn check_migration<'a>(&'a self, options: &'a MigrateOptions) -> Answer<'a, ()> {
        Box::pin(async move { self.check_options(options) })
    }

    fn migrate<'a>(
        &'a self,
        name: &'a str,
        destination: &'a str,
        options: &'a MigrateOptions,
    ) -> Answer<'a, Box<dyn Migration>> {
        Box::pin(self.start_migration(name, destination, options))
    }

    fn cancel<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(self.cancel_migration(name))
    }

    fn unpause<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.require(name).await?;
            self.execute("cont", json!({})).await.map(|_| ())
        })
    }

    fn pause<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        // Each question before it would be part of the pause's lateness: a QEMU has one domain.
        Box::pin(async { self.execute("stop", json!({})).await.map(|_| ()) })
    }

    fn speed<'a>(&'a self, _: &'a str) -> Answer<'a, u64> {
        Box::pin(async {
            let told = self.execute("query-migrate-parameters", json!({})).await?;
            // 0 is without a limit (qapi/migration.json, QEMU 10.0).
            let limit = told["max-bandwidth"].as_u64().filter(|limit| *limit > 0);
            Ok(limit.unwrap_or(UNLIMITED))
        })
    }

    fn set_speed<'a>(&'a self, _: &'a str, bytes_per_s: u64) -> Answer<'a, ()> {
        Box::pin(async move {
            let limit = if bytes_per_s == UNLIMITED {
                0
            } else {
                bytes_per_s
            };
            self.execute("migrate-set-parameters", json!({ "max-bandwidth": limit }))
                .await
                .map(|_| ())
        })
    }

    fn set_max_downtime<'a>(&'a self, _: &'a str, ms: u64) -> Answer<'a, ()> {
        Box::pin(async move {
            let limit = json!({ "downtime-limit": ms });
            self.execute("migrate-set-parameters", limit)
                .await
                .map(|_| ())
        })
    }
}
