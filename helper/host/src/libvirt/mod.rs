//! libvirt through its own client `virsh`: nothing of libvirt is linked, and only
//! outputs that libvirt keeps stable are read.
//!
//! One short process a question, in the C locale, without a shell, with a bound on
//! time and output; it is killed if nobody waits for it any more. Two long ones
//! report events.
//!
//! libvirt's limits that its users have to know:
//! * While a migration runs, libvirt takes no change of the domain: metadata can't be
//!   written on either host until it has ended.
//! * A persistent domain that left keeps its definition on the source, and the
//!   metadata in it.

mod channel;
mod device;
#[cfg(fuzzing)]
pub mod fuzzing;
mod migrate;
mod parse;
mod read;
mod refusal;
mod run;
#[cfg(test)]
mod tests;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use crate::hypervisor::{
    ActiveDomain, Answer, DomainFacts, DomainLook, DomainState, Events, Host, HostError, JobFacts,
    JobPhase, JobWhich, Look, MAX_PROGRESS_BYTES, MigrateOptions, Migration, Nic, event_queue,
};
use crate::xml::domain::DomainXml;
use crate::xml::{BONDS_NAMESPACE, Bonds, PROGRESS_NAMESPACE, write};
use run::{Connection, Finished};

/// libvirt itself gives up after 30 s where another job holds a domain
/// (`VIR_JOB_WAIT_TIME`, `src/hypervisor/domain_job.c`, libvirt 11.3); its words are worth waiting for.
const LIMIT: Duration = Duration::from_secs(45);

/// One libvirt connection.
#[derive(Debug, Clone)]
pub struct Virsh {
    connection: Connection,
    /// More folders in which sockets of channels may be.
    channel_folders: Vec<PathBuf>,
}

impl Virsh {
    /// A connection by libvirt's URI; nothing is run yet.
    pub fn new(uri: &str) -> Self {
        Self::with_program(uri, PathBuf::from("virsh"))
    }

    /// The same with another program in place of `virsh`.
    pub fn with_program(uri: &str, program: PathBuf) -> Self {
        Self {
            connection: Connection {
                program,
                uri: uri.to_owned(),
                limit: LIMIT,
            },
            channel_folders: Vec::new(),
        }
    }

    /// The same, and sockets of channels may be in these folders too, besides libvirt's own.
    #[must_use]
    pub fn with_channel_folders(mut self, folders: &[PathBuf]) -> Self {
        self.channel_folders = folders.to_vec();
        self
    }

    /// The option that names a domain. virsh takes a number for an id and a UUID for a UUID
    /// before it looks for a name, so such names are looked up first.
    async fn target(&self, name: &str) -> Result<String, HostError> {
        let number = name.bytes().all(|byte| byte.is_ascii_digit());
        let like_uuid =
            name.len() >= 32 && name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if name.is_empty() || name.chars().any(|c| c == '/' || c.is_control()) {
            return Err(self.no_such_domain(name));
        }
        if !number && !like_uuid {
            return Ok(format!("--domain={name}"));
        }
        let list = self
            .connection
            .ask(&["list", "--all", "--uuid", "--name"])
            .await?;
        let domains = read::uuids(&list);
        let found = domains
            .iter()
            .find(|(uuid, known)| *known == name || *uuid == name);
        match found {
            Some((uuid, _)) => Ok(format!("--domain={uuid}")),
            None => Err(self.no_such_domain(name)),
        }
    }

    fn no_such_domain(&self, name: &str) -> HostError {
        HostError::NoSuchDomain {
            host: self.connection.uri.clone(),
            domain: name.to_owned(),
        }
    }

    /// Runs a command about a domain; its failure in terms of that domain.
    async fn about(
        &self,
        name: &str,
        command: &str,
        arguments: &[&str],
        input: Option<&str>,
    ) -> Result<String, HostError> {
        let target = self.target(name).await?;
        let mut all = vec![command, target.as_str()];
        all.extend(arguments);
        let finished = self.connection.run(&all, input).await?;
        self.judged(finished, command, name)
    }

    fn judged(&self, finished: Finished, command: &str, name: &str) -> Result<String, HostError> {
        if finished.success {
            return Ok(finished.stdout);
        }
        Err(refusal::of(
            &self.connection.uri,
            command,
            name,
            &finished.stderr,
        ))
    }

    async fn xml(&self, name: &str) -> Result<DomainXml, HostError> {
        let text = self.about(name, "dumpxml", &[], None).await?;
        let read = parse::domain(text).await;
        read.map_err(|reason| HostError::InvalidXml {
            domain: name.to_owned(),
            reason,
        })
    }

    /// Two processes: all but the state is in the XML.
    async fn look_at(&self, name: &str) -> Result<DomainLook, HostError> {
        let absent = || DomainLook::without_xml(DomainFacts::absent(name));
        let state = match self.about(name, "domstate", &["--reason"], None).await {
            Ok(state) => state,
            Err(HostError::NoSuchDomain { .. }) => return Ok(absent()),
            Err(error) => return Err(error),
        };
        let (state, reason) = read::state(&state).ok_or_else(|| HostError::Other {
            host: self.connection.uri.clone(),
            what: "virsh domstate".to_owned(),
            reason: format!("`{}` is no state", refusal::shortened(&state)),
        })?;
        if state == DomainState::Paused
            && read::MAY_COME_IN.contains(&reason.as_str())
            && self.is_incoming(name).await?
        {
            // Its lock is taken for as long as it comes: libvirt would keep whoever asks for its XML
            // waiting for 30 s, and then refuse.
            return Ok(DomainLook::without_xml(DomainFacts {
                state: DomainState::Incoming,
                reason,
                ..DomainFacts::absent(name)
            }));
        }
        let xml = match self.xml(name).await {
            Ok(xml) => xml,
            Err(HostError::NoSuchDomain { .. }) => return Ok(absent()),
            Err(error) => return Err(error),
        };
        let channel = channel::of(&xml, &self.connection.uri, &self.channel_folders);
        let facts = DomainFacts {
            name: xml.name,
            uuid: xml.uuid,
            state,
            reason,
            run_id: xml.id.map(|id| id.to_string()).unwrap_or_default(),
            nics: xml.nics,
            channel,
        };
        let bonds = xml.bonds.transpose().map_err(|error| error.to_string());
        Ok(DomainLook {
            facts,
            bonds: bonds.map(|document| document.map(|document| document.bonds)),
            progress: xml.progress,
        })
    }

    /// It has a definition that survives its end.
    async fn is_persistent(&self, uuid: &str) -> Result<bool, HostError> {
        let list = ["list", "--all", "--persistent", "--uuid"];
        let persistent = self.connection.ask(&list).await?;
        Ok(persistent.lines().any(|line| line.trim() == uuid))
    }

    /// Source and destination of a migration may both be paused for it; only the source has figures.
    async fn is_incoming(&self, name: &str) -> Result<bool, HostError> {
        match self.about(name, "domjobinfo", &["--rawstats"], None).await {
            Ok(text) => Ok(read::job(&text).is_some_and(|job| job.incoming)),
            Err(HostError::Refused { reason, .. }) => Ok(reason.contains(read::ONLY_ON_SOURCE)),
            Err(HostError::NoSuchDomain { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn facts_of_present(&self, name: &str) -> Result<DomainFacts, HostError> {
        let facts = self.look_at(name).await?.facts;
        if facts.state == DomainState::Absent {
            return Err(self.no_such_domain(name));
        }
        Ok(facts)
    }

    /// Writes or removes one element of the metadata, for now and for the next start.
    async fn set_metadata(
        &self,
        name: &str,
        namespace: &str,
        element: Option<&str>,
    ) -> Result<(), HostError> {
        let facts = self.facts_of_present(name).await?;
        let uri = format!("--uri={namespace}");
        let set = element.map(|element| format!("--set={element}"));
        let mut arguments = vec![uri.as_str()];
        match &set {
            Some(set) => arguments.extend(["--key=tandem", set.as_str()]),
            None => arguments.push("--remove"),
        }
        if facts.state != DomainState::ShutOff {
            arguments.push("--live");
        }
        if self.is_persistent(&facts.uuid).await? {
            arguments.push("--config");
        }
        self.about(name, "metadata", &arguments, None).await?;
        Ok(())
    }

    async fn job_facts(&self, name: &str, which: JobWhich) -> Result<JobFacts, HostError> {
        let arguments: &[&str] = match which {
            JobWhich::Current => &["--rawstats"],
            JobWhich::Completed => &[
                "--completed",
                "--keep-completed",
                "--anystats",
                "--rawstats",
            ],
        };
        let text = match self.about(name, "domjobinfo", arguments, None).await {
            // The destination has a job without figures.
            Err(HostError::Refused { reason, .. }) if reason.contains(read::ONLY_ON_SOURCE) => {
                return Ok(JobFacts {
                    phase: JobPhase::Other,
                    ..JobFacts::default()
                });
            }
            answer => answer?,
        };
        let job = read::job(&text).ok_or_else(|| HostError::Other {
            host: self.connection.uri.clone(),
            what: "virsh domjobinfo --rawstats".to_owned(),
            reason: format!("`{}` tells no job type", refusal::shortened(&text)),
        })?;
        let mut facts = job.facts;
        if facts.phase == JobPhase::PreCopy {
            let state = self.about(name, "domstate", &["--reason"], None).await?;
            facts.phase = read::copy_phase(&state);
        }
        Ok(facts)
    }
}

impl Look for Virsh {
    fn uri(&self) -> &str {
        &self.connection.uri
    }

    fn look<'a>(&'a self, name: &'a str) -> Answer<'a, DomainLook> {
        Box::pin(self.look_at(name))
    }

    fn active(&self) -> Answer<'_, Vec<ActiveDomain>> {
        Box::pin(async {
            let list = ["list", "--id", "--name"];
            Ok(read::active(&self.connection.ask(&list).await?))
        })
    }

    fn job<'a>(&'a self, name: &'a str, which: JobWhich) -> Answer<'a, JobFacts> {
        Box::pin(self.job_facts(name, which))
    }

    fn events(&self) -> Answer<'_, Events> {
        Box::pin(async {
            let (sender, events) = event_queue();
            watch::start(&self.connection, &sender);
            Ok(events)
        })
    }
}

impl Host for Virsh {
    fn set_bonds<'a>(&'a self, name: &'a str, bonds: Option<&'a Bonds>) -> Answer<'a, ()> {
        Box::pin(async move {
            let element = bonds.map(Bonds::to_metadata);
            self.set_metadata(name, BONDS_NAMESPACE, element.as_deref())
                .await
        })
    }

    fn set_progress<'a>(&'a self, name: &'a str, record: Option<&'a str>) -> Answer<'a, ()> {
        Box::pin(async move {
            if record.is_some_and(|record| record.len() > MAX_PROGRESS_BYTES) {
                return Err(HostError::Refused {
                    host: self.connection.uri.clone(),
                    what: "virsh metadata".to_owned(),
                    reason: format!("a record is at most {MAX_PROGRESS_BYTES} bytes"),
                });
            }
            let element = record.map(write::progress_to_metadata);
            self.set_metadata(name, PROGRESS_NAMESPACE, element.as_deref())
                .await
        })
    }

    fn detach<'a>(&'a self, name: &'a str, nic: &'a Nic) -> Answer<'a, ()> {
        Box::pin(self.detach_device(name, nic))
    }

    fn attach<'a>(&'a self, name: &'a str, device: &'a str) -> Answer<'a, ()> {
        Box::pin(self.attach_device(name, device))
    }

    fn check_device<'a>(&'a self, device: &'a str) -> Answer<'a, ()> {
        Box::pin(self.check_device_here(device))
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
        Box::pin(async move {
            self.about(name, "domjobabort", &[], None).await?;
            Ok(())
        })
    }

    fn unpause<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.about(name, "resume", &[], None).await?;
            Ok(())
        })
    }
}
