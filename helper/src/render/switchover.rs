//! A switchover in words.

use tandem_core::status::{Gap, Switchover, SwitchoverCause};

use super::words::{carrier, cause, warning};

/// Who took over from whom, why, and how long it took.
pub(super) fn switchover_text(switchover: &Switchover) -> String {
    let warned = switchover.warned_by.map(|stage| {
        let lead = switchover
            .lead_us
            .map(|us| format!(", {} ms before the driver began to stop", milliseconds(us)));
        format!("warned by {}{}", warning(stage), lead.unwrap_or_default())
    });
    let why = match (switchover.cause, warned) {
        (SwitchoverCause::Warned, Some(warned)) => warned,
        (other, Some(warned)) => format!("{}, {warned}", cause(other)),
        (other, None) => cause(other).to_owned(),
    };
    let switched = match switchover.took_us {
        Some(us) => format!("took {} ms", milliseconds(us)),
        None => "by the kernel itself".to_owned(),
    };
    let (from, to) = (carrier(switchover.from), carrier(switchover.to));
    let reaction = switchover
        .reaction_us
        .map(|us| format!(", requested {} ms after the warning", milliseconds(us)));
    let gap = switchover.gap.map(|gap| format!("; {}", gap_text(&gap)));
    format!(
        "{from} -> {to}: {why}; {switched}{}{}",
        reaction.unwrap_or_default(),
        gap.unwrap_or_default()
    )
}

/// How long there were no frames.
pub(super) fn gap_text(gap: &Gap) -> String {
    let unknown = || "not measured".to_owned();
    let ms = |us: Option<u64>| us.map_or_else(unknown, |us| format!("{} ms", milliseconds(us)));
    let late = match (gap.late_frames, gap.drain_us) {
        (0, _) => String::new(),
        (1, _) => ", 1 late frame".to_owned(),
        (count, Some(us)) => format!(", {count} late frames over {} ms", milliseconds(us)),
        (count, None) => format!(", {count} late frames"),
    };
    format!(
        "receive gap {}, transmit gap {}{late}",
        ms(gap.receive_us),
        ms(gap.transmit_us)
    )
}

/// Milliseconds with three decimals.
pub(super) fn milliseconds(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}
