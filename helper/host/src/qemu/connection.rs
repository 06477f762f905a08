//! The one connection to a QEMU, made anew when it breaks, and the events of all of them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::qmp::{Qmp, QmpError, QmpEvent, Unasked};
use crate::hypervisor::{DomainEvent, EventKind, EventSender, HostError, Lifecycle};

/// Between two attempts to reach a QEMU whose events are wanted, doubled each time.
const BACK_OFF: Duration = Duration::from_millis(500);
/// Longest time between two attempts.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
/// Name of the domain in events: QEMU's events don't tell, and there is only one.
const ONLY_DOMAIN: Option<String> = None;

/// Keeps at most one connection open.
#[derive(Debug)]
pub(super) struct Connection {
    uri: String,
    socket: PathBuf,
    qmp: tokio::sync::Mutex<Option<Qmp>>,
    readers: Arc<Mutex<Vec<EventSender>>>,
}

impl Connection {
    pub(super) fn new(uri: &str, socket: &Path) -> Self {
        Self {
            uri: uri.to_owned(),
            socket: socket.to_owned(),
            qmp: tokio::sync::Mutex::new(None),
            readers: Arc::default(),
        }
    }

    pub(super) async fn execute(
        &self,
        command: &str,
        arguments: Value,
    ) -> Result<Value, HostError> {
        self.try_execute(command, arguments)
            .await
            .map_err(|error| self.explain(command, error))
    }

    pub(super) async fn try_execute(
        &self,
        command: &str,
        arguments: Value,
    ) -> Result<Value, QmpError> {
        self.open().await?.execute(command, arguments).await
    }

    pub(super) fn explain(&self, command: &str, error: QmpError) -> HostError {
        let host = self.uri.clone();
        let what = command.to_owned();
        match error {
            QmpError::Unreachable { reason, .. } => HostError::Unreachable { host, reason },
            QmpError::TimedOut { .. } => HostError::TimedOut {
                host,
                what,
                limit: super::qmp::LIMIT,
            },
            QmpError::Refused { desc, .. } => HostError::Refused {
                host,
                what,
                reason: crate::agent::printable(&desc),
            },
        }
    }

    /// The open connection, or a new one.
    async fn open(&self) -> Result<Qmp, QmpError> {
        let mut open = self.qmp.lock().await;
        if let Some(qmp) = open.as_ref().filter(|qmp| !qmp.is_closed()) {
            return Ok(qmp.clone());
        }
        let readers = Arc::clone(&self.readers);
        let qmp = Qmp::connect(&self.socket, move |unasked| forward(&readers, unasked)).await?;
        // What happened while nobody was connected is unknown.
        send(&self.readers, &DomainEvent::lost());
        let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        // Without it a migration's end is found by asking only; a QEMU that migrates refuses it.
        let _ = qmp.execute("migrate-set-capabilities", events).await;
        *open = Some(qmp.clone());
        Ok(qmp)
    }

    /// Sends events to this reader from now on, and keeps the connection open for them.
    pub(super) fn subscribe(self: &Arc<Self>, sender: EventSender) {
        lock(&self.readers).push(sender.clone());
        let connection = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = connection.stay_connected() => {}
                () = sender.closed() => {}
            }
        });
    }

    async fn stay_connected(&self) {
        let mut back_off = BACK_OFF;
        loop {
            if let Ok(qmp) = self.open().await {
                back_off = BACK_OFF;
                qmp.closed().await;
                send(&self.readers, &DomainEvent::lost());
            }
            sleep(back_off).await;
            back_off = (back_off * 2).min(MAX_BACK_OFF);
        }
    }
}

fn forward(readers: &Mutex<Vec<EventSender>>, unasked: Unasked) {
    match unasked {
        Unasked::Lost => send(readers, &DomainEvent::lost()),
        Unasked::Event(event) => {
            if let Some(kind) = meaning(&event) {
                let domain = ONLY_DOMAIN;
                send(readers, &DomainEvent { domain, kind });
            }
        }
    }
}

/// Sends to all readers and forgets those that are gone.
fn send(readers: &Mutex<Vec<EventSender>>, event: &DomainEvent) {
    lock(readers).retain(|reader| reader.send(event.clone()));
}

fn lock(readers: &Mutex<Vec<EventSender>>) -> std::sync::MutexGuard<'_, Vec<EventSender>> {
    readers.lock().expect("no holder panics")
}

/// What an event of QEMU means (QEMU 10.0, qapi/*.json); `None` if nothing here.
pub(super) fn meaning(event: &QmpEvent) -> Option<EventKind> {
    // Parts of a device leave with events of their own, without a name.
    let device = || Some(event.data["device"].as_str()?.to_owned());
    Some(match event.name.as_str() {
        "DEVICE_DELETED" => EventKind::DeviceRemoved { alias: device()? },
        "DEVICE_UNPLUG_GUEST_ERROR" => EventKind::UnplugRefused { alias: device()? },
        "VSERPORT_CHANGE" => EventKind::Agent {
            connected: event.data["open"].as_bool()?,
        },
        "STOP" => EventKind::Lifecycle(Lifecycle::Paused),
        "RESUME" => EventKind::Lifecycle(Lifecycle::Resumed),
        "SHUTDOWN" => EventKind::Lifecycle(Lifecycle::Stopped),
        "RESET" => EventKind::Reboot,
        "MIGRATION" => match event.data["status"].as_str()? {
            "completed" | "failed" | "cancelled" => EventKind::JobFinished,
            _ => return None,
        },
        _ => return None,
    })
}
