//! A guest behind a socket that takes one client after the other, as QEMU's does.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tandem_wire::message::{Call, Received, ReplyTo, RequestLine};
use tandem_wire::reply::delimited_sync_line;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// What it is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// As it should be.
    Honest,
    /// Reads everything and says nothing.
    Silent,
    /// Answers, and sends events without end.
    Floods,
    /// Sends one line that never ends.
    EndlessLine,
    /// Hangs up at once, each time.
    HangsUp,
    /// Answers the wrong things.
    Lies,
    /// Answers with the ids of other questions.
    WrongIds,
    /// Says that all is well and the VF may go, whatever is so.
    SaysReady,
    /// Says that all is well, and never that the VF may go.
    NeverReady,
    /// Does not take its bonds.
    Refuses,
    /// Has bonds of its own, and says that it knows [`VF_MAC`].
    KnowsVf,
    /// The same with another MAC.
    KnowsOther,
    /// The same, and does not say what it knows, as an older one.
    KnowsUnsaid,
    /// Speaks no version of the messages that the host does.
    OtherMessages,
    /// As [`Manner::SaysReady`], and does not know a key of its bonds.
    Older,
}

/// The guest; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) socket: PathBuf,
    /// Commands in order, but for those that find a common start; and each new client.
    pub(super) commands: mpsc::UnboundedReceiver<&'static str>,
    generation: watch::Sender<u64>,
    /// Bytes that clients took.
    pub(super) taken: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Guest {
    pub(super) fn new(socket: &Path, manner: Manner) -> Self {
        let (told, commands) = mpsc::unbounded_channel();
        let listener = UnixListener::bind(socket).unwrap();
        let generation = watch::Sender::new(1);
        let changes = generation.subscribe();
        let taken = Arc::new(Mutex::new(0));
        let count = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = told.send("client");
                match manner {
                    Manner::HangsUp => {}
                    Manner::EndlessLine => endless(stream, &count).await,
                    _ => talk(stream, manner, &told, changes.clone(), &count).await,
                }
            }
        });
        Self {
            socket: socket.to_owned(),
            commands,
            generation,
            taken,
            task,
        }
    }

    /// Something happens in it: its status is another, and it says so to who subscribed.
    pub(super) fn changes(&self) -> u64 {
        self.generation.send_modify(|generation| *generation += 1);
        *self.generation.borrow()
    }

    /// Waits for the next status, and says whether the guest was configured before it.
    pub(super) async fn configured_before_status(&mut self) -> bool {
        let mut configured = false;
        loop {
            match self.commands.recv().await.unwrap() {
                "tandem-configure" => configured = true,
                "tandem-status" => return configured,
                _ => {}
            }
        }
    }
}

async fn endless(mut stream: UnixStream, taken: &Mutex<usize>) {
    let bytes = vec![b'x'; 1 << 16];
    let mut sent = 0;
    // 1 GiB, if anybody took it.
    while sent < 1 << 30 && stream.write_all(&bytes).await.is_ok() {
        sent += bytes.len();
        *taken.lock().unwrap() += bytes.len();
    }
}

async fn talk(
    stream: UnixStream,
    manner: Manner,
    told: &mpsc::UnboundedSender<&'static str>,
    mut changes: watch::Receiver<u64>,
    taken: &Mutex<usize>,
) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut subscribed = false;
    let mut line = Vec::new();
    loop {
        tokio::select! {
            count = read.read_until(b'\n', &mut line) => {
                if !count.is_ok_and(|count| count > 0) {
                    return;
                }
                let bytes = line.strip_prefix(b"\xff").unwrap_or(&line).to_vec();
                line.clear();
                if manner == Manner::Silent {
                    continue;
                }
                let text = String::from_utf8(bytes).unwrap();
                let request = RequestLine::parse(text.trim_end()).unwrap();
                subscribed |= matches!(request.call, Call::TandemSubscribe);
                let generation = *changes.borrow_and_update();
                let reply = reply(&request, generation, manner);
                if write.write_all(&reply).await.is_err() {
                    return;
                }
                if !matches!(request.call, Call::GuestSyncDelimited(_)) {
                    let _ = told.send(request.call.name());
                }
                if subscribed && manner == Manner::Floods {
                    flood(&mut write, taken).await;
                    return;
                }
            }
            changed = changes.changed(), if subscribed => {
                if changed.is_err() || write.write_all(EVENT.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// With a standby that could carry the traffic, and a VF that does.
const BOND: &str = r#"{"name": "bond0", "ifindex": null, "mac": null, "state": "accelerated", "traffic": "vf",
    "reason": "all is well", "vf": null, "addresses": [], "problems": [], "next-deadline": null, "switchovers": [],
    "switchover-count": 0, "standby": {"name": "enp1s0", "ifindex": 2, "mac": null, "pci": null, "driver": null,
    "enslaved": true, "active": false, "carrier": true, "held": null}}"#;

/// The VF's, if it knows it.
pub(super) const VF_MAC: &str = "52:54:00:00:00:02";

const EVENT: &str = "{\"event\": \"state-changed\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \
    \"data\": {\"bond\": \"bond0\", \"state\": \"standby\", \"traffic\": \"standby\", \"reason\": \"asked\"}}\n";

async fn flood(write: &mut OwnedWriteHalf, taken: &Mutex<usize>) {
    let many = EVENT.repeat(500);
    while write.write_all(many.as_bytes()).await.is_ok() {
        *taken.lock().unwrap() += many.len();
    }
}

/// What a guest with bonds of its own says of its VF; empty if it says nothing.
fn own_vf(manner: Manner) -> Option<&'static str> {
    let all = [
        (Manner::KnowsVf, VF_MAC),
        (Manner::KnowsOther, "52:54:00:00:00:99"),
        (Manner::KnowsUnsaid, ""),
    ];
    let known = all.into_iter().find(|(one, _)| *one == manner);
    known.map(|(_, mac)| mac)
}

fn reply(request: &Received, generation: u64, manner: Manner) -> Vec<u8> {
    let id = match &request.reply_to.id {
        Some(_) if manner == Manner::WrongIds => "\"another\"",
        id => id.as_ref().map_or("null", |id| id.as_json()),
    };
    let value = match &request.call {
        Call::GuestSyncDelimited(sync) => return delimited_sync_line(sync.id, ReplyTo::default()),
        Call::GuestInfo(_) if manner == Manner::OtherMessages => {
            "{\"version\": \"9\", \"tandem-protocol\": 99, \"protocols\": {\"min\": 99, \"max\": 99}, \
             \"supported_commands\": []}"
                .to_owned()
        }
        Call::TandemConfigure(_) if manner == Manner::Older => {
            let value = "{\"bonds\": [\"bond0\"], \"changed\": true}";
            let ignored = "[\"arguments.bonds.0.path-check\"]";
            let line = format!("{{\"return\": {value}, \"ignored\": {ignored}, \"id\": {id}}}\n");
            return line.into_bytes();
        }
        Call::GuestInfo(_) => {
            "{\"version\": \"1\", \"tandem-protocol\": 1, \"supported_commands\": []}".to_owned()
        }
        Call::TandemConfigure(_) if manner == Manner::Refuses || own_vf(manner).is_some() => {
            let error = "{\"class\": \"GenericError\", \"desc\": \"I do not want them\", \"code\": \"defined-by-file\"}";
            return format!("{{\"error\": {error}, \"id\": {id}}}\n").into_bytes();
        }
        _ if manner == Manner::Lies => "{\"bonds\": 7, \"status\": \"\\u001b[31m\"}".to_owned(),
        Call::TandemConfigure(_) => "{\"bonds\": [\"bond0\"], \"changed\": true}".to_owned(),
        Call::TandemSubscribe => "{}".to_owned(),
        Call::Command(_) => {
            let says_ready = [Manner::SaysReady, Manner::Older].contains(&manner);
            let ready = says_ready || own_vf(manner).is_some();
            format!(
                "{{\"bond\": \"bond0\", \"ready\": {ready}, \"traffic\": \"standby\", \"released\": null, \
                 \"released-pci\": null, \"done\": []}}"
            )
        }
        _ => {
            let with_bond = [Manner::SaysReady, Manner::NeverReady, Manner::Older];
            let has_bond = with_bond.contains(&manner);
            let (policy, bonds) = match own_vf(manner) {
                Some("") => ("file", BOND.to_owned()),
                Some(mac) => {
                    let known = format!("{{\"known-vfs\": [{{\"mac\": \"{mac}\"}}], \"name\"");
                    ("file", BOND.replacen("{\"name\"", &known, 1))
                }
                None if has_bond => ("host", BOND.to_owned()),
                None => ("host", String::new()),
            };
            let bonds = bonds.replace('\n', " ");
            format!(
                "{{\"tandem-protocol\": 1, \"version\": \"1\", \"now\": 1, \"status\": {{\"generation\": \
                 {generation}, \"policy\": \"{policy}\", \"bonds\": [{bonds}], \"sources\": []}}}}"
            )
        }
    };
    format!("{{\"return\": {value}, \"id\": {id}}}\n").into_bytes()
}
