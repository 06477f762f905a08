//! The commands that ask the service, against a channel in another thread and
//! against services that misbehave.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use tandem_core::Status;
use tandem_core::input::{Command as Asked, CommandId, Input, Request};
use tandem_core::policy::Origin;
use tandem_core::status::{Answer, CommandError, CommandErrorCode, Event, ProblemCode, Traffic};
use tandem_guest::ask::{AskError, carry_out};
use tandem_guest::channel::{Channel, ChannelInput, ChannelOptions};
use tandem_guest::cli::{Cli, Command, exit};
use tandem_guest::client::{Client, ClientError};
use tandem_guest::render::Style;
use tandem_wire::Call;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Longer than any answer here takes, so that it only ends a test that hangs.
const LIMIT: Duration = Duration::from_secs(60);

fn socket() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tandem.sock");
    (folder, path)
}

/// Runs `tandem ARGUMENTS` and gives its result and output.
fn tandem(socket: &Path, arguments: &str) -> (Result<u8, AskError>, String) {
    let line = format!("tandem {arguments} --socket {}", socket.display());
    let Command::Ask(ask) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
        panic!("{line} asks nothing");
    };
    let mut out = Vec::new();
    let result = carry_out(ask, Style::Plain, &mut out);
    (result, String::from_utf8(out).unwrap())
}

/// A service in a thread of its own, until it is dropped.
struct Service {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

/// Serves the socket; `answer` carries out the commands.
fn serve(
    path: &Path,
    mut answer: impl FnMut(&mut Channel, CommandId, Request) + Send + 'static,
) -> Service {
    let options = ChannelOptions {
        socket: Some(path.to_owned()),
        port: None,
    };
    let (stop, mut stopped) = oneshot::channel();
    let (ready, started) = mpsc::channel();
    let service = async move {
        let mut channel = Channel::with_options(options).unwrap();
        channel.publish(&Status {
            generation: 3,
            policy: Origin::File,
            ..Status::default()
        });
        ready.send(()).unwrap();
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                input = channel.next() => match input {
                    ChannelInput::Input(Input::Command(Asked { id, request, .. })) => answer(&mut channel, id, request),
                    other => panic!("{other:?}"),
                },
            }
        }
    };
    let thread = thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(service);
    });
    started.recv_timeout(LIMIT).unwrap();
    Service {
        stop: Some(stop),
        thread: Some(thread),
    }
}

fn nothing_is_asked(_: &mut Channel, _: CommandId, request: Request) {
    panic!("{request:?}");
}

fn answer(done: &str) -> Answer {
    Answer {
        bond: "bond0".parse().unwrap(),
        ready: true,
        traffic: Traffic::Standby,
        released: None,
        released_pci: None,
        done: vec![done.to_owned()],
    }
}

#[test]
fn status_as_text_and_as_json() {
    let (_folder, path) = socket();
    let _service = serve(&path, nothing_is_asked);
    let (result, text) = tandem(&path, "status");
    assert_eq!(result.unwrap(), exit::OK);
    assert_eq!(
        text,
        format!(
            "tandem {}, configured by the guest's files\n",
            env!("CARGO_PKG_VERSION")
        )
    );
    let (result, text) = tandem(&path, "status --json");
    assert_eq!(result.unwrap(), exit::OK);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["status"]["generation"], 3);
    assert_eq!(report["tandem-protocol"], 1);
}

#[test]
fn commands_reach_the_service_with_their_arguments() {
    let bond = Some("bond0".parse().unwrap());
    let cases = [
        ("failover", Request::Failover { bond: None }),
        ("failback bond0", Request::Failback { bond: bond.clone() }),
        ("announce bond0", Request::Announce { bond: bond.clone() }),
        ("resume", Request::Resume { bond: None }),
        (
            "prepare-unplug bond0 --vf 52:54:00:00:00:02",
            Request::PrepareUnplug {
                bond,
                vf: Some("52:54:00:00:00:02".parse().unwrap()),
            },
        ),
    ];
    let (_folder, path) = socket();
    let _service = serve(&path, |channel, id, request| {
        channel.reply(id, Ok(answer(&format!("{request:?}"))));
    });
    for (arguments, request) in cases {
        let (result, text) = tandem(&path, arguments);
        assert_eq!(result.unwrap(), exit::OK);
        assert_eq!(
            text,
            format!("bond0: done; the standby carries the traffic\n  {request:?}\n")
        );
    }
}

#[test]
fn a_refusal_is_told_in_the_services_words() {
    let (_folder, path) = socket();
    let _service = serve(&path, |channel, id, _| {
        let error = CommandError {
            code: CommandErrorCode::UnknownBond,
            message: "there is no bond `x`".to_owned(),
        };
        channel.reply(id, Err(error));
    });
    let (result, text) = tandem(&path, "failover x");
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "there is no bond `x`");
    assert_eq!(error.exit_status(), exit::FAILED);
    assert_eq!(text, "");
}

#[test]
fn what_is_not_ready_is_a_failure() {
    let (_folder, path) = socket();
    let _service = serve(&path, |channel, id, _| {
        let answer = Answer {
            ready: false,
            ..answer("nothing")
        };
        channel.reply(id, Ok(answer));
    });
    let (result, text) = tandem(&path, "prepare-unplug");
    assert_eq!(result.unwrap(), exit::FAILED);
    assert!(text.contains("not done yet"), "{text}");
}

#[test]
fn a_service_that_does_not_run_has_its_own_exit_status() {
    let (_folder, path) = socket();
    let missing = tandem(&path, "status").0.unwrap_err();
    assert_eq!(missing.exit_status(), exit::NOT_RUNNING);
    drop(UnixListener::bind(&path).unwrap());
    let dead = tandem(&path, "failover").0.unwrap_err();
    assert_eq!(dead.exit_status(), exit::NOT_RUNNING);
    assert!(
        dead.to_string().contains("systemctl start tandem"),
        "{dead}"
    );
}

#[test]
fn a_service_that_does_not_answer_is_given_up() {
    let (_folder, path) = socket();
    let _listener = UnixListener::bind(&path).unwrap();
    let error = tandem(&path, "status --timeout 1").0.unwrap_err();
    assert_eq!(error.exit_status(), exit::TIMED_OUT);
}

#[test]
fn a_reply_that_comes_too_late_is_not_taken_for_the_next_one() {
    let (_folder, path) = socket();
    let mut late = None;
    let _service = serve(&path, move |channel, id, request| match late.take() {
        None => late = Some(id),
        Some(first) => {
            channel.reply(first, Ok(answer("too late")));
            channel.reply(id, Ok(answer(&format!("{request:?}"))));
        }
    });
    let mut client = Client::connect(&path).unwrap();
    let first = Call::Command(Request::Failover { bond: None });
    let error = client
        .call::<Answer>(first, Duration::from_millis(50))
        .unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error:?}");
    let second = Call::Command(Request::Failback { bond: None });
    let reply: Answer = client.call(second, LIMIT).unwrap();
    assert_eq!(reply, answer("Failback { bond: None }"));
}

/// Answers the first request of one client with these bytes and hangs up.
fn answer_with(path: &Path, bytes: &'static [u8]) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).unwrap();
        stream.write_all(bytes).unwrap();
    })
}

#[test]
fn damaged_replies_are_errors_with_a_reason() {
    for (bytes, reason) in [
        (&b""[..], "closed the connection"),
        (b"half a li", "closed the connection"),
        (b"\xc3\x28\n", "damaged"),
        (b"{}\n", "neither a reply nor an event"),
        (
            b"{\"return\":{},\"id\":1}\n",
            "not what that command returns",
        ),
        (
            b"{\"error\":{\"class\":\"GenericError\",\"desc\":\"16 local clients\"}}\n",
            "16 local clients",
        ),
    ] {
        let (_folder, path) = socket();
        let service = answer_with(&path, bytes);
        let error = tandem(&path, "status").0.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(error.exit_status(), exit::FAILED);
        service.join().unwrap();
    }
}

/// Output that a test reads while the command goes on.
struct Lines(mpsc::Sender<String>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        self.0.send(text).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn watch_prints_events_until_the_service_stops() {
    for (option, expected) in [
        ("", "bond0: solved: flapping\n"),
        (
            " --json",
            "\"data\":{\"bond\":\"bond0\",\"code\":\"flapping\"}}\n",
        ),
    ] {
        let (_folder, path) = socket();
        let service = serve(&path, |channel, id, _| {
            channel.notify(&Event::ProblemCleared {
                bond: "bond0".parse().unwrap(),
                code: ProblemCode::Flapping,
            });
            channel.reply(id, Ok(answer("told")));
        });
        let (sender, lines) = mpsc::channel();
        let line = format!("tandem status --watch{option} --socket {}", path.display());
        let watch = thread::spawn(move || {
            let Command::Ask(ask) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
                panic!("{line} asks nothing");
            };
            carry_out(ask, Style::Plain, &mut Lines(sender)).unwrap()
        });
        let status = lines.recv_timeout(LIMIT).unwrap();
        assert!(status.contains("tandem"), "{status}");
        tandem(&path, "announce").0.unwrap();
        let mut event = lines.recv_timeout(LIMIT).unwrap();
        if event == "\n" {
            event = lines.recv_timeout(LIMIT).unwrap();
        }
        assert!(event.ends_with(expected), "{event}");
        drop(service);
        assert_eq!(watch.join().unwrap(), exit::OK);
    }
}
