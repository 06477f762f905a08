//! What a guest reports, in words for people: those of `tandem status`.

use tandem_core::input::RemovalStage;
use tandem_core::status::{Gap, Switchover, SwitchoverCause, Traffic};

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
    let way = |name: &str, us: Option<u64>| Some(format!("{name} for {} ms", ms(us?)));
    let ways = [
        way("none to the guest", gap.receive_us),
        way("none from it", gap.transmit_us),
    ];
    let ways: Vec<_> = ways.into_iter().flatten().collect();
    if ways.is_empty() {
        return None;
    }
    let frames = format!("of the bond's frames {}", ways.join(", "));
    Some(match gap.late_frames {
        0 => frames,
        1 => format!("{frames}; 1 came late on the old NIC"),
        late => format!("{frames}; {late} came late on the old NIC"),
    })
}

/// Milliseconds with one decimal.
pub(super) fn ms(us: u64) -> String {
    format!("{:.1}", us as f64 / 1e3)
}

fn carrier(traffic: Traffic) -> &'static str {
    match traffic {
        Traffic::None => "nobody",
        Traffic::Vf => "VF",
        Traffic::Standby => "standby",
        Traffic::Other => "another port",
    }
}

fn cause(cause: SwitchoverCause) -> &'static str {
    match cause {
        SwitchoverCause::Planned => "planned by the host",
        SwitchoverCause::Warned => "the kernel warned",
        SwitchoverCause::Abrupt => "without a warning",
        SwitchoverCause::Carrier => "carrier lost",
        SwitchoverCause::Operator => "asked for by an operator",
        SwitchoverCause::Arrival => "a VF came",
    }
}

/// Who warned of a removal.
pub(super) fn warning(stage: RemovalStage) -> &'static str {
    match stage {
        RemovalStage::ButtonPressed => "the slot's button",
        RemovalStage::ButtonCancelled => "the slot's button, cancelled",
        RemovalStage::EjectRequested => "ACPI's request to eject",
        RemovalStage::RemovalStarted => "the PCI core",
        RemovalStage::DriverStopping => "its driver",
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::Time;

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
            "VF → standby (the kernel warned), asked for 5.3 ms after the warning: of the bond's frames none to the guest \
             for 4.6 ms, none from it for 0.0 ms; 2 came late on the old NIC"
        );
        one.gap = Some(Gap::default());
        assert_eq!(switchover(&one), None, "as when nothing was sent meanwhile");
    }
}
