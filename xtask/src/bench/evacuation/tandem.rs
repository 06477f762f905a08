//! What only Tandem tells: its warnings, its own count of the gaps, and how that compares with what is measured beside it.

use tandem_lab::evacuation::MeasuredSwitchover;

use super::super::spread::Spread;
use super::super::table::Table;
use super::samples::{Samples, agree};

/// Warnings, reactions and reported gaps by case and direction.
pub(super) fn summary(all: &[Samples]) -> Table {
    let mut table = Table::new(&[
        "system",
        "VF, hot-plug",
        "frames/s",
        "switchover",
        "lead ms",
        "reaction ms",
        "took ms",
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
                .switchovers()
                .filter(|switchover| switchover.phase == phase)
                .collect();
            if of_phase.is_empty() {
                continue;
            }
            let cell = |figure: &dyn Fn(&MeasuredSwitchover) -> Option<u64>, scale: f64| {
                let known = of_phase.iter().filter_map(|switchover| figure(switchover));
                let spread = Spread::of(known.map(|value| value as f64 / scale));
                spread.map_or("–".to_owned(), |spread| spread.to_string())
            };
            let pairs = || of_phase.iter().flat_map(|switchover| switchover.pairs());
            let agreeing = pairs()
                .filter(|(reported, measured)| agree(*reported, *measured, samples.rate_hz))
                .count();
            let gap = |switchover: &MeasuredSwitchover| switchover.reported.gap;
            table.rows.push(vec![
                samples.case.system.title().to_owned(),
                samples.case.hardware(),
                samples.rate_hz.to_string(),
                phase.to_owned(),
                cell(&|one| one.reported.lead_us, 1e3),
                cell(&|one| one.reported.reaction_us, 1e3),
                cell(&|one| one.reported.took_us, 1e3),
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

/// Each switchover in a line.
pub(super) fn lines(all: &[Samples]) -> Vec<String> {
    let mut lines = Vec::new();
    for samples in all {
        for (number, evacuation) in (1..).zip(&samples.evacuations) {
            for switchover in &evacuation.switchovers {
                let head = format!("{} {number} {}", samples.key(), switchover.phase);
                lines.push(format!("{head}: {}", line(switchover, samples.rate_hz)));
            }
        }
    }
    lines
}

fn line(switchover: &MeasuredSwitchover, rate_hz: u32) -> String {
    let reported = &switchover.reported;
    let gap = reported.gap.unwrap_or_default();
    let ms = |us: Option<u64>| us.map_or("?".to_owned(), |us| format!("{:.1}", us as f64 / 1e3));
    let verdict = |reported: Option<u64>, measured: Option<u64>| match (reported, measured) {
        (Some(reported), Some(measured)) if agree(reported, measured, rate_hz) => "agree",
        (Some(_), Some(_)) => "DIFFER",
        _ => "unknown",
    };
    format!(
        "{:?}, lead {} ms, reaction {} ms, took {} ms; in {} ms, captured {}: {}, probe {}; out {} ms, captured {}: {}, probe {}; {} late",
        reported.cause,
        ms(reported.lead_us),
        ms(reported.reaction_us),
        ms(reported.took_us),
        ms(gap.receive_us),
        ms(switchover.measured_receive_us),
        verdict(gap.receive_us, switchover.measured_receive_us),
        ms(switchover.probe_receive_us),
        ms(gap.transmit_us),
        ms(switchover.measured_transmit_us),
        verdict(gap.transmit_us, switchover.measured_transmit_us),
        ms(switchover.probe_transmit_us),
        gap.late_frames
    )
}

#[cfg(test)]
pub(super) mod tests {
    use tandem_core::Time;
    use tandem_core::status::{Gap, Switchover, SwitchoverCause, Traffic};
    use tandem_lab::evacuation::System;

    use super::super::samples::tests::samples;
    use super::*;

    /// A switchover with these gaps of what was received.
    pub(in super::super) fn switchover(
        receive_us: Option<u64>,
        measured_receive_us: Option<u64>,
    ) -> MeasuredSwitchover {
        MeasuredSwitchover {
            phase: "failover".to_owned(),
            reported: Switchover {
                number: 2,
                at: Time(1),
                from: Traffic::Vf,
                to: Traffic::Standby,
                cause: SwitchoverCause::Warned,
                took_us: Some(2_500),
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
            .switchovers
            .push(switchover(Some(5_000), Some(6_000)));
        one.evacuations[1]
            .switchovers
            .push(switchover(Some(5_000), Some(9_000)));
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
