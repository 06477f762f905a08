//! Which sources have to be read anew, and when.

use alloc::collections::BTreeMap;

use crate::backoff::Backoff;
use crate::model::input::Outcome;
use crate::model::source::Source;
use crate::model::types::{ActionId, Time};

/// A source that lost nothing for so long starts without wait again, in ms.
const CALM_AFTER_MS: u64 = 10_000;
/// A reading that is not reported as done for so long has failed, in ms.
const READING_TIMEOUT_MS: u64 = 30_000;
/// Time between two readings of a source of which something may change without a word, in ms: with its end a reading wakes
/// the service twice, and a bond at rest may once in 10 s.
const UNTOLD_MS: u64 = 30_000;

/// Readings that are due or under way.
#[derive(Debug, Default)]
pub(crate) struct Readings(BTreeMap<Source, Reading>);

#[derive(Debug)]
struct Reading {
    due: bool,
    in_flight: Option<(ActionId, Time)>,
    not_before: Time,
    backoff: Backoff,
    /// When it is due again though nothing asks for it.
    repeat_at: Option<Time>,
}

impl Readings {
    /// Asks for a reading. The channel and the eBPF monitor have nothing to read:
    /// what they lost is gone, and everything else is seen by other sources too.
    pub(crate) fn request(&mut self, source: Source) {
        if matches!(source, Source::Channel | Source::Ebpf) {
            return;
        }
        let reading = self.0.entry(source).or_insert(Reading {
            due: false,
            in_flight: None,
            not_before: Time(0),
            backoff: Backoff::new(100, 5_000),
            repeat_at: None,
        });
        reading.due = true;
    }

    /// Has a source that was read before read now and then, for as long as something of it may change without a word.
    pub(crate) fn repeat(&mut self, source: Source, is_wanted: bool, now: Time) {
        let Some(reading) = self.0.get_mut(&source) else {
            return;
        };
        let is_up = reading.repeat_at.is_some_and(|at| at <= now);
        reading.due |= is_wanted && is_up && reading.in_flight.is_none();
        let next_at = reading.repeat_at.filter(|_| is_wanted && !is_up);
        reading.repeat_at = is_wanted.then(|| next_at.unwrap_or(now.plus_ms(UNTOLD_MS)));
    }

    /// Asks for a reading unless one is due or under way.
    pub(crate) fn require(&mut self, source: Source) {
        let present = self.0.get(&source);
        if present.is_none_or(|reading| reading.in_flight.is_none()) {
            self.request(source);
        }
    }

    /// Everything of the source arrived without being asked for.
    pub(crate) fn arrived(&mut self, source: Source) {
        if let Some(reading) = self.0.get_mut(&source)
            && reading.in_flight.is_none()
        {
            reading.due = false;
        }
    }

    /// Reads what is due now: `read` is to have it done and gives its identity.
    pub(crate) fn start(&mut self, now: Time, mut read: impl FnMut(Source) -> ActionId) {
        for (source, reading) in &mut self.0 {
            reading.expire(now);
            if !reading.due || reading.in_flight.is_some() || now < reading.not_before {
                continue;
            }
            if now.since_ms(reading.not_before) > CALM_AFTER_MS {
                reading.backoff = Backoff::new(100, 5_000);
            }
            reading.due = false;
            reading.in_flight = Some((read(*source), now));
            reading.not_before = reading.backoff.fail(now);
        }
    }

    /// A reading ended; one that failed is repeated. False if it was none of these.
    pub(crate) fn done(&mut self, id: ActionId, outcome: &Outcome) -> bool {
        for reading in self.0.values_mut() {
            if reading.in_flight.is_some_and(|(one, _)| one == id) {
                reading.in_flight = None;
                reading.due |= *outcome != Outcome::Accepted;
                return true;
            }
        }
        false
    }

    /// When something is due next.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let all = self
            .0
            .values()
            .filter_map(|reading| match reading.in_flight {
                Some((_, since)) => Some(since.plus_ms(READING_TIMEOUT_MS)),
                None => reading.due.then_some(reading.not_before),
            });
        let repeated = self.0.values().filter_map(|reading| reading.repeat_at);
        all.chain(repeated).min()
    }
}

impl Reading {
    fn expire(&mut self, now: Time) {
        let late = |since: Time| now >= since.plus_ms(READING_TIMEOUT_MS);
        if self.in_flight.is_some_and(|(_, since)| late(since)) {
            self.in_flight = None;
            self.due = true;
        }
    }
}
