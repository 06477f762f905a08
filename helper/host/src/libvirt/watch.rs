//! What happens at libvirt, as two long-running `virsh` print it: libvirt's own events,
//! and QEMU's about channels, for which libvirt has none but for the guest agent's.

use std::time::Duration;

use tandem_wire::framing::Decoder;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use super::read;
use super::run::{Connection, OnDrop};
use crate::hypervisor::{DomainEvent, EventSender};

/// Longest line that is read; longer ones are passed over.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// virsh does not say when it has begun to listen. What happens before that is found by looking
/// once more, this much later.
const SETTLED: Duration = Duration::from_secs(2);
/// A virsh that ended is started again after this, doubled each time, as long as it does not last.
const BACK_OFF: Duration = Duration::from_secs(1);
/// Longest time between two starts.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

/// A virsh that closed its output has so long to end.
const END: Duration = Duration::from_secs(5);

/// A source of events.
#[derive(Clone, Copy)]
struct EventSource {
    arguments: &'static [&'static str],
    read: fn(&str) -> Option<DomainEvent>,
}

const LIBVIRT: EventSource = EventSource {
    arguments: &["event", "--all", "--loop", "--timestamp"],
    read: read::event,
};
const CHANNELS: EventSource = EventSource {
    arguments: &[
        "qemu-monitor-event",
        "--event=VSERPORT_CHANGE",
        "--loop",
        "--timestamp",
    ],
    read: read::monitor_event,
};

/// Watches until nobody reads the events any more.
pub(super) fn start(connection: &Connection, sender: &EventSender) {
    for source in [LIBVIRT, CHANNELS] {
        let (connection, sender) = (connection.clone(), sender.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = keep_watching(&connection, source, &sender) => {}
                () = sender.closed() => {}
            }
        });
    }
}

async fn keep_watching(connection: &Connection, source: EventSource, sender: &EventSender) {
    let mut back_off = BACK_OFF;
    loop {
        let Watched { lasted, heard } = watch(connection, source, sender).await;
        if lasted || heard {
            // What comes from now on is missing, until another one has settled, which tells too.
            sender.send(DomainEvent::lost());
        }
        back_off = if lasted {
            BACK_OFF
        } else {
            (back_off * 2).min(MAX_BACK_OFF)
        };
        sleep(back_off).await;
    }
}

/// What came of one virsh.
#[derive(Default)]
struct Watched {
    /// It lasted for a while.
    lasted: bool,
    /// It told something.
    heard: bool,
}

/// Runs one virsh to its end.
async fn watch(connection: &Connection, source: EventSource, sender: &EventSender) -> Watched {
    let name = source.arguments.first().copied().unwrap_or_default();
    let mut child = match connection.spawn(source.arguments, false, OnDrop::Killed) {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!("no events of `virsh {name}`: {error}");
            return Watched::default();
        }
    };
    let pipes = (child.child.stdout.take(), child.child.stderr.take());
    let (Some(mut stdout), Some(mut stderr)) = pipes else {
        return Watched::default();
    };
    let errors = tokio::spawn(async move {
        // Read to its end so that virsh never blocks; its end is said by the exit status.
        let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    });
    let settled = sleep(SETTLED);
    tokio::pin!(settled);
    let mut watched = Watched::default();
    let mut decoder = Decoder::new(MAX_LINE_BYTES);
    let mut bytes = [0; 4096];
    loop {
        tokio::select! {
            count = stdout.read(&mut bytes) => match count {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    watched.heard = true;
                    forward(&mut decoder, &bytes[..count], source, sender);
                }
            },
            () = &mut settled, if !watched.lasted => {
                watched.lasted = true;
                sender.send(DomainEvent::lost());
            }
        }
    }
    errors.abort();
    // One that has closed its output has nothing more to say, whether or not it ends.
    match child.wait(connection.limit.min(END)).await {
        Some(status) => tracing::warn!("`virsh {name}` ended ({status}); it is started again"),
        None => tracing::warn!(
            "`virsh {name}` closed its output and did not end; it was killed, and is started again"
        ),
    }
    watched
}

fn forward(decoder: &mut Decoder, mut input: &[u8], source: EventSource, sender: &EventSender) {
    while let Some(line) = decoder.next_line(&mut input) {
        match line {
            Ok(line) => {
                if let Some(event) = (source.read)(&line) {
                    sender.send(event);
                }
            }
            // Whatever it said is missing now.
            Err(_) => {
                sender.send(DomainEvent::lost());
            }
        }
    }
}
