//! What goes wrong between two real libvirt hosts, and how it ends: the same check after each.
//!
//! A boot costs more than a fault, so one guest lives through several of them in a row.
//! A guest that refuses the unplug is not to be had here: QEMU tells of that for ACPI's memory only, or for
//! native hot-plug. The fake hosts in `helper/host/tests/fault_schedule` have it.

mod before;
mod guest;
mod reports;
mod underway;

use tandem_lab::Lab;
use tandem_lab::libvirt::World;

/// A fault: what it is, and what does it.
type Fault = (&'static str, fn(&mut World<'_>) -> anyhow::Result<()>);

/// The faults in a row, the last one's name in front of what went wrong.
fn each(name: &str, kernel_parameters: &[&str], faults: &[Fault]) {
    let Some(lab) = Lab::for_libvirt_test(name) else {
        return;
    };
    let mut world = World::new(&lab, kernel_parameters).expect("two hosts and a guest");
    for (fault, run) in faults {
        let begun = std::time::Instant::now();
        if let Err(error) = run(&mut world).and_then(|()| world.check()) {
            panic!(
                "{fault}: {error:?}\n{}\n{}",
                world.log_tails(),
                world.guest.log_tail()
            );
        }
        eprintln!("{fault}: {} s", begun.elapsed().as_secs());
    }
}

#[test]
fn nothing_changed_or_rolled_back() {
    each(
        "libvirt faults before the switch",
        &[],
        &[
            ("unreachable destination", before::unreachable),
            ("destination without VF", before::no_vf),
            ("destination without memory", before::no_memory),
            ("Ctrl-C in prepare", before::interrupted_in_prepare),
            ("Ctrl-C in unplug", before::interrupted_in_unplug),
            ("second migration", before::second_is_refused),
            ("cancelled by virsh", before::cancelled),
        ],
    );
}

#[test]
fn killed_restarted_and_rebooted() {
    each(
        "libvirt faults under way",
        &[],
        &[
            ("kill -9, then recover", underway::killed),
            ("libvirtd restarted", underway::libvirtd_restarted),
            ("guest rebooted", underway::rebooted),
        ],
    );
}

#[test]
fn without_agent_device_or_vf() {
    each(
        "libvirt faults of guest and devices",
        &[],
        &[
            ("agent missing", guest::agent_is_missing),
            ("device gone already", guest::vf_is_gone),
            ("another manager", guest::another_manager),
            ("degraded, then recovered", guest::degraded_and_recovered),
            (
                "degraded, then recovered there",
                guest::degraded_and_recovered_there,
            ),
            ("attach fails three times", guest::attach_fails_three_times),
        ],
    );
}

/// Its kernel takes no notice of hot-plug over ACPI.
#[test]
fn unplug_is_ignored() {
    each(
        "libvirt fault: unplug ignored",
        &["acpiphp.disable=1"],
        &[("unplug ignored", guest::ignores_the_unplug)],
    );
}
