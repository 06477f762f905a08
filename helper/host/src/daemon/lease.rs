//! Whose turn it is at a guest's channel, which takes one client at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedMutexGuard, watch};

/// Channels beyond which those that nobody uses are forgotten.
const MANY: usize = 1024;

/// One domain's channel. Whoever holds the turn may be connected.
#[derive(Debug)]
pub(super) struct ChannelLeases {
    /// Fair: who asks first is first.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Those who have a lease or wait for one.
    wanted: watch::Sender<usize>,
}

/// All domains' channels, also of those that run only later.
#[derive(Debug, Default)]
pub(super) struct HostLeases(Mutex<HashMap<String, Arc<ChannelLeases>>>);

/// The channel, until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    _turn: Turn,
    _want: Want,
}

/// A turn at the channel.
pub(super) type Turn = OwnedMutexGuard<()>;

#[derive(Debug)]
struct Want(Arc<ChannelLeases>);

impl Drop for Want {
    fn drop(&mut self) {
        self.0.wanted.send_modify(|wanted| *wanted -= 1);
    }
}

impl HostLeases {
    /// The leases of the domain's channel.
    pub(super) fn of(&self, domain: &str) -> Arc<ChannelLeases> {
        let mut host_leases = self.0.lock().expect("no holder panics");
        if host_leases.len() > MANY && !host_leases.contains_key(domain) {
            host_leases.retain(|_, channel_leases| Arc::strong_count(channel_leases) > 1);
        }
        let channel_leases = host_leases.entry(domain.to_owned()).or_insert_with(|| {
            Arc::new(ChannelLeases {
                turn: Arc::default(),
                wanted: watch::Sender::new(0),
            })
        });
        Arc::clone(channel_leases)
    }
}

impl ChannelLeases {
    /// The turn for somebody else than the channel task, which hangs up for it. Cancel-safe.
    pub(super) async fn lease(self: Arc<Self>) -> Lease {
        self.wanted.send_modify(|wanted| *wanted += 1);
        let want = Want(Arc::clone(&self));
        Lease {
            _turn: Arc::clone(&self.turn).lock_owned().await,
            _want: want,
        }
    }

    /// Somebody wants the channel.
    pub(super) fn is_wanted(&self) -> bool {
        *self.wanted.borrow() > 0
    }

    /// Waits until somebody else wants the channel.
    pub(super) async fn until_wanted(&self) {
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted > 0).await;
    }

    /// Waits until nobody does.
    pub(super) async fn until_free(&self) {
        let _ = self
            .wanted
            .subscribe()
            .wait_for(|wanted| *wanted == 0)
            .await;
    }

    /// The channel task's turn, once nobody else wants the channel.
    pub(super) async fn enter(&self) -> Turn {
        loop {
            self.until_free().await;
            let turn = Arc::clone(&self.turn).lock_owned().await;
            if !self.is_wanted() {
                return turn;
            }
        }
    }
}
