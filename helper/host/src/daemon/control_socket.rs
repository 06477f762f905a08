//! The control socket's answering end: [`crate::control`] says what goes over it.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::geteuid;
use tandem_wire::framing::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::lease::HostLeases;
use super::options::ServeError;
use super::registry::Registry;
use crate::control::{ControlReply, ControlRequest, MAX_REQUEST_BYTES};

/// Most connections at once: leases of a host's whole evacuation, and some who watch.
const MAX_CLIENTS: usize = 512;
/// A client has so long to ask, and to take each line.
const PATIENCE: Duration = Duration::from_secs(10);

/// The socket; removed when it is dropped.
#[derive(Debug)]
pub(super) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Ends with this process, however it ends. The file stays: where it is removed, two processes can hold
    /// a lock each, on the file that was and on the one that is.
    _lock: File,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Whoever asks from now on learns at once that nobody is there.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What clients are answered from.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    pub(super) uri: String,
    pub(super) registry: Arc<Registry>,
    pub(super) host_leases: Arc<HostLeases>,
}

impl ControlSocket {
    /// Opens the socket for this user only.
    pub(super) fn open(path: &Path) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Socket {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let beside = |ending: &str| {
            let mut name = path.to_owned().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        let taken = || ServeError::Taken {
            path: path.to_owned(),
        };
        // Of two that start at the same time, neither would hear the other yet.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let lock = options.open(beside(".lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => taken(),
            TryLockError::Error(source) => failed(source),
        })?;
        // One that a killed process left is replaced, and not that of one without a lock.
        if StdStream::connect(path).is_ok() {
            return Err(taken());
        }
        // Under its name only once it is closed to others.
        let new = beside(".new");
        let _ = std::fs::remove_file(&new);
        let listener = UnixListener::bind(&new).map_err(failed)?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o600)).map_err(failed)?;
        std::fs::rename(&new, path).map_err(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Answers until dropped.
    pub(super) async fn serve(self, answers: Answers) {
        let seats = Arc::new(Semaphore::new(MAX_CLIENTS));
        let mut clients = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = clients.join_next() => continue,
            };
            let mut stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("control socket: {error}");
                    // Out of file descriptors, most likely.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
                let message = format!("{MAX_CLIENTS} clients are connected already");
                let _ = stream.try_write(&ControlReply::Error { message }.to_line());
                continue;
            };
            let answers = answers.clone();
            clients.spawn(async move {
                let _seat = seat;
                answers.client(&mut stream).await;
            });
        }
    }
}

impl Answers {
    async fn client(&self, stream: &mut UnixStream) {
        let uid = stream.peer_cred().map(|peer| peer.uid());
        if !uid.is_ok_and(|uid| uid == 0 || uid == geteuid().as_raw()) {
            return;
        }
        let request = match timeout(PATIENCE, request(stream)).await {
            Ok(Some(Ok(request))) => request,
            Ok(Some(Err(message))) => {
                send(stream, &ControlReply::Error { message }).await;
                return;
            }
            Ok(None) | Err(_) => return,
        };
        match request {
            ControlRequest::Carried { figures } => {
                self.registry.carried(&figures);
                send(stream, &ControlReply::Counted {}).await;
            }
            ControlRequest::Lease { domain } => self.lease(stream, &domain).await,
            ControlRequest::Status { uri, domain } => {
                if self.is_ours(stream, &uri).await {
                    self.now(stream, domain.as_deref()).await;
                }
            }
            ControlRequest::Watch { uri, domain } => {
                if self.is_ours(stream, &uri).await {
                    self.watch(stream, domain.as_deref()).await;
                }
            }
        }
    }

    async fn is_ours(&self, stream: &mut UnixStream, uri: &str) -> bool {
        if uri == self.uri {
            return true;
        }
        let uri = self.uri.clone();
        send(stream, &ControlReply::OtherHost { uri }).await;
        false
    }

    /// The channel is the client's for as long as it is connected.
    async fn lease(&self, stream: &mut UnixStream, domain: &str) {
        let lease = self.host_leases.of(domain).lease();
        let lease = tokio::select! {
            lease = lease => lease,
            () = hung_up(stream) => return,
        };
        tracing::debug!("the channel of domain {domain} is leased");
        if send(stream, &ControlReply::Leased {}).await {
            hung_up(stream).await;
        }
        drop(lease);
        tracing::debug!("the channel of domain {domain} is given back");
    }

    /// What is known now. False if the client has gone.
    async fn now(&self, stream: &mut UnixStream, domain: Option<&str>) -> bool {
        let names = match domain {
            Some(domain) => vec![domain.to_owned()],
            None => self.registry.names(),
        };
        for name in names {
            if let Some(reply) = self.registry.one(&name)
                && !send(stream, &reply).await
            {
                return false;
            }
        }
        send(stream, &ControlReply::Current {}).await
    }

    async fn watch(&self, stream: &mut UnixStream, domain: Option<&str>) {
        let mut changes = self.registry.subscribe();
        let mut sequence = self.registry.sequence();
        if !self.now(stream, domain).await {
            return;
        }
        loop {
            changes.mark_unchanged();
            while let Some((at, reply)) = self.registry.after(sequence, domain) {
                sequence = at;
                if !send(stream, &reply).await {
                    return;
                }
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = hung_up(stream) => return,
            }
        }
    }
}

/// The request, or what is wrong with it; `None` if the client hung up.
async fn request(stream: &mut UnixStream) -> Option<Result<ControlRequest, String>> {
    let mut decoder = Decoder::new(MAX_REQUEST_BYTES);
    let mut bytes = [0; 1024];
    loop {
        let count = stream
            .read(&mut bytes)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        let mut input = &bytes[..count];
        if let Some(line) = decoder.next_line(&mut input) {
            let line = line.map_err(|error| error.to_string());
            return Some(line.and_then(|line| {
                serde_json::from_str(&line).map_err(|error| format!("no request: {error}"))
            }));
        }
    }
}

/// Waits for the client's end. What it says meanwhile is read and forgotten.
async fn hung_up(stream: &mut UnixStream) {
    let mut bytes = [0; 64];
    while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}

/// False if the client does not take it.
async fn send(stream: &mut UnixStream, reply: &ControlReply) -> bool {
    let sent = timeout(PATIENCE, stream.write_all(&reply.to_line())).await;
    matches!(sent, Ok(Ok(())))
}
