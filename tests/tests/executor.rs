//! Executor and observers of the service with what this machine may lack: the bonding driver, NICs that go,
//! a clock that may be set. Their own tests, ignored elsewhere, run inside a guest.

use std::time::Duration;

use anyhow::{Result, ensure};
use tandem_lab::artifacts::cargo;
use tandem_lab::{Kernel, Lab, NicModel, test_mac};

const PROGRAM: &str = "/usr/bin/guest-tests";
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn the_services_own_tests_pass_in_a_guest() {
    let Some(lab) = Lab::for_test("executor") else {
        return;
    };
    own_tests(&lab).unwrap();
}

fn own_tests(lab: &Lab) -> Result<()> {
    let program = cargo::unit_tests("tandem-guest", "tandem_guest")?;
    let vm = lab
        .small_guest()
        .kernel(Kernel::from_environment()?)
        .module("veth")
        .standby(test_mac(1))
        .vf(NicModel::E1000e, test_mac(2))
        .program(&program, PROGRAM)
        .boot(&lab.host("a")?)?;
    // As on a machine where nobody keeps the driver from making a bond0 by itself when it is loaded.
    vm.sh("rm -f /etc/modprobe.d/* && echo quiet > /tmp/cmdline && mount --bind /tmp/cmdline /proc/cmdline")?;
    let argv = [
        "env",
        "LAB_REQUIRE=all",
        PROGRAM,
        "--ignored",
        "--test-threads=1",
        "act::tests",
        "observe::tests",
    ];
    let output = vm.run(&argv, LIMIT)?;
    let text = output.text();
    eprintln!("{text}");
    ensure!(output.success(), "{text}\n{}", output.error_text());
    ensure!(
        !text.contains(" 0 passed"),
        "no test has such a name:\n{text}"
    );
    Ok(())
}
