//! libvirt through its own client `virsh`: nothing of libvirt is linked, and only
//! outputs that libvirt keeps stable are read.
//!
//! One process that stays answers the questions and makes the changes that a carry can't wait for (`session.rs`); each
//! other change is a short process of its own. All of them in the C locale, without a shell, with a bound on time and
//! output, and killed if nobody waits for them any more. Two long ones report events.
//!
//! libvirt's limits that its users have to know:
//! * While a migration runs, libvirt takes no change of the domain: metadata can't be
//!   written on either host until it has ended.
//! * A persistent domain that left keeps its definition on the source, and the
//!   metadata in it.

mod carried;
mod change;
mod channel;
mod device;
#[cfg(fuzzing)]
pub mod fuzzing;
mod migrate;
mod parse;
mod read;
mod refusal;
mod run;
mod session;
#[cfg(test)]
mod tests;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::hypervisor::{
    ActiveDomain, Answer, DomainFacts, DomainLook, DomainState, Events, HostError, JobFacts,
    JobPhase, JobWhich, Look, Nic, VolumeDisk, event_queue,
};
use crate::xml::domain::DomainXml;
use run::{Connection, Finished};
use session::Sessions;

/// libvirt itself gives up after 30 s where another job holds a domain
/// (`VIR_JOB_WAIT_TIME`, `src/hypervisor/domain_job.c`, libvirt 11.3); its words are worth waiting for.
const LIMIT: Duration = Duration::from_secs(45);

/// One libvirt connection.
#[derive(Debug, Clone)]
pub struct Virsh {
    connection: Connection,
    sessions: Arc<Sessions>,
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
            sessions: Default::default(),
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
        let list = self.ask(&["list", "--all", "--uuid", "--name"]).await?;
        let uuid = uuid_in(&list, name).ok_or_else(|| self.no_such_domain(name))?;
        Ok(format!("--domain={uuid}"))
    }

    fn no_such_domain(&self, name: &str) -> HostError {
        HostError::NoSuchDomain {
            host: self.connection.uri.clone(),
            domain: name.to_owned(),
        }
    }

    /// Runs a command about no domain in particular.
    async fn ask(&self, arguments: &[&str]) -> Result<String, HostError> {
        let finished = self.run(arguments, None).await?;
        let command = arguments.first().copied().unwrap_or_default();
        self.judged(finished, command, "")
    }

    /// Runs a command to its end, at most for the limit, with `input` as its standard input; over a session if it
    /// can be.
    async fn run(&self, arguments: &[&str], input: Option<&str>) -> Result<Finished, HostError> {
        if input.is_none()
            && let Some(finished) = self.over_session(arguments).await?
        {
            return Ok(finished);
        }
        self.connection.run(arguments, input).await
    }

    /// Asks over a session, at most for the limit; `None` if the question needs a process of its own, or no session is
    /// to be had.
    async fn over_session(&self, arguments: &[&str]) -> Result<Option<Finished>, HostError> {
        if !session::can_ask(arguments) {
            return Ok(None);
        }
        let asked = self.sessions.ask(&self.connection, arguments);
        // Dropping it kills it.
        let answer = tokio::time::timeout(self.connection.limit, asked).await;
        answer.map_err(|_| self.connection.timed_out(arguments))
    }

    /// Runs a command about a domain; its failure in terms of that domain.
    async fn about(
        &self,
        name: &str,
        command: &str,
        arguments: &[&str],
        input: Option<&str>,
    ) -> Result<String, HostError> {
        if input.is_none()
            && session::is_for_sessions(command)
            && let Some(answer) = self.asked(name, command, arguments).await?
        {
            return Ok(answer);
        }
        let target = self.target(name).await?;
        let mut all = vec![command, target.as_str()];
        all.extend(arguments);
        let finished = self.run(&all, input).await?;
        self.judged(finished, command, name)
    }

    /// The answer over a session, which is told the domain's UUID; `None` if no session is to be had.
    async fn asked(
        &self,
        name: &str,
        command: &str,
        arguments: &[&str],
    ) -> Result<Option<String>, HostError> {
        let sessions = &self.sessions;
        loop {
            let known = sessions.uuid_of(name);
            let was_known = known.is_some();
            let uuid = match known {
                Some(uuid) => uuid,
                None => {
                    let list = ["list", "--all", "--uuid", "--name"];
                    let Some(finished) = self.over_session(&list).await? else {
                        return Ok(None);
                    };
                    let list = self.judged(finished, "list", "")?;
                    let uuid = uuid_in(&list, name);
                    uuid.ok_or_else(|| self.no_such_domain(name))?.to_owned()
                }
            };
            let target = format!("--domain={uuid}");
            let question = [&[command, target.as_str()], arguments].concat();
            let Some(finished) = self.over_session(&question).await? else {
                return Ok(None);
            };
            let answer = self.judged(finished, command, name);
            let is_gone = matches!(answer, Err(HostError::NoSuchDomain { .. }));
            sessions.set_uuid(name, (!is_gone).then_some(uuid.as_str()));
            // Another one may have its name by now.
            if !(is_gone && was_known) {
                return answer.map(Some);
            }
        }
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

    async fn xml(&self, name: &str, options: &[&str]) -> Result<DomainXml, HostError> {
        let text = self.about(name, "dumpxml", options, None).await?;
        let read = parse::domain(text).await;
        read.map_err(|reason| HostError::InvalidXml {
            domain: name.to_owned(),
            reason,
        })
    }

    /// A domain that was renamed has its UUID still, and its name may be another one's.
    async fn look_at(&self, name: &str) -> Result<DomainLook, HostError> {
        let look = self.look_once(name).await?;
        let is_another = look.facts.name != name && look.facts.uuid != name;
        if is_another && self.sessions.uuid_of(name).is_some() {
            self.sessions.set_uuid(name, None);
            return self.look_once(name).await;
        }
        Ok(look)
    }

    /// Two questions: all but the state is in the XML.
    async fn look_once(&self, name: &str) -> Result<DomainLook, HostError> {
        let absent = || DomainLook::without_xml(DomainFacts::absent(name));
        let state = match self.about(name, "domstate", &["--reason"], None).await {
            Ok(state) => state,
            Err(HostError::NoSuchDomain { .. }) => return Ok(absent()),
            Err(error) => return Err(error),
        };
        let (state, reason) = self.known_state(&state)?;
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
        if state == DomainState::Running && reason == read::POSTCOPY_BROKEN {
            // It runs on half of its memory, and its lock is held until the rest has come.
            return Ok(DomainLook::without_xml(DomainFacts {
                state,
                reason,
                ..DomainFacts::absent(name)
            }));
        }
        let xml = match self.xml(name, &[]).await {
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
            disks: xml.disks,
            volumes: xml.volumes,
            unmigratable: xml.unmigratable,
            channel,
        };
        let bonds = xml.bonds.transpose().map_err(|error| error.to_string());
        Ok(DomainLook {
            facts,
            bonds: bonds.map(|document| document.map(|document| document.bonds)),
            progress: xml.progress,
            claims: xml.claims,
        })
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

    /// Writes or removes one element of the metadata, for now and for the next start.
    async fn set_metadata(
        &self,
        name: &str,
        namespace: &str,
        element: Option<&str>,
    ) -> Result<(), HostError> {
        let told = self.about(name, "dominfo", &[], None).await?;
        let info = read::info(&told).ok_or_else(|| HostError::Other {
            host: self.connection.uri.clone(),
            what: "virsh dominfo".to_owned(),
            reason: format!("`{}` tells no state", refusal::shortened(&told)),
        })?;
        let uri = format!("--uri={namespace}");
        let set = element.map(|element| format!("--set={element}"));
        let mut arguments = vec![uri.as_str()];
        match &set {
            Some(set) => arguments.extend(["--key=tandem", set.as_str()]),
            None => arguments.push("--remove"),
        }
        if info.runs {
            arguments.push("--live");
        }
        if info.is_persistent {
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

/// The UUID of a domain by its name, or by the UUID itself, in `virsh list --all --uuid --name`.
fn uuid_in<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    let mut domains = read::uuids(list).into_iter();
    let found = domains.find(|(uuid, known)| *known == name || *uuid == name);
    found.map(|(uuid, _)| uuid)
}

impl Look for Virsh {
    fn uri(&self) -> &str {
        &self.connection.uri
    }

    fn look<'a>(&'a self, name: &'a str) -> Answer<'a, DomainLook> {
        Box::pin(self.look_at(name))
    }

    fn state<'a>(&'a self, name: &'a str) -> Answer<'a, DomainState> {
        Box::pin(self.state_alone(name))
    }

    fn taps<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(self.taps_of(name))
    }

    fn configured_nics<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Nic>> {
        Box::pin(async move { Ok(self.xml(name, &["--inactive"]).await?.nics) })
    }

    fn snapshots<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let told = self.about(name, "snapshot-list", &["--name"], None).await?;
            Ok(read::names(&told))
        })
    }

    fn volume_path<'a>(&'a self, disk: &'a VolumeDisk) -> Answer<'a, PathBuf> {
        Box::pin(async move {
            let (pool, volume) = (
                format!("--pool={}", disk.pool),
                format!("--vol={}", disk.volume),
            );
            let told = self.ask(&["vol-path", &pool, &volume]).await?;
            Ok(told.lines().next().unwrap_or_default().into())
        })
    }

    fn name_of<'a>(&'a self, uuid: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            let list = self.ask(&["list", "--all", "--uuid", "--name"]).await?;
            let mut domains = read::uuids(&list).into_iter();
            let found = domains.find(|(known, _)| *known == uuid);
            Ok(found.map(|(_, name)| name.to_owned()))
        })
    }

    fn active(&self) -> Answer<'_, Vec<ActiveDomain>> {
        Box::pin(async {
            let list = ["list", "--id", "--name"];
            Ok(read::active(&self.ask(&list).await?))
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
