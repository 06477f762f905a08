//! The path of the VF that carries the traffic, watched while it does: when its counters are looked at, and when
//! neighbours are asked through it.

use core::net::IpAddr;

use crate::backoff::Backoff;
use crate::model::action::{ActionKind, Asking, GoOn};
use crate::model::path::{PathAnswer, PortTraffic};
use crate::model::types::{ActionId, Ifindex, Time};

/// Time between two looks at a port that sends nothing, in ms. With [`STANDBY_MS`] a bond at rest wakes the service once in
/// 10 s: for 4 looks, the answer to a question and its end, in 60 s.
const REST_MS: u64 = 15_000;
/// Time between two questions through the standby, in ms: before a failover one should know that it leads somewhere.
const STANDBY_MS: u64 = 60_000;
/// Questions in a row that have to stay unanswered on the standby before it counts as deaf.
const DEAF_AFTER: u32 = 2;
/// While nobody answers through either port, every so manieth question through the standby is put to all of its neighbours;
/// those between to one. With at most 41 frames and 2 that is no more than a frame in 10 s.
const FULL_EACH: u32 = 10;
/// Frames a second from which a port counts as one that sends all the time.
const STEADY_PER_S: u64 = 2;
/// Frames that pass in both directions, by the counters alone, are proof enough for so long, in ms: what comes in may do so
/// though nothing gets out.
const TRUST_MS: u64 = 10_000;
/// A look or a question whose end is not reported for so long is given up, in ms.
const GIVE_UP_MS: u64 = 10_000;

/// What is remembered of it.
#[derive(Debug, Default)]
pub(crate) struct PathMemory {
    watched: Option<Watched>,
    /// The look or question that is under way.
    in_flight: Option<InFlight>,
    /// A VF that has just got the traffic from the standby, until it is known what comes of asking through it.
    on_trial: Option<Ifindex>,
}

#[derive(Debug)]
struct InFlight {
    id: ActionId,
    /// When it is given up.
    until: Time,
    /// The port that is asked about; none at a look.
    asked: Option<Ifindex>,
    is_trial: bool,
    is_answered: bool,
}

/// A look or a question that has ended.
pub(crate) struct Ended {
    /// The VF on trial of which it brought nothing, because it failed or took too long.
    pub(crate) untold: Option<Ifindex>,
}

/// The VF that is watched, since it was last found to carry the traffic with all calm.
#[derive(Debug)]
struct Watched {
    port: Ifindex,
    /// The port that would take over.
    other: Ifindex,
    counted: Option<(PortTraffic, Time)>,
    look_at: Time,
    /// Wait before the next look, in ms.
    wait_ms: u64,
    /// Looks at a port that sends all the time, if it does.
    go_on: Option<GoOn>,
    /// A question was put through the port since the last look: what it sent is not the guest's.
    has_asked: bool,
    /// Somebody has changed a chain since the last look.
    anew: bool,
    /// A neighbour was last asked about.
    asked_at: Time,
    /// Frames were last known to pass in both directions.
    alive_at: Time,
    /// Neighbours are to be asked now.
    to_ask: bool,
    /// Not before that: nobody answered on either port.
    ask_from: Time,
    unanswered: Backoff,
    /// When the other port is to be asked about.
    other_at: Time,
    /// How often it was not answered in a row though this one was, and by whom last.
    other_misses: u32,
    other_missed: Option<IpAddr>,
    /// How often in a row nobody answered through either port when the other one was asked about, and when last.
    other_silent: u32,
    other_silent_at: Time,
}

/// Time between two looks at a port that sends, in ms: with each it is asked about, so that what a question takes is left
/// of `health_ms`.
fn look_ms(health_ms: u64) -> u64 {
    match health_ms / 4 {
        // Not watched but for its trial.
        0 => REST_MS,
        look_ms => look_ms,
    }
}

impl PathMemory {
    /// Learns whom to watch. Not while the traffic moves: frames come in through both ports then.
    pub(crate) fn watch(&mut self, found: Option<(Ifindex, Ifindex)>, health_ms: u64, now: Time) {
        let found = found.filter(|(port, _)| self.on_trial.is_none_or(|vf| vf == *port));
        let Some((port, other)) = found else {
            self.watched = None;
            self.on_trial = None;
            self.abandon_look();
            return;
        };
        match &self.watched {
            Some(watched) if (watched.port, watched.other) == (port, other) => {}
            _ => {
                self.abandon_look();
                let wait_ms = look_ms(health_ms);
                self.watched = Some(Watched {
                    port,
                    other,
                    counted: None,
                    look_at: now.plus_ms(wait_ms),
                    wait_ms,
                    go_on: None,
                    has_asked: false,
                    anew: false,
                    asked_at: now,
                    alive_at: now,
                    to_ask: false,
                    ask_from: now,
                    unanswered: Backoff::new(look_ms(health_ms), REST_MS),
                    other_at: now.plus_ms(REST_MS),
                    other_misses: 0,
                    other_missed: None,
                    other_silent: 0,
                    other_silent_at: now,
                });
            }
        }
    }

    /// Has a look made at once: somebody has changed a chain.
    pub(crate) fn look_anew(&mut self, now: Time) {
        if let Some(watched) = &mut self.watched {
            watched.anew = true;
            watched.look_at = now;
            self.abandon_look();
        }
    }

    /// What a look of another time will bring is nobody's any more: it may take long.
    fn abandon_look(&mut self) {
        self.in_flight.take_if(|one| one.asked.is_none());
    }

    /// A VF has got the traffic from a standby that is all right: whether what is sent to the bond comes to it now, only
    /// a question can tell.
    pub(crate) fn try_out(&mut self, vf: Ifindex) {
        self.on_trial = Some(vf);
    }

    /// It is not known yet whether the VF that has just got the traffic is reached.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.on_trial.is_some()
    }

    /// The next look or question, if one is due and none is under way.
    fn next(&self, bond: Ifindex, now: Time) -> Option<ActionKind> {
        let watched = self.watched.as_ref()?;
        let (port, other) = (watched.port, watched.other);
        let trial = self.on_trial.is_some();
        let ask = |port, other, how| ActionKind::AskPath {
            bond,
            port,
            other,
            how,
        };
        if self.in_flight.is_some() {
            None
        } else if trial {
            Some(ask(port, other, Asking::OnTrial))
        } else if watched.to_ask {
            Some(ask(port, other, Asking::Fully))
        } else if watched.look_at <= now {
            let anew = watched.anew;
            let go_on = watched.go_on.filter(|_| !anew);
            Some(ActionKind::ReadTraffic {
                bond,
                port,
                go_on,
                anew,
            })
        } else {
            (watched.other_at <= now).then(|| ask(other, port, watched.asking_other()))
        }
    }

    /// Has the next look or question made, if one is due and none is under way.
    pub(crate) fn start(
        &mut self,
        bond: Ifindex,
        now: Time,
        issue: impl FnOnce(ActionKind) -> ActionId,
    ) {
        if let Some(kind) = self.next(bond, now) {
            let asked = match kind {
                ActionKind::AskPath { port, .. } => Some(port),
                _ => None,
            };
            if let (ActionKind::ReadTraffic { .. }, Some(watched)) = (&kind, &mut self.watched) {
                watched.anew = false;
            }
            let goes_on_ms = match kind {
                ActionKind::ReadTraffic { go_on, .. } => go_on.map_or(0, |one| one.for_ms),
                _ => 0,
            };
            let is_trial = matches!(
                kind,
                ActionKind::AskPath {
                    how: Asking::OnTrial,
                    ..
                }
            );
            self.in_flight = Some(InFlight {
                id: issue(kind),
                until: now.plus_ms(goes_on_ms + GIVE_UP_MS),
                asked,
                is_trial,
                is_answered: false,
            });
        }
    }

    /// The look or question has ended; what it brought was handed in before.
    pub(crate) fn ended(&mut self, id: ActionId, now: Time) -> Option<Ended> {
        let ended = self.in_flight.take_if(|one| one.id == id)?;
        let vf = self.on_trial.take_if(|_| ended.is_trial);
        let untold = vf.filter(|vf| ended.asked == Some(*vf) && !ended.is_answered);
        if let Some(watched) = &mut self.watched {
            // What brought nothing is done again in its turn.
            watched.to_ask &= ended.asked.is_none();
            if ended.asked == Some(watched.other) && watched.other_at <= now {
                watched.other_at = now.plus_ms(STANDBY_MS);
            }
            if watched.look_at <= now {
                watched.look_at = now.plus_ms(watched.wait_ms);
            }
            // Of a port that sends all the time the next look is soon, and finds what the guest sends.
            let is_compared = watched.counted.is_some() && watched.go_on.is_none();
            if ended.asked.is_some() {
                let has_asked = watched.has_asked || ended.asked == Some(watched.port);
                watched.has_asked = has_asked && is_compared;
                if watched.has_asked {
                    watched.look_at = now;
                }
            }
        }
        Some(Ended { untold })
    }

    /// Who answers through the VF at work and not through the standby, which hears nothing either.
    pub(crate) fn deaf_standby(&self) -> Option<IpAddr> {
        let watched = self.watched.as_ref();
        watched
            .filter(|one| one.other_misses >= DEAF_AFTER)?
            .other_missed
    }

    /// Gives up what takes too long.
    pub(crate) fn expire(&mut self, now: Time) -> Option<Ended> {
        let late = |one: &&InFlight| now >= one.until;
        let id = self.in_flight.as_ref().filter(late).map(|one| one.id)?;
        self.ended(id, now)
    }

    /// When something is due next.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let busy = self.in_flight.as_ref();
        let late = busy.map(|one| one.until);
        late.or_else(|| Some(self.watched.as_ref()?.look_at))
    }

    /// Compares what a port has sent with what it had. One that sends has to be known to pass frames in both directions,
    /// of late or just now.
    pub(crate) fn note_traffic(&mut self, found: PortTraffic, health_ms: u64, now: Time) {
        let watched = self.watched.as_mut();
        let Some(watched) = watched.filter(|watched| watched.port == found.port) else {
            return;
        };
        let before = watched.counted.replace((found, now));
        // Else each question would be the reason for the next one, in a guest that sends nothing itself.
        if core::mem::take(&mut watched.has_asked) {
            watched.look_at = now.plus_ms(watched.wait_ms);
            return;
        }
        let grown = before.and_then(|(before, at)| {
            let same = before.counted_by == found.counted_by;
            // Less than before: the counters began anew.
            let sent = found.sent.checked_sub(before.sent).filter(|_| same)?;
            Some((sent, at))
        });
        let is_steady = |(sent, at): (u64, Time)| {
            sent > 0 && sent.saturating_mul(1_000) >= STEADY_PER_S * now.since_ms(at)
        };
        watched.wait_ms = if grown.is_none_or(is_steady) {
            look_ms(health_ms)
        } else {
            watched.wait_ms.saturating_mul(2).min(REST_MS)
        };
        watched.go_on = grown.is_some_and(is_steady).then_some(GoOn {
            each_ms: look_ms(health_ms),
            for_ms: TRUST_MS,
        });
        watched.look_at = now.plus_ms(watched.wait_ms);
        let passed_at = found.passed_at.filter(|at| *at <= now);
        watched.alive_at = watched.alive_at.max(passed_at.unwrap_or_default());
        let stale = now.since_ms(watched.alive_at) >= look_ms(health_ms) / 2
            || now.since_ms(watched.asked_at) >= TRUST_MS;
        let sends = grown.is_some_and(|(sent, _)| sent > 0);
        watched.to_ask = sends && stale && now >= watched.ask_from;
    }

    /// Takes what came of asking through a port; gives until when frames were known to pass before, if it is watched.
    pub(crate) fn note_answer(
        &mut self,
        port: Ifindex,
        answer: PathAnswer,
        health_ms: u64,
        now: Time,
    ) -> Option<Time> {
        if let Some(question) = self
            .in_flight
            .as_mut()
            .filter(|one| one.asked == Some(port))
        {
            question.is_answered = true;
        }
        let watched = self.watched.as_mut()?;
        if watched.other == port {
            watched.note_other(answer, now);
        }
        let watched = Some(watched).filter(|watched| watched.port == port)?;
        let alive_at = watched.alive_at;
        watched.asked_at = now;
        match answer {
            PathAnswer::Answered => {
                watched.alive_at = now;
                watched.unanswered = Backoff::new(look_ms(health_ms), REST_MS);
            }
            PathAnswer::Silent | PathAnswer::NobodyKnown => {
                watched.ask_from = watched.unanswered.fail(now);
            }
            PathAnswer::Lost { .. } | PathAnswer::Astray { .. } => {}
        }
        Some(alive_at)
    }
}

impl Watched {
    /// A guest at rest stays so though its neighbours are dead.
    fn asking_other(&self) -> Asking {
        let heard_since = self.alive_at > self.other_silent_at;
        match self.other_silent.is_multiple_of(FULL_EACH) || heard_since {
            true => Asking::Fully,
            false => Asking::Briefly,
        }
    }

    /// Takes what came of asking through the port that would take over.
    fn note_other(&mut self, answer: PathAnswer, now: Time) {
        self.other_silent = match answer {
            PathAnswer::Silent => self.other_silent.saturating_add(1),
            _ => 0,
        };
        self.other_silent_at = now;
        // Who stays silent there is asked through the port that is watched too.
        self.has_asked |= matches!(answer, PathAnswer::Silent | PathAnswer::Lost { .. });
        let wait_ms = match answer {
            PathAnswer::Lost { neighbour } => {
                self.other_misses = self.other_misses.saturating_add(1);
                self.other_missed = Some(neighbour);
                if self.other_misses < DEAF_AFTER {
                    REST_MS
                } else {
                    STANDBY_MS
                }
            }
            PathAnswer::Answered => {
                self.other_misses = 0;
                STANDBY_MS
            }
            PathAnswer::Silent | PathAnswer::NobodyKnown | PathAnswer::Astray { .. } => STANDBY_MS,
        };
        self.other_at = now.plus_ms(wait_ms);
    }
}
