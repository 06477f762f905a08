//! What the CPUs counted of a port, as one.

use aya::{maps::PerCpuValues, util::nr_cpus};
use tandem_ebpf::{FrameCounts, LATE_PAUSE_NS, PortCounters};

use super::{error::FastPathError, setup::PortCounts};

/// Counters of every CPU before anything was counted.
pub(super) fn no_counters() -> Result<PerCpuValues<PortCounters>, FastPathError> {
    let system = |error| FastPathError::System {
        what: "the number of CPUs",
        error,
    };
    let cpus = nr_cpus().map_err(|(_, error)| system(error))?;
    PerCpuValues::try_from(vec![PortCounters::default(); cpus]).map_err(system)
}

/// Adds up what the CPUs counted in this period.
pub(super) fn fold<'a>(per_cpu: impl Iterator<Item = &'a PortCounters>, epoch: u64) -> PortCounts {
    let mut current: Vec<_> = per_cpu.filter(|counters| counters.epoch == epoch).collect();
    current.sort_by_key(|counters| std::cmp::Reverse(counters.late.last_boot_ns));
    current
        .into_iter()
        .fold(PortCounts::default(), |sum, counters| PortCounts {
            rx: joined(&sum.rx, &counters.rx),
            tx: joined(&sum.tx, &counters.tx),
            late: joined_late(&sum.late, &counters.late),
            duplicates: sum.duplicates.saturating_add(counters.duplicates),
        })
}

/// With what ended no later on another CPU. What ended long before the rest began is no part of its time.
fn joined_late(later: &FrameCounts, earlier: &FrameCounts) -> FrameCounts {
    let joined = joined(later, earlier);
    let apart = earlier.last_boot_ns.saturating_add(LATE_PAUSE_NS) < later.first_boot_ns;
    FrameCounts {
        first_boot_ns: if apart {
            later.first_boot_ns
        } else {
            joined.first_boot_ns
        },
        ..joined
    }
}

fn joined(a: &FrameCounts, b: &FrameCounts) -> FrameCounts {
    let first = [a.first_boot_ns, b.first_boot_ns];
    FrameCounts {
        frames: a.frames.saturating_add(b.frames),
        group_frames: a.group_frames.saturating_add(b.group_frames),
        // Zero: none passed on that CPU.
        first_boot_ns: first.into_iter().filter(|ns| *ns != 0).min().unwrap_or(0),
        last_boot_ns: a.last_boot_ns.max(b.last_boot_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_the_cpus_add_up_without_those_of_an_earlier_period() {
        let traffic = |frames, first_boot_ns, last_boot_ns| FrameCounts {
            frames,
            group_frames: 1,
            first_boot_ns,
            last_boot_ns,
        };
        let cpu = |epoch, rx, tx| PortCounters {
            epoch,
            rx,
            tx,
            late: rx,
            duplicates: 2,
        };
        let none = FrameCounts::default();
        let cpus = [
            cpu(7, traffic(5, 100, 900), none),
            cpu(6, traffic(50, 1, 2000), traffic(9, 1, 1)),
            cpu(7, traffic(1, 300, 300), traffic(4, 200, 250)),
            PortCounters::default(),
        ];
        let frames = fold(cpus.iter(), 7);
        assert_eq!((frames.rx.frames, frames.rx.group_frames), (6, 2));
        assert_eq!(
            (frames.rx.first_boot_ns, frames.rx.last_boot_ns),
            (100, 900)
        );
        assert_eq!((frames.tx.frames, frames.tx.first_boot_ns), (4, 200));
        assert_eq!(frames.late, frames.rx);
        assert_eq!(frames.duplicates, 4);
        assert_eq!(fold(cpus.iter(), 8), PortCounts::default());
    }

    #[test]
    fn late_frames_of_long_ago_are_no_part_of_what_comes_late_now() {
        let late = |first_boot_ns, last_boot_ns| PortCounters {
            late: FrameCounts {
                frames: 1,
                first_boot_ns,
                last_boot_ns,
                ..FrameCounts::default()
            },
            ..PortCounters::default()
        };
        let now = 9 * LATE_PAUSE_NS;
        let first = |cpus: &[PortCounters]| fold(cpus.iter(), 0).late.first_boot_ns;
        let (old, new) = (late(5, 7), late(now, now + 9));
        assert_eq!(first(&[old, new]), now);
        assert_eq!(first(&[new, old]), now);
        assert_eq!(first(&[new, late(now - 3, now - 2), old]), now - 3);
        assert_eq!(first(&[late(0, 0), old]), 5);
    }
}
