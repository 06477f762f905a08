//! The main job on a real kernel: the VF leaves, the VM moves, another VF arrives, the connection lives.

use tandem_lab::probe::FrameOptions;
use tandem_lab::tandem::Setup;
use tandem_lab::timeline::Carrier;
use tandem_lab::{HotPlug, Lab, NicModel, demo};

fn evacuate(setup: &Setup) -> anyhow::Result<()> {
    // Gone again before the story makes its own.
    let Some(lab) = Lab::for_test("evacuation") else {
        return Ok(());
    };
    drop(lab);
    let timeline = demo::run(setup, FrameOptions::default())?;
    eprintln!(
        "{}",
        tandem_lab::timeline::text::render(&timeline, tandem_lab::timeline::text::Colour::Off)
    );
    assert!(timeline.tcp_alive, "{}", timeline.verdict.text);
    let carriers: Vec<_> = timeline
        .carriers
        .iter()
        .map(|handover| handover.carrier)
        .collect();
    assert_eq!(carriers, [Carrier::Vf, Carrier::Standby, Carrier::Vf]);
    let names: Vec<_> = timeline
        .phases
        .iter()
        .map(|phase| phase.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "steady",
            "prepare",
            "unplug",
            "migrate",
            "plug",
            "failback",
            "steady again"
        ]
    );
    for phase in &timeline.phases {
        assert!(
            phase.to_guest.sent > 0 && phase.from_guest.sent > 0,
            "no frames in {phase:?}"
        );
    }
    Ok(())
}

#[test]
fn igb_over_acpi_hot_plug() {
    evacuate(&Setup::new().unwrap()).unwrap();
}

#[test]
fn e1000e_over_native_hot_plug() {
    let mut setup = Setup::new().unwrap();
    setup.model = NicModel::E1000e;
    setup.hot_plug = HotPlug::Native;
    evacuate(&setup).unwrap();
}
