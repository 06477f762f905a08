//! What only Tandem tells: its warnings, its own count of the gaps, and how that compares with what is measured beside it.

use tandem_lab::evacuation::Handover;

use super::super::spread::Spread;
use super::super::table::Table;
use super::samples::{Samples, agree};

/// Warnings, reactions and reported gaps by case and direction.
pub(super) fn summary(all: &[Samples]) -> Table {
    let mut table = Table::new(&[
        "system",
        "VF, hot-plug",
        "frames/s",
        "handoff",
        "lead ms",
        "reaction ms",
        "switch ms",
        "gap in ms",
        "captured",
        "probe's alone",
        "gap out ms",
        "captured",
        "probe's alone",
        "late frames",
        "agree",
    ]);
    for samples in all.iter().filter(|one| one.case.system.is_tandem()) {
        for phase in ["failover", "failback"] {
            let of_phase: Vec<_> = samples
                .handovers()
                .filter(|handover| handover.phase == phase)
                .collect();
            if of_phase.is_empty() {
                continue;
            }
            let cell = |figure: &dyn Fn(&Handover) -> Option<u64>, scale: f64| {
                let known = of_phase.iter().filter_map(|handover| figure(handover));
                let spread = Spread::of(known.map(|value| value as f64 / scale));
                spread.map_or("–".to_owned(), |spread| spread.to_string())
            };
            let pairs = || of_phase.iter().flat_map(|handover| handover.pairs());
            let agreeing = pairs()
                .filter(|(reported, measured)| agree(*reported, *measured, samples.rate_hz))
                .count();
            let gap = |handover: &Handover| handover.reported.gap;
            table.rows.push(vec![
                samples.case.system.title().to_owned(),
                samples.case.hardware(),
                samples.rate_hz.to_string(),
                phase.to_owned(),
                cell(&|one| one.reported.lead_us, 1e3),
                cell(&|one| one.reported.reaction_us, 1e3),
                cell(&|one| one.reported.switch_us, 1e3),
                cell(&|one| gap(one)?.receive_us, 1e3),
                cell(&|one| one.measured_receive_us, 1e3),
                cell(&|one| one.probe_receive_us, 1e3),
                cell(&|one| gap(one)?.transmit_us, 1e3),
                cell(&|one| one.measured_transmit_us, 1e3),
                cell(&|one| one.probe_transmit_us, 1e3),
                cell(&|one| Some(gap(one)?.late_frames), 1.0),
                format!("{agreeing} of {}", pairs().count()),
            ]);
        }
    }
    table
}

/// Each handoff in a line.
pub(super) fn lines(all: &[Samples]) -> Vec<String> {
    let mut lines = Vec::new();
    for samples in all {
        for (number, evacuation) in (1..).zip(&samples.evacuations) {
            for handover in &evacuation.handovers {
                let head = format!("{} {number} {}", samples.key(), handover.phase);
                lines.push(format!("{head}: {}", line(handover, samples.rate_hz)));
            }
        }
    }
    lines
}

fn line(handover: &Handover, rate_hz: u32) -> String {
    let reported = &handover.reported;
    let gap = reported.gap.unwrap_or_default();
    let ms = |us: Option<u64>| us.map_or("?".to_owned(), |us| format!("{:.1}", us as f64 / 1e3));
    let verdict = |reported: Option<u64>, measured: Option<u64>| match (reported, measured) {
        (Some(reported), Some(measured)) if agree(reported, measured, rate_hz) => "agree",
        (Some(_), Some(_)) => "DIFFER",
        _ => "unknown",
    };
    format!(
        "{:?}, lead {} ms, reaction {} ms, switch {} ms; in {} ms, captured {}: {}, probe {}; out {} ms, captured {}: {}, probe {}; {} late",
        reported.cause,
        ms(reported.lead_us),
        ms(reported.reaction_us),
        ms(reported.switch_us),
        ms(gap.receive_us),
        ms(handover.measured_receive_us),
        verdict(gap.receive_us, handover.measured_receive_us),
        ms(handover.probe_receive_us),
        ms(gap.transmit_us),
        ms(handover.measured_transmit_us),
        verdict(gap.transmit_us, handover.measured_transmit_us),
        ms(handover.probe_transmit_us),
        gap.late_frames
    )
}

#[cfg(test)]
pub(super) mod tests {
    use tandem_core::Time;
    use tandem_core::status::{Gap, Handoff, HandoffCause, Traffic};
    use tandem_lab::evacuation::System;

    use super::super::samples::tests::samples;
    use super::*;

    /// A handoff with these gaps of what was received.
    pub(in super::super) fn handover(
        receive_us: Option<u64>,
        measured_receive_us: Option<u64>,
    ) -> Handover {
        Handover {
            phase: "failover".to_owned(),
            reported: Handoff {
                number: 2,
                at: Time(1),
                from: Traffic::Vf,
                to: Traffic::Standby,
                cause: HandoffCause::Warned,
                switch_us: Some(2_500),
                lead_us: Some(43_100),
                warned_by: None,
                reaction_us: Some(1_500),
                gap: Some(Gap {
                    receive_us,
                    ..Gap::default()
                }),
            },
            measured_receive_us,
            measured_transmit_us: Some(1_000),
            probe_receive_us: measured_receive_us.map(|us| us + 1_000),
            probe_transmit_us: None,
        }
    }

    #[test]
    fn reported_and_captured_gaps_stand_side_by_side() {
        let mut one = samples(System::TandemWarned, &[[0, 40, 0], [0, 40, 0]]);
        one.evacuations[0]
            .handovers
            .push(handover(Some(5_000), Some(6_000)));
        one.evacuations[1]
            .handovers
            .push(handover(Some(5_000), Some(9_000)));
        let all = [one];
        let table = summary(&all);
        assert_eq!(table.rows.len(), 1);
        assert_eq!(
            table.rows[0][3..],
            [
                "failover",
                "43",
                "1.5",
                "2.5",
                "5",
                "7.5 (6..9)",
                "8 (7..10)",
                "–",
                "1",
                "–",
                "0",
                "1 of 2"
            ]
        );
        let lines = lines(&all);
        assert!(
            lines[0].contains("tandem-warned-e1000e-acpi-1000 1 failover: Warned, lead 43.1 ms"),
            "{lines:?}"
        );
        assert!(
            lines[0].contains("in 5.0 ms, captured 6.0: agree, probe 7.0; out ? ms, captured 1.0: unknown, probe ?"),
            "{lines:?}"
        );
        assert!(lines[1].contains("captured 9.0: DIFFER"), "{lines:?}");
    }
}
