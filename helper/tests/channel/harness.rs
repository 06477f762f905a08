//! A channel on a socket of its own, and clients that talk to it.

use std::future::Future;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use serde_json::{Value, json};
use tandem_guest::channel::{Channel, ChannelInput, ChannelOptions};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// A test that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// A channel and what it has asked of the service.
pub(crate) struct Harness {
    pub(crate) channel: Channel,
    /// Oldest first.
    pub(crate) inputs: Vec<ChannelInput>,
    path: PathBuf,
    _folder: TempDir,
}

impl Harness {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tandem.sock");
        Self {
            channel: open(&path).unwrap(),
            inputs: Vec::new(),
            path,
            _folder: folder,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs the channel while `work` is under way.
    pub(crate) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(tokio::time::timeout(LIMIT, work));
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result.expect("the work hangs"),
                input = self.channel.next() => self.inputs.push(input),
            }
        }
    }

    /// The next thing that the channel asks of the service.
    pub(crate) async fn input(&mut self) -> ChannelInput {
        if !self.inputs.is_empty() {
            return self.inputs.remove(0);
        }
        tokio::time::timeout(LIMIT, self.channel.next())
            .await
            .expect("the channel asks for nothing")
    }

    pub(crate) async fn connect(&mut self) -> Client {
        let path = self.path.clone();
        self.drive(Client::connect(&path)).await
    }

    /// Sends a request and takes the reply.
    pub(crate) async fn ask(&mut self, client: &mut Client, request: Value) -> Value {
        self.drive(async {
            client.send(&request.to_string()).await;
            client.receive().await
        })
        .await
    }

    /// Proves that this client is served.
    pub(crate) async fn assert_served(&mut self, client: &mut Client) {
        let reply = self
            .ask(client, json!({ "execute": "guest-ping", "id": 99 }))
            .await;
        assert_eq!(reply, json!({ "return": {}, "id": 99 }));
    }

    /// Sends requests and reads nothing, until all buffers are full and the channel
    /// takes no more though it serves `other`. Gives the number of whole requests.
    pub(crate) async fn stall(&mut self, client: &mut Client, other: &mut Client) -> usize {
        const REQUEST: &[u8] = b"{\"execute\":\"guest-info\"}\n";
        let mut bytes = 0;
        let mut refusals = 0;
        while refusals < 3 {
            match client.writer.try_write(&REQUEST[bytes % REQUEST.len()..]) {
                Ok(count) => {
                    bytes += count;
                    refusals = 0;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    refusals += 1;
                    self.assert_served(other).await;
                }
                Err(e) => panic!("{e}"),
            }
            assert!(bytes < 64 << 20, "the channel takes requests without end");
        }
        bytes / REQUEST.len()
    }
}

pub(crate) fn open(path: &Path) -> Result<Channel, tandem_guest::channel::ChannelError> {
    Channel::with_options(ChannelOptions {
        socket: Some(path.to_owned()),
        port: None,
    })
}

/// Runs a test on the service's kind of runtime.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

pub(crate) struct Client {
    pub(crate) reader: BufReader<OwnedReadHalf>,
    pub(crate) writer: OwnedWriteHalf,
}

impl Client {
    async fn connect(path: &Path) -> Self {
        let (reader, writer) = UnixStream::connect(path).await.unwrap().into_split();
        Self {
            reader: BufReader::new(reader),
            writer,
        }
    }

    pub(crate) async fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }

    /// The next line's bytes; empty at the end.
    pub(crate) async fn receive_bytes(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).await.unwrap();
        line
    }

    pub(crate) async fn receive(&mut self) -> Value {
        serde_json::from_slice(&self.receive_bytes().await).unwrap()
    }

    /// Resynchronises as a host does after a time-out, whatever is still on its way.
    pub(crate) async fn sync(&mut self, number: i64) {
        let request = json!({ "execute": "guest-sync-delimited", "arguments": { "id": number } });
        self.send_bytes(&[b"\xff", request.to_string().as_bytes(), b"\n"].concat())
            .await;
        let mut before = Vec::new();
        self.reader.read_until(0xff, &mut before).await.unwrap();
        assert_eq!(before.pop(), Some(0xff));
        assert_eq!(self.receive().await, json!({ "return": number }));
    }

    /// Everything up to the end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).await.unwrap();
        rest
    }
}
