//! Calls to a host of whose end nothing is heard.

use tandem_host::evacuate::{Action, ActionKind, Failure, FailureKind, Reply};

use crate::happen::Happening;
use crate::stage::Stage;

/// The last effect of a call that timed out comes so late, in ms; below [`tandem_host::evacuate::Limits::settle_ms`].
pub(crate) const LATEST_EFFECT_MS: u64 = 8_000;

impl Stage {
    /// Nothing will be heard of that call; whether it takes effect.
    pub(crate) fn is_lost(&mut self, kind: &ActionKind) -> Option<bool> {
        let script = &mut self.world.script;
        // Those that the script names: told once each.
        let (named, takes_effect) = match kind {
            ActionKind::Save { record, .. } if record.progress.owner.is_none() => {
                (&mut script.keep_times_out, true)
            }
            ActionKind::Detach { .. } => (&mut script.first_unplug_unheard, true),
            ActionKind::Attach { .. } => (&mut script.first_plug_unheard, true),
            ActionKind::ResumeMemory => (&mut script.first_resume_lost, false),
            _ => (&mut false, false),
        };
        if std::mem::take(named) {
            return Some(takes_effect);
        }
        let timeouts = script.timeouts;
        if !self.rng.chance(timeouts) {
            return None;
        }
        let is_look = matches!(kind, ActionKind::Observe { .. });
        Some(!is_look && self.rng.chance(600))
    }

    /// Its caller hears of a connection that broke, or gives it up.
    pub(crate) fn lose(&mut self, process: usize, action: Action, takes_effect: bool) {
        let failure = match self.world.script.breaks_off {
            true => Failure::new(FailureKind::Unreachable, "the connection broke"),
            false => Failure::new(FailureKind::TimedOut, "no answer in time"),
        };
        let answer = Happening::Answer {
            process,
            action: action.id,
            reply: Reply::Failed(failure),
        };
        self.at(self.now_ms + 5_000, answer);
        if takes_effect {
            let effect = Happening::Effect {
                process,
                action,
                answer: false,
            };
            let effect_ms = self.now_ms + self.rng.below(LATEST_EFFECT_MS);
            self.at(effect_ms, effect);
        }
    }
}
