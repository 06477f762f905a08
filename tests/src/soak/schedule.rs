//! Which faults a seed stands for: pure, and the same on every machine.

use std::fmt;

use crate::sim::rng::Rng;

/// One of the two hosts, as it is when the fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where the guest runs.
    Here,
    /// The other one.
    There,
}

/// A port of the guest's bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The paravirtual NIC.
    Standby,
    /// The pass-through NIC.
    Vf,
}

/// One of the two processes of a carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// On the host that the guest leaves.
    Source,
    /// On the one that it goes to.
    Destination,
}

/// Something that goes wrong, or that an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of the guest's service; with a seed, its end of the channel says garbage until it is back.
    KillService(Option<u64>),
    /// `kill -9` of `tandem-host serve`.
    KillServe(Side),
    /// `kill -9` of libvirtd; the one that is started in its place finds its domains.
    RestartLibvirtd(Side),
    /// The VF is unplugged without a word to the guest, and plugged in again.
    SilentUnplug,
    /// The same after `tandem-host prepare`, and with `tandem-host resume` at its end.
    PlannedUnplug,
    /// Somebody with the host's end of the channel says what no host says.
    GarbageToGuest(u64),
    /// Garbage on the control socket of `tandem-host serve`.
    GarbageToServe(u64),
    /// A port loses its carrier this often.
    Flaps {
        /// Which.
        port: Port,
        /// How often.
        times: u32,
        /// How long it is down each time, and up in between, in ms.
        pause_ms: u64,
    },
    /// The guest's wall clock jumps, by seconds.
    ClockJump(i64),
    /// Nothing can be written below /run in the guest while its VF leaves and returns; with `true`, its
    /// service is killed meanwhile.
    FullRun(bool),
    /// An evacuation begins while this machine can keep no record.
    FullRecords,
    /// An evacuation in peace.
    Migrate,
    /// `kill -9` of `tandem-host migrate` once it has come to this phase; then `tandem-host recover`.
    KillMigrate(&'static str),
    /// Ctrl-C in that phase.
    InterruptMigrate(&'static str),
    /// `kill -9` of that host's libvirtd while memory is copied.
    MigrateWithoutLibvirtd(Side),
    /// An evacuation in peace, with the guest's frames carried.
    MigrateCarried,
    /// The same, and `kill -9` of a half.
    KillHalf {
        /// Which.
        half: Half,
        /// How long after it was first seen, in ms.
        after_ms: u64,
    },
}

/// Phases of an evacuation in which something may happen.
const PHASES: [&str; 5] = ["prepare", "unplug", "migrate", "plug", "verify"];
/// How often a port flaps at most.
const MOST_FLAPS: u64 = 4;
/// The longest pause of a flap, in ms.
const LONGEST_PAUSE_MS: u64 = 3_000;
/// The longest time that a half lives until it is killed, in ms: some have done their work by then.
const LONGEST_HALF_MS: u64 = 1_500;
/// The seed's own bits for what came to the schedule later: all else of a seed stays as it was.
const LATER: u64 = 0x6361_7272;
/// The farthest jump of the clock: a year, in seconds.
const FARTHEST_JUMP_S: u64 = 366 * 24 * 3600;

impl Fault {
    /// Its kind, by which faults are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::KillService(None) => "service killed",
            Self::KillService(Some(_)) => "service killed, garbage to the host",
            Self::KillServe(_) => "serve killed",
            Self::RestartLibvirtd(_) => "libvirtd killed",
            Self::SilentUnplug => "silent unplug, plug",
            Self::PlannedUnplug => "planned unplug, plug",
            Self::GarbageToGuest(_) => "garbage to the guest",
            Self::GarbageToServe(_) => "garbage to serve",
            Self::Flaps {
                port: Port::Standby,
                ..
            } => "standby flaps",
            Self::Flaps { port: Port::Vf, .. } => "VF flaps",
            Self::ClockJump(_) => "clock jumps",
            Self::FullRun(false) => "full /run",
            Self::FullRun(true) => "full /run, service killed",
            Self::FullRecords => "no room for records",
            Self::Migrate => "migration",
            Self::KillMigrate(_) => "migrate killed",
            Self::InterruptMigrate(_) => "migrate interrupted",
            Self::MigrateWithoutLibvirtd(_) => "libvirtd killed in a migration",
            Self::MigrateCarried => "migration with a carry",
            Self::KillHalf { .. } => "carry's half killed",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Self::KillServe(side)
            | Self::RestartLibvirtd(side)
            | Self::MigrateWithoutLibvirtd(side) => match side {
                Side::Here => f.write_str(", here"),
                Side::There => f.write_str(", there"),
            },
            Self::KillMigrate(phase) | Self::InterruptMigrate(phase) => write!(f, " in {phase}"),
            Self::ClockJump(seconds) => write!(f, " by {seconds} s"),
            Self::KillHalf { half, after_ms } => {
                let half = match half {
                    Half::Source => "source",
                    Half::Destination => "destination",
                };
                write!(f, ", {half}, after {after_ms} ms")
            }
            Self::Flaps {
                times, pause_ms, ..
            } => write!(f, " {times} times for {pause_ms} ms"),
            _ => Ok(()),
        }
    }
}

/// The faults of a seed, without an end. They come in rounds: each has every kind, in an order of its own. Of the
/// three services one is killed a round at rest, so that each lives long enough to show whether it grows.
#[derive(Debug)]
pub struct Schedule {
    rng: Rng,
    later: Rng,
    round: Vec<Fault>,
}

impl Schedule {
    /// The schedule of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            later: Rng::new(seed ^ LATER),
            round: Vec::new(),
        }
    }

    fn side(&mut self) -> Side {
        match self.rng.chance(500) {
            true => Side::Here,
            false => Side::There,
        }
    }

    fn flaps(&mut self, port: Port) -> Fault {
        Fault::Flaps {
            port,
            times: u32::try_from(1 + self.rng.below(MOST_FLAPS)).unwrap_or(1),
            pause_ms: 10 + self.rng.below(LONGEST_PAUSE_MS),
        }
    }

    fn phase(&mut self) -> &'static str {
        self.rng.pick(&PHASES).copied().unwrap_or("migrate")
    }

    fn jump(&mut self) -> Fault {
        // Seconds, hours or months, ahead or back.
        let most = [60, 24 * 3600, FARTHEST_JUMP_S];
        let most = self.rng.pick(&most).copied().unwrap_or(60);
        let seconds = i64::try_from(1 + self.rng.below(most)).unwrap_or(1);
        let back = self.rng.chance(500);
        Fault::ClockJump(if back { -seconds } else { seconds })
    }

    fn killed_service(&mut self) -> Fault {
        match self.rng.below(4) {
            0 => Fault::KillService(None),
            1 => Fault::KillService(Some(self.rng.bits())),
            2 => Fault::KillServe(Side::Here),
            _ => Fault::KillServe(Side::There),
        }
    }

    fn next_round(&mut self) -> Vec<Fault> {
        let mut round = vec![
            self.killed_service(),
            Fault::RestartLibvirtd(self.side()),
            Fault::SilentUnplug,
            Fault::PlannedUnplug,
            Fault::GarbageToGuest(self.rng.bits()),
            Fault::GarbageToServe(self.rng.bits()),
            self.flaps(Port::Standby),
            self.flaps(Port::Vf),
            self.jump(),
            Fault::FullRun(self.rng.chance(250)),
            Fault::FullRecords,
            Fault::Migrate,
            Fault::Migrate,
            Fault::KillMigrate(self.phase()),
            Fault::InterruptMigrate(self.phase()),
            Fault::MigrateWithoutLibvirtd(self.side()),
        ];
        for index in (1..round.len()).rev() {
            let other = self.rng.below(index as u64 + 1);
            round.swap(index, usize::try_from(other).unwrap_or(index));
        }
        // They are taken from the end: these come last.
        let carried = [Fault::MigrateCarried, self.killed_half()];
        carried.into_iter().chain(round).collect()
    }

    fn killed_half(&mut self) -> Fault {
        Fault::KillHalf {
            half: match self.later.chance(500) {
                true => Half::Source,
                false => Half::Destination,
            },
            after_ms: self.later.below(LONGEST_HALF_MS),
        }
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.round.is_empty() {
            self.round = self.next_round();
        }
        self.round.pop()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ROUND: usize = 18;

    #[test]
    fn a_seed_stands_for_its_faults_and_no_others() {
        let faults = |seed| Schedule::new(seed).take(20 * ROUND).collect::<Vec<_>>();
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
        // Whatever this generator becomes, a seed that was told of before means the same.
        let told: Vec<_> = faults(7).iter().map(ToString::to_string).collect();
        let first = [
            "clock jumps by -15902826 s",
            "VF flaps 3 times for 1192 ms",
            "garbage to serve",
            "full /run",
        ];
        assert_eq!(told[..4], first);
        assert!(told[16].starts_with("carry's half killed, "), "{told:?}");
        assert_eq!(told[17], "migration with a carry");
    }

    #[test]
    fn each_round_has_all_and_rounds_differ() {
        let mut schedule = Schedule::new(1);
        let mut kinds = BTreeSet::new();
        let mut orders = BTreeSet::new();
        for _ in 0..50 {
            let round: Vec<_> = schedule.by_ref().take(ROUND).collect();
            let told: Vec<_> = round.iter().map(Fault::kind).collect();
            let killed = told.iter().filter(|kind| {
                kind.starts_with("service killed") || kind.starts_with("serve killed")
            });
            assert_eq!(killed.count(), 1, "{told:?}");
            for kind in [
                "silent unplug, plug",
                "migration",
                "VF flaps",
                "clock jumps",
                "migration with a carry",
                "carry's half killed",
            ] {
                assert!(told.contains(&kind), "no {kind}: {told:?}");
            }
            kinds.extend(told.iter().copied());
            orders.insert(told);
        }
        assert_eq!(kinds.len(), 20, "{kinds:?}");
        assert!(orders.len() > 40, "{} orders", orders.len());
    }

    #[test]
    fn faults_stay_within_their_bounds() {
        for fault in Schedule::new(3).take(100 * ROUND) {
            match fault {
                Fault::Flaps {
                    times, pause_ms, ..
                } => assert!((1..=4).contains(&times) && pause_ms < 4_000, "{fault:?}"),
                Fault::ClockJump(seconds) => {
                    assert!(seconds != 0 && seconds.unsigned_abs() <= FARTHEST_JUMP_S);
                }
                Fault::KillMigrate(phase) | Fault::InterruptMigrate(phase) => {
                    assert!(PHASES.contains(&phase));
                }
                Fault::KillHalf { after_ms, .. } => assert!(after_ms < LONGEST_HALF_MS),
                _ => {}
            }
        }
    }
}
