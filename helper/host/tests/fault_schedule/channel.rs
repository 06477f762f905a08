//! The channel to the guest. It keeps order, and nothing else is sure: a request or its reply gets lost, and
//! a guest that is stuck acts long after nobody waits for it any more.

use tandem_host::evacuate::{
    Action, ActionId, Failure, FailureKind, GuestCall, Reply, Side, Stage as At,
};

use crate::happen::Happening;
use crate::script::Agent;
use crate::stage::Stage;

/// A stuck guest is that for up to so many ms.
const LONGEST_STUCK_MS: u64 = 20_000;

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Request {
    process: usize,
    action: ActionId,
    side: Side,
    call: GuestCall,
    /// A boot in between loses it.
    boots: u32,
    /// The caller hears of it, if it is answered before that moment.
    heard: bool,
    silent_ms: u64,
}

/// How long the caller waits (`tandem_host::agent::ChannelLimits`).
fn patience_ms(call: GuestCall) -> u64 {
    match call {
        GuestCall::PrepareUnplug(_) | GuestCall::Resume(_) => 15_000,
        _ => 5_000,
    }
}

impl Stage {
    /// A request sets out.
    pub(crate) fn ask(&mut self, process: usize, action: &Action, side: Side, call: GuestCall) {
        if side == Side::Destination && self.world.script.destination_is_remote {
            let fault = "a channel of another machine was opened";
            self.world.violations.push(fault.to_owned());
        }
        let stage = self.world.record(Side::Source).map(|record| record.stage);
        let is_there = self.world.runs_on() == Some(side);
        let prepares = matches!(call, GuestCall::PrepareUnplug(_));
        if prepares && is_there && stage.is_none_or(|stage| stage < At::Preparing) {
            let fault = "the guest was asked to release its VF before the record said so";
            self.world.violations.push(fault.to_owned());
        }
        let latency_ms = self.rng.between(1, self.world.script.latency_ms + 1);
        let boots = self.world.booting_until_ms > self.now_ms;
        if !is_there || boots || self.world.script.agent == Agent::Missing {
            // Nobody has opened the channel, and the host knows that.
            return self.silent(process, action.id, self.now_ms + latency_ms);
        }
        if self.rng.chance(self.world.script.agent_stuck) {
            let until_ms = self.now_ms + self.rng.below(LONGEST_STUCK_MS);
            self.channel_free_ms = self.channel_free_ms.max(until_ms);
        }
        let silent_ms = self.now_ms + patience_ms(call);
        if self.rng.chance(self.world.script.agent_loss) {
            return self.silent(process, action.id, silent_ms);
        }
        let arrives_ms = (self.now_ms + latency_ms).max(self.channel_free_ms);
        self.channel_free_ms = arrives_ms;
        let request = Request {
            process,
            action: action.id,
            side,
            call,
            boots: self.boots,
            heard: !self.rng.chance(self.world.script.reply_loss),
            silent_ms,
        };
        self.at(arrives_ms, Happening::Asked(request));
    }

    /// The guest reads a request, and acts, wherever it runs by now.
    pub(crate) fn asked(&mut self, request: &Request) {
        let Request {
            process, action, ..
        } = *request;
        let boots = self.world.booting_until_ms > self.now_ms || request.boots != self.boots;
        let place = self.world.runs_on().filter(|_| !boots);
        let reply =
            place.and_then(|_| crate::guest::answer(&mut self.world, request.call, self.now_ms));
        let heard = request.heard && place == Some(request.side) && self.now_ms < request.silent_ms;
        match reply.filter(|_| heard) {
            Some(reply) => self.answer(process, action, reply),
            None => self.silent(process, action, request.silent_ms),
        }
    }

    fn silent(&mut self, process: usize, action: ActionId, at_ms: u64) {
        let text = "the guest does not answer";
        let reply = Reply::Failed(Failure::new(FailureKind::AgentSilent, text));
        self.at(
            at_ms,
            Happening::Answer {
                process,
                action,
                reply,
            },
        );
    }
}
