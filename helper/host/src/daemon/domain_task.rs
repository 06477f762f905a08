//! What is kept of one domain that runs here, and what its channel task is to do.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::channel_task::DesiredState;
use super::replug::Replug;
use crate::hypervisor::{ChannelSocket, DomainLook, DomainState, Lack, policy_of, reachable};

/// So many looks at a domain in quick succession are as many as its host's events ask for; beyond
/// that each waits twice as long as the one before, so that a guest that makes events is no burden.
const QUICK: u32 = 8;
/// The first such wait.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A channel task that ended by a fault of this program is begun again after this, doubled each time.
const BACK_OFF: Duration = Duration::from_secs(1);
/// The longest such wait; one that lasted as long was a good one.
const MAX_BACK_OFF: Duration = Duration::from_secs(60);

/// One domain that runs here.
pub(super) struct DomainTask {
    pub(super) desired: watch::Sender<DesiredState>,
    /// Its channel, whether or not another domain has the same.
    pub(super) channel: Result<ChannelSocket, String>,
    pub(super) channel_task: TaskHandle,
    pub(super) looked: Instant,
    pub(super) look_at: Option<Instant>,
    /// Looks in quick succession.
    pub(super) quick: u32,
    pub(super) replug: Replug,
}

/// A channel task's handle, which is not to end.
pub(super) struct TaskHandle {
    pub(super) task: AbortHandle,
    begun: Instant,
    /// How often it ended in succession.
    ends: u32,
    /// It has ended, and is begun again then.
    again_at: Option<Instant>,
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TaskHandle {
    pub(super) fn new(task: AbortHandle) -> Self {
        Self {
            task,
            begun: Instant::now(),
            ends: 0,
            again_at: None,
        }
    }

    /// It has ended; returns how long to wait before it is begun again.
    pub(super) fn ended(&mut self) -> Duration {
        if self.begun.elapsed() >= MAX_BACK_OFF {
            self.ends = 0;
        }
        let wait = (BACK_OFF * 2_u32.pow(self.ends.min(8))).min(MAX_BACK_OFF);
        self.ends += 1;
        self.again_at = Some(Instant::now() + wait);
        wait
    }

    /// When it is to be begun again.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    pub(super) fn begun_again(&mut self, task: AbortHandle) {
        self.task = task;
        self.begun = Instant::now();
        self.again_at = None;
    }
}

impl DomainTask {
    /// Shortest time from the last look to the next one.
    pub(super) fn wait(&self) -> Duration {
        match self.quick.checked_sub(QUICK) {
            None => Duration::ZERO,
            Some(beyond) => (FIRST_WAIT * 2_u32.pow(beyond.min(8))).min(LONGEST_WAIT),
        }
    }

    /// The next moment at which something is to be done about it.
    pub(super) fn next(&self) -> Option<Instant> {
        let attempt_at = self.replug.due_at();
        let all = [self.look_at, attempt_at, self.channel_task.again_at()];
        all.into_iter().flatten().min()
    }
}

/// When to look instead.
pub(super) fn too_early(domain_task: &mut DomainTask) -> Option<(&mut DomainTask, Instant)> {
    let at = domain_task.looked + domain_task.wait();
    (Instant::now() < at).then_some((domain_task, at))
}

pub(super) fn desired_of(look: &DomainLook, boot: u64, is_driven_here: bool) -> DesiredState {
    let facts = &look.facts;
    let channel = match facts.state {
        DomainState::Paused => Err("it is paused".to_owned()),
        _ if is_driven_here => {
            Err("its evacuation, which another tandem-host drives, has the channel".to_owned())
        }
        _ => reachable(facts),
    };
    let policy = match policy_of(look) {
        Ok(policy) => Ok(Some(policy)),
        Err(Lack::NoBonds { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    DesiredState {
        run_id: facts.run_id.clone(),
        boot,
        channel,
        policy,
    }
}
