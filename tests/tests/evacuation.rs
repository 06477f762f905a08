//! The main job on a real kernel: the VF leaves, the VM moves, another VF arrives, the connection lives. All of it on the other
//! kernels: suites `long-evacuation-on-6-1` and `long-evacuation-on-7-3`.

use tandem_lab::demo::{HostManners, MOST_LOST, Migration};
use tandem_lab::probe::FrameOptions;
use tandem_lab::tandem::Setup;
use tandem_lab::timeline::{Carrier, PhaseKind};
use tandem_lab::{HotPlug, Kernel, Lab, NicModel, demo};

fn evacuate(setup: &Setup, manners: HostManners) -> anyhow::Result<()> {
    // Gone again before the story makes its own.
    let Some(lab) = Lab::for_test("evacuation") else {
        return Ok(());
    };
    drop(lab);
    let timeline = demo::run(setup, manners, Migration::Plain, FrameOptions::default())?;
    eprintln!(
        "{}",
        tandem_lab::timeline::text::render(&timeline, tandem_lab::timeline::text::Colour::Off)
    );
    assert!(timeline.tcp_alive, "{}", timeline.verdict.text);
    let carriers: Vec<_> = timeline
        .carriers
        .iter()
        .map(|switchover| switchover.carrier)
        .collect();
    assert_eq!(carriers, [Carrier::Vf, Carrier::Standby, Carrier::Vf]);
    let prepared = (manners == HostManners::Asks).then_some("prepare");
    let names: Vec<_> = timeline
        .phases
        .iter()
        .map(|phase| phase.name.as_str())
        .collect();
    let expected: Vec<_> = ["steady"]
        .into_iter()
        .chain(prepared)
        .chain(["unplug", "migrate", "plug", "failback", "steady again"])
        .collect();
    assert_eq!(names, expected);
    for phase in &timeline.phases {
        assert!(
            phase.to_guest.sent > 0 && phase.from_guest.sent > 0,
            "no frames in {phase:?}"
        );
    }
    let in_switchover = timeline.phases.iter();
    let in_switchover = in_switchover.filter(|phase| phase.kind == PhaseKind::Switchover);
    let lost: u64 = in_switchover
        .map(|phase| phase.to_guest.lost + phase.from_guest.lost)
        .sum();
    assert!(lost <= MOST_LOST, "{}", timeline.verdict.text);
    assert!(timeline.verdict.passed, "{}", timeline.verdict.text);
    Ok(())
}

#[test]
fn igb_over_acpi_hot_plug() {
    evacuate(&Setup::new().unwrap(), HostManners::Asks).unwrap();
}

#[test]
fn a_host_that_takes_the_vf_without_a_word() {
    evacuate(&Setup::new().unwrap(), HostManners::Silent).unwrap();
}

#[test]
fn e1000e_over_native_hot_plug() {
    let setup = with_e1000e_over_native_hot_plug(Setup::new().unwrap());
    evacuate(&setup, HostManners::Asks).unwrap();
}

/// No tcx yet: the fast-path programs are attached by clsact.
#[test]
fn a_silent_host_on_linux_6_1() {
    evacuate(&on(Kernel::V6_1).unwrap(), HostManners::Silent).unwrap();
}

#[test]
fn a_silent_host_on_linux_7_3() {
    evacuate(&on(Kernel::V7_3).unwrap(), HostManners::Silent).unwrap();
}

#[test]
fn a_silent_host_with_an_e1000e_over_native_hot_plug() {
    let setup = with_e1000e_over_native_hot_plug(Setup::new().unwrap());
    evacuate(&setup, HostManners::Silent).unwrap();
}

fn on(kernel: Kernel) -> anyhow::Result<Setup> {
    Ok(Setup {
        kernel,
        ..Setup::new()?
    })
}

fn with_e1000e_over_native_hot_plug(setup: Setup) -> Setup {
    Setup {
        model: NicModel::E1000e,
        hot_plug: HotPlug::Native,
        ..setup
    }
}
