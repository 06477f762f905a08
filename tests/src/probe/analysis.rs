//! What the logs of both sides of a frame probe mean: losses by direction and phase.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::proto::SideLog;

/// The beginning of a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The phase's name.
    pub(crate) phase: String,
    /// When it began, by the host's monotonic clock in µs.
    pub(crate) at_us: u64,
}

/// What became of the frames of one direction that were sent during one phase, or in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames sent.
    pub sent: u64,
    /// Of these, frames that never arrived.
    pub lost: u64,
    /// Of the lost ones, frames that the sender's own kernel refused.
    pub refused: u64,
    /// Arrivals beyond the first of the same frame.
    pub duplicated: u64,
    /// Frames that arrived after one that was sent later.
    pub reordered: u64,
    /// The longest time between the sendings of two frames that arrived with none between them that
    /// arrived, in ms: at rest the sending interval. It counts for the phase in which it began.
    pub longest_gap_ms: u64,
}

/// One direction of a frame probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Direction {
    /// Over the whole probe.
    pub total: Count,
    /// By phase, in order.
    pub phases: Vec<(String, Count)>,
    /// Frames lost in a row, in order.
    pub losses: Vec<Loss>,
    /// Frames sent a second, from the first to the last; 0 for fewer than two.
    pub sent_per_s: u64,
}

/// Frames lost in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Loss {
    /// The phase in which the first of them was sent; empty before the first phase.
    pub phase: String,
    /// When that was, in µs since the phase began.
    pub since_phase_us: u64,
    /// How many.
    pub frames: u64,
}

impl Direction {
    /// The count of a phase; of the first if several have the name.
    pub fn phase(&self, name: &str) -> Option<&Count> {
        self.phases
            .iter()
            .find(|(phase, _)| phase == name)
            .map(|(_, count)| count)
    }
}

/// What a frame probe found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameReport {
    /// From the client to the guest.
    pub to_guest: Direction,
    /// From the guest to the client.
    pub to_client: Direction,
}

impl FrameReport {
    /// Reads the logs. The client's clock is the one the marks are of.
    pub(crate) fn new(client: &SideLog, guest: &SideLog, marks: &[Mark]) -> Self {
        let client_times: Vec<u64> = client.sent.iter().map(|sent| sent.at_us).collect();
        Self {
            to_guest: direction(client, guest, &client_times, marks),
            to_client: direction(guest, client, &host_times(guest, client), marks),
        }
    }
}

/// When each of the guest's frames was sent, by the host's clock. The guest's own clock stands still
/// while it is moved, so a frame that arrived counts as sent when it arrived, and a lost one as sent so
/// long after the last one that arrived as the guest's clock says.
fn host_times(guest: &SideLog, client: &SideLog) -> Vec<u64> {
    let mut arrivals = BTreeMap::new();
    for received in &client.received {
        arrivals.entry(received.sequence).or_insert(received.at_us);
    }
    let first = arrivals.iter().next().and_then(|(sequence, arrival)| {
        let sent = guest.sent.get(usize::try_from(*sequence).ok()?)?;
        Some((sent.at_us, *arrival))
    });
    let (mut guest_base, mut host_base) = first.unwrap_or((0, 0));
    let mut times = Vec::with_capacity(guest.sent.len());
    for (sequence, sent) in (0..).zip(&guest.sent) {
        if let Some(arrival) = arrivals.get(&sequence) {
            (guest_base, host_base) = (sent.at_us, *arrival);
        }
        times.push((host_base + sent.at_us).saturating_sub(guest_base));
    }
    // A lost frame was sent before the next one that arrived.
    let mut latest = u64::MAX;
    for (sequence, time) in (0..times.len()).zip(times.iter_mut()).rev() {
        latest = latest.min(*time);
        let arrived =
            u32::try_from(sequence).is_ok_and(|sequence| arrivals.contains_key(&sequence));
        *time = if arrived { *time } else { latest };
    }
    times
}

fn direction(sender: &SideLog, receiver: &SideLog, times: &[u64], marks: &[Mark]) -> Direction {
    let mut arrivals = vec![0_u64; sender.sent.len()];
    let mut late = vec![false; sender.sent.len()];
    let mut newest = 0;
    for received in &receiver.received {
        let Ok(index) = usize::try_from(received.sequence) else {
            continue;
        };
        let Some(count) = arrivals.get_mut(index) else {
            continue;
        };
        late[index] |= *count == 0 && index < newest;
        newest = newest.max(index);
        *count += 1;
    }
    let mut counts = vec![Count::default(); marks.len()];
    let mut total = Count::default();
    let mut last_arrived: Option<u64> = None;
    let mut gap_phase = None;
    let mut losses: Vec<Loss> = Vec::new();
    let mut was_lost = false;
    for (index, sent) in sender.sent.iter().enumerate() {
        let phase = phase_at(marks, times[index]);
        let lost = arrivals[index] == 0;
        let add = |count: &mut Count| {
            count.sent += 1;
            count.lost += u64::from(lost);
            count.refused += u64::from(lost && !sent.accepted);
            count.duplicated += arrivals[index].saturating_sub(1);
            count.reordered += u64::from(late[index]);
        };
        add(&mut total);
        if let Some(phase) = phase {
            add(&mut counts[phase]);
        }
        match losses.last_mut() {
            Some(last) if lost && was_lost => last.frames += 1,
            _ if lost => losses.push(loss(marks, phase, times[index])),
            _ => {}
        }
        was_lost = lost;
        if lost {
            gap_phase = gap_phase.or(phase);
            continue;
        }
        if let Some(last) = last_arrived {
            let gap_ms = times[index].saturating_sub(last) / 1000;
            total.longest_gap_ms = total.longest_gap_ms.max(gap_ms);
            if let Some(phase) = gap_phase.or(phase_at(marks, last)) {
                counts[phase].longest_gap_ms = counts[phase].longest_gap_ms.max(gap_ms);
            }
        }
        last_arrived = Some(times[index]);
        gap_phase = None;
    }
    let phases = marks
        .iter()
        .map(|mark| mark.phase.clone())
        .zip(counts)
        .collect();
    Direction {
        total,
        phases,
        losses,
        sent_per_s: per_s(times),
    }
}

/// How many of these moments, in µs, there are in a second.
fn per_s(times_us: &[u64]) -> u64 {
    let (Some(first), Some(last)) = (times_us.first(), times_us.last()) else {
        return 0;
    };
    let intervals = times_us.len() as u64 - 1;
    (intervals * 1_000_000)
        .checked_div(last.saturating_sub(*first))
        .unwrap_or(0)
}

/// One frame lost; others may follow.
fn loss(marks: &[Mark], phase: Option<usize>, at_us: u64) -> Loss {
    let mark = phase.and_then(|phase| marks.get(phase));
    Loss {
        phase: mark.map_or_else(String::new, |mark| mark.phase.clone()),
        since_phase_us: at_us.saturating_sub(mark.map_or(0, |mark| mark.at_us)),
        frames: 1,
    }
}

/// The phase a time lies in; nothing before the first mark.
fn phase_at(marks: &[Mark], at_us: u64) -> Option<usize> {
    marks
        .partition_point(|mark| mark.at_us <= at_us)
        .checked_sub(1)
}

impl fmt::Display for FrameReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24}{:>28}   {:>28}",
            "", "client -> guest", "guest -> client"
        )?;
        let heads = format!("{:>8}{:>8}{:>12}", "sent", "lost", "gap ms");
        writeln!(f, "{:<24}{heads}   {heads}", "phase")?;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, a: &Count, b: &Count| {
            let cells = |count: &Count| {
                format!(
                    "{:>8}{:>8}{:>12}",
                    count.sent, count.lost, count.longest_gap_ms
                )
            };
            writeln!(f, "{name:<24}{}   {}", cells(a), cells(b))
        };
        for ((name, a), (_, b)) in self.to_guest.phases.iter().zip(&self.to_client.phases) {
            row(f, name, a, b)?;
        }
        row(f, "total", &self.to_guest.total, &self.to_client.total)
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{Received, Sent};
    use super::*;

    fn sent_every_10_ms(count: u64, start_us: u64) -> Vec<Sent> {
        (0..count)
            .map(|n| Sent {
                at_us: start_us + n * 10_000,
                accepted: true,
            })
            .collect()
    }

    fn mark(phase: &str, at_us: u64) -> Mark {
        Mark {
            phase: phase.to_owned(),
            at_us,
        }
    }

    #[test]
    fn losses_count_for_the_phase_they_were_sent_in() {
        let client = SideLog {
            sent: sent_every_10_ms(10, 0),
            received: Vec::new(),
        };
        let received = [0, 1, 2, 6, 7, 8, 9].map(|sequence| Received { sequence, at_us: 0 });
        let guest = SideLog {
            sent: Vec::new(),
            received: received.to_vec(),
        };
        let marks = [mark("a", 0), mark("b", 30_000), mark("c", 50_000)];
        let report = FrameReport::new(&client, &guest, &marks).to_guest;
        assert_eq!(
            (
                report.total.sent,
                report.total.lost,
                report.total.longest_gap_ms
            ),
            (10, 3, 40)
        );
        assert_eq!(report.sent_per_s, 100);
        let by_phase = |name| {
            report
                .phase(name)
                .map(|count| (count.sent, count.lost, count.longest_gap_ms))
        };
        assert_eq!(by_phase("a"), Some((3, 0, 10)));
        assert_eq!(by_phase("b"), Some((2, 2, 40)));
        assert_eq!(by_phase("c"), Some((5, 1, 10)));
        let loss = Loss {
            phase: "b".to_owned(),
            since_phase_us: 0,
            frames: 3,
        };
        assert_eq!(report.losses, [loss]);
    }

    #[test]
    fn the_guests_clock_is_mapped_to_the_hosts() {
        // The guest's clock is 1 s ahead and stands still for 200 ms after frame 4; 5 and 6 are lost.
        let guest = SideLog {
            sent: sent_every_10_ms(10, 1_000_000),
            received: Vec::new(),
        };
        let arrival = |sequence: u32| Received {
            sequence,
            at_us: u64::from(sequence) * 10_000 + if sequence > 4 { 200_000 } else { 0 },
        };
        let received = [0, 1, 2, 3, 4, 7, 8, 9].map(arrival);
        let client = SideLog {
            sent: Vec::new(),
            received: received.to_vec(),
        };
        let marks = [
            mark("before", 0),
            mark("move", 45_000),
            mark("after", 265_000),
        ];
        let report = FrameReport::new(&client, &guest, &marks).to_client;
        assert_eq!((report.total.lost, report.total.longest_gap_ms), (2, 230));
        assert_eq!(report.sent_per_s, 31, "9 intervals in 290 ms");
        assert_eq!(report.phase("move").map(|count| count.lost), Some(2));
        assert_eq!(report.phase("before").map(|count| count.sent), Some(5));
        assert_eq!(report.phase("after").map(|count| count.sent), Some(3));
    }

    #[test]
    fn repeats_late_ones_and_refusals_are_told_apart() {
        let mut sent = sent_every_10_ms(5, 0);
        sent[3].accepted = false;
        let client = SideLog {
            sent,
            received: Vec::new(),
        };
        let received = [0, 2, 1, 2, 4, 99].map(|sequence| Received { sequence, at_us: 0 });
        let guest = SideLog {
            sent: Vec::new(),
            received: received.to_vec(),
        };
        let total = FrameReport::new(&client, &guest, &[]).to_guest.total;
        assert_eq!(
            (total.lost, total.refused, total.duplicated, total.reordered),
            (1, 1, 1, 1)
        );
    }
}
