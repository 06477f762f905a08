//! A handoff in words.

use tandem_core::status::{Gap, Handoff, HandoffCause};

use super::words::{carrier, cause, warning};

/// Who took over from whom, why, and how long it took.
pub(super) fn handoff_text(handoff: &Handoff) -> String {
    let warned = handoff.warned_by.map(|stage| {
        let lead = handoff
            .lead_us
            .map(|us| format!(", {} ms before the driver began to stop", milliseconds(us)));
        format!("warned by {}{}", warning(stage), lead.unwrap_or_default())
    });
    let why = match (handoff.cause, warned) {
        (HandoffCause::Warned, Some(warned)) => warned,
        (other, Some(warned)) => format!("{}, {warned}", cause(other)),
        (other, None) => cause(other).to_owned(),
    };
    let switched = match handoff.switch_us {
        Some(us) => format!("switched in {} ms", milliseconds(us)),
        None => "switched by the kernel".to_owned(),
    };
    let (from, to) = (carrier(handoff.from), carrier(handoff.to));
    let reaction = handoff
        .reaction_us
        .map(|us| format!(", asked for {} ms after the warning", milliseconds(us)));
    let gap = handoff.gap.map(|gap| format!("; {}", gap_text(&gap)));
    format!(
        "{from} -> {to}: {why}; {switched}{}{}",
        reaction.unwrap_or_default(),
        gap.unwrap_or_default()
    )
}

/// How long there were no frames.
pub(super) fn gap_text(gap: &Gap) -> String {
    let ms = |us: Option<u64>| us.map_or("?".to_owned(), |us| format!("{} ms", milliseconds(us)));
    let late = match (gap.late_frames, gap.drain_us) {
        (0, _) => String::new(),
        (1, _) => ", 1 late frame".to_owned(),
        (count, Some(us)) => format!(", {count} late frames for {} ms", milliseconds(us)),
        (count, None) => format!(", {count} late frames"),
    };
    format!(
        "no frame for {} in, {} out{late}",
        ms(gap.receive_us),
        ms(gap.transmit_us)
    )
}

/// Milliseconds with three decimals.
pub(super) fn milliseconds(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}
