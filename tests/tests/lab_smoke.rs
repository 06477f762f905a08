//! The lab itself: a guest boots, answers, and loses nothing at rest.

use tandem_lab::{Lab, Mac};

#[test]
fn a_small_guest_boots_and_runs_commands() {
    let Some(lab) = Lab::for_test("small guest") else {
        return;
    };
    let host = lab.host("a").unwrap();
    let vm = lab.small_guest().standby(Mac::test(1)).boot(&host).unwrap();
    eprintln!("booted in {:?}", vm.booted_in());
    assert!(vm.sh("uname -r").unwrap().starts_with("6.12."));
    assert!(vm.sh("ip -o link").unwrap().contains("02:7a:6e:64:6d:01"));
}
