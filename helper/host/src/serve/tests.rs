//! The service over a fake hypervisor and a fake guest.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tandem_wire::message::{Call, RequestLine};
use tandem_wire::reply::delimited_sync_line;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::*;
use crate::hypervisor::{
    AgentChannel, Answer, DomainFacts, EventSender, JobFacts, JobWhich, MigrateOptions, Migration,
    Nic, event_queue,
};
use crate::xml::{Bonds, Document};

/// One domain `g1` whose facts a test changes.
#[derive(Debug)]
struct Fake {
    facts: Mutex<DomainFacts>,
    progress: Mutex<Option<String>>,
    sender: Mutex<Option<EventSender>>,
}

impl Fake {
    fn new(socket: &Path) -> Arc<Self> {
        let facts = DomainFacts {
            state: DomainState::Running,
            run_id: "1".to_owned(),
            channel: Some(AgentChannel {
                socket: Some(socket.to_owned()),
                opened: Some(true),
            }),
            ..DomainFacts::absent("g1")
        };
        Arc::new(Self {
            facts: Mutex::new(facts),
            progress: Mutex::default(),
            sender: Mutex::default(),
        })
    }

    fn happens(&self, event: Event) {
        let sender = self.sender.lock().unwrap();
        assert!(sender.as_ref().unwrap().send(event));
    }
}

fn answer<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Host for Fake {
    fn uri(&self) -> &str {
        "fake"
    }
    fn domains(&self) -> Answer<'_, Vec<String>> {
        answer(vec!["g1".to_owned()])
    }
    fn domain<'a>(&'a self, _: &'a str) -> Answer<'a, DomainFacts> {
        answer(self.facts.lock().unwrap().clone())
    }
    fn bonds<'a>(&'a self, _: &'a str) -> Answer<'a, Option<Bonds>> {
        let example = include_str!("../../schema/examples/static.xml");
        answer(Some(Document::parse(example).unwrap().bonds))
    }
    fn progress<'a>(&'a self, _: &'a str) -> Answer<'a, Option<String>> {
        answer(self.progress.lock().unwrap().clone())
    }
    fn events(&self) -> Answer<'_, Events> {
        let (sender, events) = event_queue();
        *self.sender.lock().unwrap() = Some(sender);
        answer(events)
    }
    fn set_bonds<'a>(&'a self, _: &'a str, _: Option<&'a Bonds>) -> Answer<'a, ()> {
        unreachable!("serve changes no domain")
    }
    fn set_progress<'a>(&'a self, _: &'a str, _: Option<&'a str>) -> Answer<'a, ()> {
        unreachable!("serve changes no domain")
    }
    fn detach<'a>(&'a self, _: &'a str, _: &'a Nic) -> Answer<'a, ()> {
        unreachable!("serve changes no domain")
    }
    fn attach<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, ()> {
        unreachable!("serve changes no domain")
    }
    fn check_device<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        unreachable!("serve changes no domain")
    }
    fn migrate<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a MigrateOptions,
    ) -> Answer<'a, Box<dyn Migration>> {
        unreachable!("serve changes no domain")
    }
    fn job<'a>(&'a self, _: &'a str, _: JobWhich) -> Answer<'a, JobFacts> {
        unreachable!("serve changes no domain")
    }
    fn cancel<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        unreachable!("serve changes no domain")
    }
}

/// A guest that tells which commands it got, one client after the other as QEMU has it.
fn guest(socket: PathBuf) -> mpsc::UnboundedReceiver<&'static str> {
    let (told, commands) = mpsc::unbounded_channel();
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let mut read = BufReader::new(read);
            let mut line = Vec::new();
            while read
                .read_until(b'\n', &mut line)
                .await
                .is_ok_and(|count| count > 0)
            {
                let bytes = line.strip_prefix(b"\xff").unwrap_or(&line).to_vec();
                line.clear();
                let text = String::from_utf8(bytes).unwrap();
                let request = RequestLine::parse(text.trim_end()).unwrap();
                let id = request
                    .id
                    .as_ref()
                    .map_or("null".to_owned(), |id| id.as_json().to_owned());
                let reply = match &request.call {
                    Call::GuestSyncDelimited(sync) => {
                        write
                            .write_all(&delimited_sync_line(sync.id, None))
                            .await
                            .unwrap();
                        continue;
                    }
                    Call::GuestInfo => {
                        "{\"version\": \"1\", \"tandem-protocol\": 1, \"supported_commands\": []}"
                    }
                    Call::TandemConfigure(_) => "{\"bonds\": [\"bond0\"], \"changed\": true}",
                    _ => {
                        "{\"tandem-protocol\": 1, \"version\": \"1\", \"now\": 1, \"status\": {\"generation\": 1, \"policy\": \"host\", \"bonds\": [], \"sources\": []}}"
                    }
                };
                let reply = format!("{{\"return\": {reply}, \"id\": {id}}}\n");
                let _ = write.write_all(reply.as_bytes()).await;
                let _ = told.send(request.call.name());
            }
        }
    });
    commands
}

/// Waits for the next status, and says whether the guest was configured before it.
async fn configured_before_status(commands: &mut mpsc::UnboundedReceiver<&'static str>) -> bool {
    let mut configured = false;
    loop {
        match commands.recv().await.unwrap() {
            "tandem-configure" => configured = true,
            "tandem-status" => return configured,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_guest_is_configured_once_per_boot() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent");
    let mut commands = guest(socket.clone());
    let fake = Fake::new(&socket);
    let metrics = folder.path().join("tandem.prom");
    let options = Options {
        interval: Duration::from_secs(3600),
        metrics: Some(metrics.clone()),
    };
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let host: Arc<dyn Host> = Arc::<Fake>::clone(&fake);
    let service = tokio::spawn(serve(host, options, async {
        let _ = ended.await;
    }));
    let event = |kind| Event::of("g1", kind);
    assert!(
        configured_before_status(&mut commands).await,
        "at the start"
    );
    fake.happens(event(EventKind::DeviceRemoved { alias: "vf".into() }));
    assert!(!configured_before_status(&mut commands).await, "same boot");
    fake.happens(event(EventKind::Reboot));
    assert!(
        configured_before_status(&mut commands).await,
        "another boot"
    );
    fake.happens(Event::lost());
    assert!(configured_before_status(&mut commands).await, "events lost");
    fake.facts.lock().unwrap().run_id = "2".to_owned();
    fake.happens(event(EventKind::JobFinished));
    assert!(
        configured_before_status(&mut commands).await,
        "another start"
    );
    end.send(()).unwrap();
    service.await.unwrap().unwrap();
    let text = std::fs::read_to_string(metrics).unwrap();
    assert!(
        text.contains("tandem_guest_answers{domain=\"g1\"} 1\n"),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn an_evacuation_has_the_channel_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent");
    let mut commands = guest(socket.clone());
    let fake = Fake::new(&socket);
    *fake.progress.lock().unwrap() = Some("{}".to_owned());
    let known = look_at(fake.as_ref(), "g1", Known::default())
        .await
        .unwrap()
        .unwrap();
    assert!(!known.configured);
    assert!(known.report.unwrap().guest.is_none());
    assert!(commands.try_recv().is_err(), "the guest was asked");
    *fake.progress.lock().unwrap() = None;
    let known = look_at(fake.as_ref(), "g1", Known::default())
        .await
        .unwrap()
        .unwrap();
    assert!(known.configured);
    fake.facts.lock().unwrap().state = DomainState::ShutOff;
    assert!(look_at(fake.as_ref(), "g1", known).await.unwrap().is_none());
}

#[test]
fn names_can_not_break_out_of_their_label() {
    let domains = Domains::from([("a\"} 1\n\\".to_owned(), Known::default())]);
    let text = metrics::text(&domains);
    assert!(
        text.contains("tandem_guest_answers{domain=\"a\\\"} 1\\n\\\\\"} 0\n"),
        "{text}"
    );
}
