//! What happens at a hypervisor, on a bounded queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

/// Events that wait for their reader; beyond that they are lost, which is told.
const QUEUE: usize = 1024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainEvent {
    /// The domain; `None` for [`EventKind::Lost`] and what concerns all.
    pub domain: Option<String>,
    /// What happened.
    pub kind: EventKind,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A device has left.
    DeviceRemoved {
        /// Its alias.
        alias: String,
    },
    /// A device has arrived.
    DeviceAdded {
        /// Its alias.
        alias: String,
    },
    /// The guest refused to release a device.
    UnplugRefused {
        /// Its alias.
        alias: String,
    },
    /// The guest opened or closed its end of a channel.
    Agent {
        /// It is open.
        connected: bool,
    },
    /// The domain started, stopped, or changed otherwise.
    Lifecycle(Lifecycle),
    /// A migration or another job ended; how, [`super::Look::job`] tells.
    JobFinished,
    /// The guest restarted within the same process.
    Reboot,
    /// The bonds or the progress in its XML may be others.
    MetadataChanged,
    /// Events may be missing: look at everything anew.
    Lost,
}

/// How a domain's life changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lifecycle {
    /// It was defined, or its definition changed.
    Defined,
    /// Its definition was removed.
    Undefined,
    /// It started, or arrived by migration.
    Started,
    /// Its processors stand still.
    Paused,
    /// Its processors run again.
    Resumed,
    /// It ended, or left by migration.
    Stopped,
}

/// The reading end.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<DomainEvent>,
    lost: Arc<AtomicBool>,
}

/// The driver's end.
#[derive(Debug, Clone)]
pub struct EventSender {
    queue: mpsc::Sender<DomainEvent>,
    lost: Arc<AtomicBool>,
}

/// A queue of at most 1,024 events.
pub fn event_queue() -> (EventSender, Events) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let lost = Arc::new(AtomicBool::new(false));
    let events = Events {
        queue: receiver,
        lost: Arc::clone(&lost),
    };
    (
        EventSender {
            queue: sender,
            lost,
        },
        events,
    )
}

impl Events {
    /// Waits for the next event. `None` once the driver is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<DomainEvent> {
        if self.lost.swap(false, Ordering::AcqRel) {
            return Some(DomainEvent::lost());
        }
        self.queue.recv().await
    }
}

impl EventSender {
    /// Adds an event; never waits. False once nobody reads any more.
    pub fn send(&self, event: DomainEvent) -> bool {
        match self.queue.try_send(event) {
            Ok(()) => true,
            // The full queue keeps its reader awake, so the mark is seen.
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.lost.store(true, Ordering::Release);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Ends once nobody reads any more.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }
}

impl DomainEvent {
    /// Events may be missing.
    pub fn lost() -> Self {
        Self {
            domain: None,
            kind: EventKind::Lost,
        }
    }

    /// Something that happened to a domain.
    pub fn of(domain: &str, kind: EventKind) -> Self {
        Self {
            domain: Some(domain.to_owned()),
            kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_overrun_is_told_and_what_was_kept_follows() {
        let (sender, mut events) = event_queue();
        for _ in 0..=QUEUE {
            assert!(sender.send(DomainEvent::of("a", EventKind::Reboot)));
        }
        assert_eq!(events.next().await, Some(DomainEvent::lost()));
        for _ in 0..QUEUE {
            assert_eq!(
                events.next().await,
                Some(DomainEvent::of("a", EventKind::Reboot))
            );
        }
        drop(sender);
        assert_eq!(events.next().await, None);
    }

    #[tokio::test]
    async fn the_driver_learns_that_nobody_reads() {
        let (sender, events) = event_queue();
        drop(events);
        sender.closed().await;
        assert!(!sender.send(DomainEvent::lost()));
    }
}
