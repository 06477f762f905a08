//! How fast memory is copied towards a migration's end, so that the end does not come by itself.
//!
//! QEMU stops a guest once what is left goes within the downtime that is allowed; libvirt takes no less than 1 ms of that, and
//! with none at all nothing may be left for a moment. At full speed a guest that changes little memory comes to that before
//! frames are held. So the copying is slowed down the nearer it is to its end, until a guest that gets frames changes memory
//! faster than it is copied.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem_carry::Limits;

use crate::hypervisor::{Host, HostError};

/// libvirt's least. QEMU sends a tenth of it, 25 pages, in each 100 ms (`BUFFER_DELAY` of migration/migration.h, QEMU 11.1),
/// and less than a page goes within 1 ms. In bytes per second.
const SLOWEST: u64 = 1 << 20;
/// Until the halves stand ready and the first look has shown what is left, usually a second or two: a guest is not over in that
/// time. In bytes per second.
const AT_FIRST: u64 = 32 << 20;
/// What is left is to last for so long, in ms.
const LASTS_MS: u64 = 500;
/// And for so many changes of the speed: on a busy host each takes a while, and nothing is seen meanwhile. At most so long, in ms.
const LASTS_CHANGES: u64 = 4;
const LASTS_MOST_MS: u64 = 3_000;
/// It is slowed down once what is left goes in so many times that, at the speed that was had so far.
const NEAR: u64 = 2;
/// How much longer a command may take near the end of a migration than at its beginning.
const BUSIER: u64 = 4;
/// The longest that frames are held from a guest that runs, in ms.
pub(super) const HOLD_MS: u64 = 20_000;

/// The speed of one migration, in bytes per second.
#[derive(Debug)]
pub(super) struct Pace {
    source: Arc<dyn Host>,
    domain: String,
    /// How fast it may copy otherwise.
    full: u64,
    now: u64,
    /// How long the last change took.
    took: Duration,
    /// The longest that anything asked of the hypervisor for it has taken.
    slowest: Duration,
}

impl Pace {
    /// Of a domain whose hypervisor can be asked for it. `limit_mib_s` is the migration's own.
    pub(super) async fn of(
        source: &Arc<dyn Host>,
        domain: &str,
        limit_mib_s: Option<u64>,
    ) -> Result<Self, HostError> {
        let asked = Instant::now();
        let speed = source.speed(domain).await?;
        let full = limit_mib_s.map_or(speed, |limit| limit.saturating_mul(1 << 20));
        Ok(Self {
            source: Arc::clone(source),
            domain: domain.to_owned(),
            full,
            now: full,
            took: Duration::ZERO,
            slowest: asked.elapsed(),
        })
    }

    /// The migration begins before anybody follows it.
    pub(super) async fn begin(&mut self) -> Result<(), HostError> {
        self.set(AT_FIRST.min(self.full)).await
    }

    /// So many bytes are left, and so many went in a second at most.
    pub(super) async fn follow(&mut self, rest: u64, rate: u64) -> Result<(), HostError> {
        let wanted = slowed(rest, rate, self.slowest).unwrap_or(self.full);
        self.set(wanted.min(self.full)).await
    }

    /// For how long so many bytes last, in ms.
    pub(super) fn lasts_ms(&self, rest: u64) -> u64 {
        rest.saturating_mul(1000) / self.now.max(1)
    }

    /// How long it takes to change it, as far as was seen, in ms.
    pub(super) fn takes_ms(&self) -> u64 {
        as_ms(self.took)
    }

    /// How long a source holds frames for a guest's stop, in ms.
    pub(super) fn hold_ms(&self) -> u64 {
        hold_ms(self.slowest)
    }

    /// How fast it may copy once nobody slows it down.
    pub(super) const fn full(&self) -> u64 {
        self.full
    }

    /// As fast as it may.
    pub(super) async fn release(&mut self) -> Result<(), HostError> {
        self.set(self.full).await
    }

    async fn set(&mut self, speed: u64) -> Result<(), HostError> {
        if speed != self.now {
            let begun = Instant::now();
            self.source.set_speed(&self.domain, speed).await?;
            self.took = begun.elapsed();
            self.slowest = self.slowest.max(self.took);
            self.now = speed;
        }
        Ok(())
    }
}

/// A time in whole ms.
pub(super) fn as_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// If it is near its end, or it is not known yet how fast it goes. No part of what libvirt takes for one step: a change costs time.
fn slowed(rest: u64, rate: u64, takes: Duration) -> Option<u64> {
    let lasts_ms = as_ms(takes).saturating_mul(LASTS_CHANGES);
    let lasts_ms = lasts_ms.clamp(LASTS_MS, LASTS_MOST_MS);
    let near_ms = lasts_ms.saturating_mul(NEAR);
    let is_near = u128::from(rest) * 1000 <= u128::from(rate) * u128::from(near_ms);
    let steps = rest.saturating_mul(1000) / lasts_ms / SLOWEST;
    (is_near || rate == 0).then(|| steps.max(1).saturating_mul(SLOWEST))
}

/// Two things are asked of the hypervisor meanwhile, the speed and the stop, after the tap's queue was waited for; a busy one
/// takes a multiple of what it took for anything before.
fn hold_ms(slowest: Duration) -> u64 {
    let usual_ms = Limits::default().hold_ms;
    let commands_ms = as_ms(slowest).saturating_mul(2 * BUSIER);
    let enough_ms = (usual_ms / 2).saturating_add(commands_ms);
    enough_ms.clamp(usual_ms, HOLD_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_slow_hypervisor_has_longer_to_stop_the_guest() {
        assert_eq!(hold_ms(Duration::from_millis(20)), 2_000);
        assert_eq!(hold_ms(Duration::from_millis(700)), 6_600);
        assert_eq!(hold_ms(Duration::from_secs(60)), HOLD_MS);
    }

    #[test]
    fn the_nearer_the_end_the_slower() {
        let slowed = |rest, rate| slowed(rest, rate, Duration::from_millis(100));
        assert_eq!(slowed(101 * MIB, 100 * MIB), None, "it is not near");
        assert_eq!(slowed(100 * MIB, 100 * MIB), Some(200 * MIB));
        assert_eq!(slowed(4 * MIB, 100 * MIB), Some(8 * MIB));
        assert_eq!(slowed(0, 100 * MIB), Some(SLOWEST));
        assert_eq!(slowed(100 * MIB, 0), Some(200 * MIB));
    }

    /// It would be over before the next look.
    #[test]
    fn the_longer_a_change_takes_the_sooner_it_is_slow() {
        let slowed = |rest, ms| slowed(rest, 100 * MIB, Duration::from_millis(ms));
        assert_eq!(slowed(401 * MIB, 500), None);
        assert_eq!(slowed(400 * MIB, 500), Some(200 * MIB));
        assert_eq!(slowed(2 * MIB, 500), Some(MIB));
        assert_eq!(slowed(601 * MIB, 60_000), None, "no longer than that");
        assert_eq!(slowed(600 * MIB, 60_000), Some(200 * MIB));
    }

    #[test]
    fn nothing_is_changed_for_less_than_a_step() {
        let slowed = |rest| slowed(rest, 100 * MIB, Duration::ZERO);
        assert_eq!(slowed(MIB), Some(2 * MIB));
        assert_eq!(slowed(MIB - 1), Some(MIB));
        assert_eq!(slowed(MIB / 2), Some(MIB));
    }
}
