//! The client against guests that behave, and guests that don't.

use std::time::Duration;

use tandem_core::status::Answer;
use tandem_wire::message::{Call, ReplyTo, RequestLine};
use tandem_wire::reply::delimited_sync_line;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::{Agent, AgentError, ChannelLimits, Heard};
use crate::hypervisor::ChannelSocket;

mod versions;

const SHORT: ChannelLimits = ChannelLimits {
    sync: Duration::from_millis(200),
    question: Duration::from_millis(200),
    command: Duration::from_millis(200),
};
const PATIENT: ChannelLimits = ChannelLimits {
    sync: Duration::from_secs(60),
    question: Duration::from_secs(60),
    command: Duration::from_secs(60),
};

/// A guest: what it does with one connection.
struct Guest {
    socket: ChannelSocket,
    task: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn guest<F>(behave: impl FnOnce(UnixStream) -> F + Send + 'static) -> Guest
where
    F: Future<Output = ()> + Send,
{
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        behave(stream).await;
    });
    Guest {
        socket: ChannelSocket::named(&socket),
        task,
        _folder: folder,
    }
}

/// Answers each request by what `answer` writes for its command and identity.
async fn serve(stream: UnixStream, mut answer: impl FnMut(&str, &str) -> Vec<u8>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    while read
        .read_until(b'\n', &mut line)
        .await
        .is_ok_and(|count| count > 0)
    {
        let text =
            String::from_utf8_lossy(line.strip_prefix(b"\xff").unwrap_or(&line)).into_owned();
        line.clear();
        let request = RequestLine::parse(text.trim_end()).unwrap();
        let reply = match &request.call {
            Call::GuestSyncDelimited(arguments) => {
                delimited_sync_line(arguments.id, ReplyTo::default())
            }
            call => {
                let id = request
                    .reply_to
                    .id
                    .as_ref()
                    .map(|id| id.as_json().to_owned());
                answer(call.name(), &id.unwrap_or_default())
            }
        };
        if write.write_all(&reply).await.is_err() {
            return;
        }
    }
}

fn ready(id: &str) -> Vec<u8> {
    format!(
        "{{\"return\": {{\"bond\": \"bond0\", \"ready\": true, \"traffic\": \"standby\", \
         \"released\": null, \"released-pci\": null, \"done\": []}}, \"id\": {id}}}\n"
    )
    .into_bytes()
}

const EVENT: &str = "{\"event\": \"events-lost\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \
    \"data\": {\"count\": 3}}\n{\"event\": \"from-the-future\", \"timestamp\": {}, \"data\": {}}\n";

/// A guest forgets a request together with the client before, if it hears late that that one has left.
#[tokio::test]
async fn a_request_that_the_guest_forgot_is_made_again() {
    let guest = guest(|stream| async {
        let mut stream = BufReader::new(stream);
        stream.read_until(b'\n', &mut Vec::new()).await.unwrap();
        serve(stream.into_inner(), |_, id| ready(id)).await;
    });
    let mut agent = Agent::connect(&guest.socket, PATIENT).await.unwrap();
    assert!(agent.resume(None).await.unwrap().ready);
}

#[tokio::test]
async fn a_guest_that_behaves_is_understood() {
    let guest = guest(|stream| {
        serve(stream, |command, id| {
            match command {
            "tandem-prepare-unplug" => [EVENT.as_bytes(), &ready(id)].concat(),
            "tandem-resume" => format!(
                "{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"no\\u0007\", \"code\": \"busy\"}}, \"id\": {id}}}\n"
            )
            .into_bytes(),
            _ => ready(id),
        }
        })
    });
    let mut agent = Agent::connect(&guest.socket, PATIENT).await.unwrap();
    let answer: Answer = agent.prepare_unplug(None, None).await.unwrap();
    assert!(answer.ready);
    let error = agent.resume(None).await.unwrap_err();
    assert!(matches!(error, AgentError::Refused { .. }), "{error}");
    assert!(!error.to_string().contains('\u{7}'), "{error}");
    assert!(agent.announce(None).await.unwrap().ready);
    assert_eq!(agent.next_event().await.unwrap(), Heard::Lost);
    let unknown = Heard::Unknown {
        name: "from-the-future".to_owned(),
    };
    assert_eq!(agent.next_event().await.unwrap(), unknown);
}

#[tokio::test]
async fn what_is_left_over_from_before_is_passed_over() {
    let guest = guest(|mut stream| async move {
        // Half a message from before a migration, then garbage and replies to somebody else.
        let before = b"tus\": {\"x\": 1}}, \"id\": 3}\n{\"return\": 7}\n\x00\xfe\xfe\n{\"return\": 1, \"id\": 2}\n{\"ha";
        stream.write_all(before).await.unwrap();
        serve(stream, |_, id| {
            let wrong = b"{\"return\": {}}\n{\"return\": {}, \"id\": 0}\n[]\n\n\"x\"\n";
            [wrong.as_slice(), &ready(id)].concat()
        })
        .await;
    });
    let mut agent = Agent::connect(&guest.socket, PATIENT).await.unwrap();
    assert!(agent.announce(None).await.unwrap().ready);
}

#[tokio::test]
async fn a_silent_guest_is_given_up_and_asked_again() {
    let mut late = None;
    let guest = guest(move |stream| {
        serve(stream, move |_, id| match late.take() {
            None => {
                late = Some(id.to_owned());
                Vec::new()
            }
            // The late reply comes first and must not be taken for the next one.
            Some(first) => {
                let line = format!("{{\"return\": \"late\", \"id\": {first}}}\n");
                [line.into_bytes(), ready(id)].concat()
            }
        })
    });
    let mut agent = Agent::connect(&guest.socket, PATIENT).await.unwrap();
    let call = Call::TandemStatus;
    let error = agent
        .call::<Answer>(call, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            AgentError::Silent {
                command: "tandem-status",
                ..
            }
        ),
        "{error}"
    );
    assert!(agent.announce(None).await.unwrap().ready);
}

#[tokio::test]
async fn a_guest_that_never_answers_or_reads_is_given_up() {
    for reads in [false, true] {
        let guest = guest(move |mut stream| async move {
            let mut bytes = [0; 64];
            while reads && stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
            std::future::pending::<()>().await;
        });
        let error = Agent::connect(&guest.socket, SHORT).await.unwrap_err();
        assert!(matches!(error, AgentError::Silent { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_endless_line_ends_the_call_with_little_memory() {
    let guest = guest(|mut stream| async move {
        let bytes = vec![b'x'; 1 << 20];
        while stream.write_all(&bytes).await.is_ok() {}
    });
    let error = Agent::connect(&guest.socket, PATIENT).await.unwrap_err();
    assert!(matches!(error, AgentError::Floods { .. }), "{error}");
}

#[tokio::test]
async fn a_flood_of_events_ends_the_call() {
    let guest = guest(|stream| serve(stream, |_, _| EVENT.repeat(100_000).into_bytes()));
    let mut agent = Agent::connect(&guest.socket, PATIENT).await.unwrap();
    let error = agent.announce(None).await.unwrap_err();
    assert!(matches!(error, AgentError::Floods { .. }), "{error}");
    assert_eq!(agent.next_event().await.unwrap(), Heard::Lost);
}

#[tokio::test]
async fn little_is_kept_of_what_is_said_unasked() {
    let long = EVENT.replace("from-the-future", &"x".repeat(10_000));
    let guest = guest(|stream| {
        serve(stream, move |_, id| {
            [long.repeat(100).into_bytes(), ready(id)].concat()
        })
    });
    let mut agent = Agent::connect(&guest.socket, PATIENT).await.unwrap();
    assert!(agent.announce(None).await.unwrap().ready);
    let mut kept = 0;
    let next = |agent: &mut Agent| {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(agent.next_event()).poll(&mut context) {
            std::task::Poll::Ready(heard) => heard.ok(),
            std::task::Poll::Pending => None,
        }
    };
    assert_eq!(next(&mut agent), Some(Heard::Lost));
    while next(&mut agent).is_some() {
        kept += 1;
    }
    // A quarter of a MiB, of a whole one; each second event is short.
    assert!((40..60).contains(&kept), "{kept} events were kept");
    assert!(agent.announce(None).await.unwrap().ready);
    agent.forget_events();
    assert_eq!(next(&mut agent), None);
}

#[tokio::test]
async fn lies_and_nonsense_are_told() {
    let guest = guest(|stream| {
        serve(stream, |command, id| {
            match command {
            "guest-info" => format!(
                "{{\"return\": {{\"version\": \"9\", \"tandem-protocol\": 99, \"supported_commands\": []}}, \"id\": {id}}}\n"
            )
            .into_bytes(),
            "tandem-status" => format!("{{\"return\": {}1{}, \"id\": {id}}}\n", "[".repeat(9000), "]".repeat(9000)).into_bytes(),
            _ => format!("{{\"return\": \"\\u001b[31m\", \"id\": {id}}}\n").into_bytes(),
        }
        })
    });
    let mut agent = Agent::connect(&guest.socket, SHORT).await.unwrap();
    let error = agent.info().await.unwrap_err();
    assert!(
        matches!(error, AgentError::OtherProtocol(no) if no.guest.max == 99),
        "{error}"
    );
    // Deeper than a parser should follow: no reply at all.
    let error = agent.status().await.unwrap_err();
    assert!(
        matches!(
            error,
            AgentError::Silent { .. } | AgentError::NotUnderstood { .. }
        ),
        "{error}"
    );
    let error = agent.announce(None).await.unwrap_err();
    assert!(matches!(error, AgentError::NotUnderstood { .. }), "{error}");
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}

#[tokio::test]
async fn a_closed_channel_is_told() {
    let guest = guest(|stream| async move { drop(stream) });
    let error = Agent::connect(&guest.socket, PATIENT).await.unwrap_err();
    assert!(matches!(error, AgentError::Closed), "{error}");
    let nowhere = ChannelSocket::named(&guest.socket.path.with_file_name("nowhere"));
    let error = Agent::connect(&nowhere, PATIENT).await.unwrap_err();
    assert!(matches!(error, AgentError::Socket { .. }), "{error}");
}
