//! The story of one run as data: phases, who carried the traffic, what was lost. Pure: it is drawn as text
//! for a terminal ([`text::render`]) and as a picture ([`svg::render`]).

pub mod svg;
pub mod text;

/// Who carries the bond's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// The pass-through NIC.
    Vf,
    /// The paravirtual NIC.
    Standby,
    /// No port is active.
    Nobody,
}

impl Carrier {
    fn label(self) -> &'static str {
        match self {
            Self::Vf => "VF",
            Self::Standby => "standby",
            Self::Nobody => "nobody",
        }
    }
}

/// What a phase's loss says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseKind {
    /// Nothing moves.
    Steady,
    /// A step of the switchover there or back: its loss is Tandem's own.
    Switchover,
    /// The hypervisor stops and moves the VM: its loss is the floor that no guest can go below.
    Migration,
}

/// Frames of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Frames {
    /// How many were sent.
    pub sent: u64,
    /// How many of those never arrived.
    pub lost: u64,
}

impl std::ops::Add for Frames {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            lost: self.lost + other.lost,
        }
    }
}

/// A part of the run. Times are in milliseconds since any one start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Its name, such as `unplug`.
    pub name: String,
    /// What its loss says.
    pub kind: PhaseKind,
    /// When it began.
    pub start_ms: u64,
    /// When it ended.
    pub end_ms: u64,
    /// Frames from the guest to its peer.
    pub from_guest: Frames,
    /// Frames from the peer to the guest.
    pub to_guest: Frames,
    /// Frames to the guest that were carried after it, if any were.
    pub carried: Option<u64>,
    /// The longest time in which no frame arrived, of both directions.
    pub longest_gap_ms: u64,
}

/// From this time on, until the next entry, this is who carried the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarrierChange {
    /// Milliseconds since the same start as the phases'.
    pub at_ms: u64,
    /// Who took over.
    pub carrier: Carrier,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether everything that was promised held.
    pub passed: bool,
    /// The closing sentence.
    pub text: String,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// What was run, in one line.
    pub title: String,
    /// Its phases in order of time.
    pub phases: Vec<Phase>,
    /// Who carried the traffic, in order of time.
    pub carriers: Vec<CarrierChange>,
    /// Whether the TCP connection that was opened first was still open at the end.
    pub tcp_alive: bool,
    /// The longest time in which it made no progress.
    pub tcp_stall_ms: u64,
    /// Further facts worth a line each, such as an early warning's lead time.
    pub notes: Vec<String>,
    /// How it ended.
    pub verdict: Verdict,
}

/// One carrier's time without interruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    start_ms: u64,
    end_ms: u64,
    carrier: Carrier,
}

impl Timeline {
    fn start_ms(&self) -> u64 {
        self.phases
            .iter()
            .map(|phase| phase.start_ms)
            .min()
            .unwrap_or(0)
    }

    fn end_ms(&self) -> u64 {
        self.phases
            .iter()
            .map(|phase| phase.end_ms)
            .max()
            .unwrap_or(0)
    }

    /// At least 1, so that it can divide.
    fn length_ms(&self) -> u64 {
        self.end_ms().saturating_sub(self.start_ms()).max(1)
    }

    /// Who carried the traffic when, within the phases.
    fn segments(&self) -> Vec<Segment> {
        let ends = self
            .carriers
            .iter()
            .skip(1)
            .map(|next| next.at_ms)
            .chain([self.end_ms()]);
        self.carriers
            .iter()
            .zip(ends)
            .map(|(from, end_ms)| Segment {
                start_ms: from.at_ms.max(self.start_ms()),
                end_ms: end_ms.min(self.end_ms()),
                carrier: from.carrier,
            })
            .filter(|segment| segment.start_ms < segment.end_ms)
            .collect()
    }

    /// Who carried the traffic in a phase, in order, such as `VF → standby`.
    fn carriers_in(&self, phase: &Phase) -> String {
        let mut labels: Vec<&str> = self
            .segments()
            .iter()
            .filter(|segment| segment.start_ms < phase.end_ms && segment.end_ms > phase.start_ms)
            .map(|segment| segment.carrier.label())
            .collect();
        labels.dedup();
        // A port that flapped would fill the line; its two ends and the count say enough.
        match labels.as_slice() {
            [first, .., last] if labels.len() > 3 => {
                format!("{first} … {last} ({}×)", labels.len() - 1)
            }
            _ => labels.join(" → "),
        }
    }

    /// The frames of all phases of a kind, from the guest and to it.
    fn frames(&self, kind: PhaseKind) -> (Frames, Frames) {
        self.phases.iter().filter(|phase| phase.kind == kind).fold(
            (Frames::default(), Frames::default()),
            |(from, to), phase| (from + phase.from_guest, to + phase.to_guest),
        )
    }

    fn has(&self, kind: PhaseKind) -> bool {
        self.phases.iter().any(|phase| phase.kind == kind)
    }

    /// The fate of the TCP connection, as a sentence.
    fn tcp_sentence(&self) -> String {
        let fate = if self.tcp_alive {
            "still open at the end"
        } else {
            "LOST"
        };
        format!(
            "TCP connection: {fate}, longest stall {} ms",
            self.tcp_stall_ms
        )
    }

    /// The distance between two marks of the time axis, so that there are at most `most` of them.
    fn tick_ms(&self, most: u64) -> u64 {
        let steps_ms = [
            100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 300_000, 600_000,
        ];
        steps_ms
            .into_iter()
            .find(|step_ms| self.length_ms() / step_ms <= most)
            .unwrap_or(3_600_000)
    }
}

/// Seconds with one digit behind the point.
fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// A mark of the time axis: whole seconds where they are whole.
fn tick_label(ms: u64) -> String {
    if ms.is_multiple_of(1000) {
        format!("{} s", ms / 1000)
    } else {
        seconds(ms)
    }
}

#[cfg(test)]
mod sample {
    use super::{Carrier, CarrierChange, Frames, Phase, PhaseKind, Timeline, Verdict};

    fn phase(
        name: &str,
        kind: PhaseKind,
        span_ms: (u64, u64),
        lost: (u64, u64),
        longest_gap_ms: u64,
    ) -> Phase {
        let sent = (span_ms.1 - span_ms.0) / 5;
        Phase {
            name: name.to_owned(),
            kind,
            start_ms: span_ms.0,
            end_ms: span_ms.1,
            from_guest: Frames { sent, lost: lost.0 },
            to_guest: Frames { sent, lost: lost.1 },
            carried: (kind == PhaseKind::Migration).then_some(77),
            longest_gap_ms,
        }
    }

    /// A made-up run for tests: its numbers are nobody's measurement.
    pub(super) fn timeline() -> Timeline {
        let at = |at_ms, carrier| CarrierChange { at_ms, carrier };
        Timeline {
            title: "a sample & its <parts>".to_owned(),
            phases: vec![
                phase("steady", PhaseKind::Steady, (1_000, 3_000), (0, 0), 6),
                phase("prepare", PhaseKind::Switchover, (3_000, 3_400), (0, 1), 12),
                phase("unplug", PhaseKind::Switchover, (3_400, 5_100), (0, 0), 7),
                phase("migrate", PhaseKind::Migration, (5_100, 7_600), (9, 8), 205),
                phase("plug", PhaseKind::Switchover, (7_600, 9_000), (0, 0), 7),
                phase(
                    "failback",
                    PhaseKind::Switchover,
                    (9_000, 11_000),
                    (0, 0),
                    9,
                ),
            ],
            carriers: vec![
                at(0, Carrier::Vf),
                at(3_100, Carrier::Nobody),
                at(3_101, Carrier::Standby),
                at(10_200, Carrier::Vf),
            ],
            tcp_alive: true,
            tcp_stall_ms: 205,
            notes: vec!["early warning: 4,870 ms before the driver stopped".to_owned()],
            verdict: Verdict {
                passed: true,
                text: "the connection lived through it".to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_stay_within_the_phases() {
        let segments = sample::timeline().segments();
        assert_eq!(segments.first().unwrap().start_ms, 1_000);
        assert_eq!(segments.last().unwrap().end_ms, 11_000);
        let gap = Segment {
            start_ms: 3_100,
            end_ms: 3_101,
            carrier: Carrier::Nobody,
        };
        assert!(segments.contains(&gap));
    }

    #[test]
    fn a_flapping_phase_stays_short() {
        let mut timeline = sample::timeline();
        timeline.carriers = (0..20)
            .map(|i| CarrierChange {
                at_ms: 1_000 + i * 10,
                carrier: if i % 2 == 0 {
                    Carrier::Vf
                } else {
                    Carrier::Standby
                },
            })
            .collect();
        assert_eq!(
            timeline.carriers_in(&timeline.phases[0]),
            "VF … standby (19×)"
        );
        assert_eq!(timeline.carriers_in(&timeline.phases[4]), "standby");
    }

    #[test]
    fn losses_are_summed_by_kind() {
        let timeline = sample::timeline();
        let (from, to) = timeline.frames(PhaseKind::Switchover);
        assert_eq!((from.lost, to.lost), (0, 1));
        let (from, to) = timeline.frames(PhaseKind::Migration);
        assert_eq!((from.lost, to.lost), (9, 8));
    }

    #[test]
    fn an_empty_timeline_divides_by_nothing() {
        let mut empty = sample::timeline();
        empty.phases.clear();
        assert_eq!(empty.length_ms(), 1);
        assert!(empty.segments().is_empty());
        assert!(text::render(&empty, text::Colour::Off).contains("the connection lived"));
        assert!(svg::render(&empty).ends_with("</svg>\n"));
    }
}
