//! What a guest reports, in words for people: those of `tandem status`.

use tandem_core::status::{Gap, Switchover};
use tandem_core::words::{carrier, cause};

/// Who took over from whom, why, and how long there were no frames; nothing if that was not counted.
pub(super) fn switchover(switchover: &Switchover) -> Option<String> {
    let gap = gap(&switchover.gap?)?;
    let reaction = switchover.reaction_us.map_or(String::new(), |us| {
        format!(", asked for {} ms after the warning", ms(us))
    });
    Some(format!(
        "{} → {} ({}){reaction}: {gap}",
        carrier(switchover.from),
        carrier(switchover.to),
        cause(switchover.cause)
    ))
}

fn gap(gap: &Gap) -> Option<String> {
    let way = |name: &str, us: Option<u64>| Some(format!("{name} gap {} ms", ms(us?)));
    let ways = [
        way("receive", gap.receive_us),
        way("transmit", gap.transmit_us),
    ];
    let ways: Vec<_> = ways.into_iter().flatten().collect();
    if ways.is_empty() {
        return None;
    }
    let gaps = ways.join(", ");
    Some(match gap.late_frames {
        0 => gaps,
        1 => format!("{gaps}; 1 late frame on the old NIC"),
        late => format!("{gaps}; {late} late frames on the old NIC"),
    })
}

/// Milliseconds with one decimal.
pub(super) fn ms(us: u64) -> String {
    format!("{:.1}", us as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use tandem_core::Time;
    use tandem_core::status::{SwitchoverCause, Traffic};

    use super::*;

    #[test]
    fn a_switchover_is_told_in_words() {
        let mut one = Switchover {
            number: 1,
            at: Time(1),
            from: Traffic::Vf,
            to: Traffic::Standby,
            cause: SwitchoverCause::Warned,
            took_us: None,
            lead_us: None,
            warned_by: None,
            reaction_us: Some(5_300),
            gap: None,
        };
        assert_eq!(switchover(&one), None);
        one.gap = Some(Gap {
            receive_us: Some(4_600),
            transmit_us: Some(0),
            late_frames: 2,
            drain_us: None,
        });
        assert_eq!(
            switchover(&one).unwrap(),
            "VF → standby (the kernel warned), asked for 5.3 ms after the warning: receive gap 4.6 ms, transmit gap \
             0.0 ms; 2 late frames on the old NIC"
        );
        one.gap = Some(Gap::default());
        assert_eq!(switchover(&one), None, "as when nothing was sent meanwhile");
    }
}
