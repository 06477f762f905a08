//! A carry around the migration that is started here.

use tokio::sync::oneshot;

use super::calls::ActionContext;
use crate::carry::Prepared;
use crate::evacuate::{CarryOutcome, Failure, FailureKind, Input, Reply};

impl ActionContext {
    /// All that can be had before the migration is there when it returns, or there is no carry.
    pub(super) async fn stand_ready(&self) -> Reply {
        let refused = |reason: String| Reply::Failed(Failure::new(FailureKind::Refused, reason));
        let (Some(settings), Some(source)) = (&self.carry, &self.hosts.source) else {
            return refused("no carry is wanted".to_owned());
        };
        match Prepared::new(settings, source, &self.hosts.destination, &self.spec.domain).await {
            Ok(prepared) => {
                *self.prepared_carry.lock().expect("no holder panics") = Some(prepared);
                Reply::Accepted
            }
            Err(reason) => refused(reason),
        }
    }

    /// The migration has begun: it is followed from here on, until `ended` tells how it ended.
    pub(super) fn conduct(&self, ended: oneshot::Receiver<bool>) {
        let prepared = self.prepared_carry.lock().expect("no holder panics").take();
        if let Some(prepared) = prepared {
            let inputs = self.inputs.clone();
            tokio::spawn(async move {
                let outcome = Box::new(prepared.run(ended).await);
                let _ = inputs.send(Input::Carried(outcome)).await;
            });
        }
    }

    /// The evacuation has ended, maybe before the migration that a carry waited for: nothing of it is left.
    pub(super) async fn leave_carry(&self) {
        self.end_prepared("the evacuation ended before its migration")
            .await;
    }

    /// The migration that a carry waits for was not begun: nothing of the carry is left.
    pub(super) async fn give_up_carry(&self, why: &str) {
        let reason = format!("the migration did not begin: {why}");
        if let Some(outcome) = self.end_prepared(&reason).await {
            let _ = self.inputs.send(Input::Carried(Box::new(outcome))).await;
        }
    }

    /// What came of a carry that waits for its migration, if there is one.
    async fn end_prepared(&self, reason: &str) -> Option<CarryOutcome> {
        let prepared = self.prepared_carry.lock().expect("no holder panics").take();
        Some(prepared?.give_up(reason.to_owned()).await)
    }
}
