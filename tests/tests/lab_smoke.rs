//! The lab itself: a guest boots, answers, goes on from a saved state, gives up a NIC, gets another.

use std::time::Duration;

use tandem_lab::agent::proto::Exit;
use tandem_lab::net::{CLIENT_V4, GUEST_V4};
use tandem_lab::qemu::GuestFailure;
use tandem_lab::{HotPlug, Kernel, Lab, Mac, NicModel, Vm, test_mac};

const STANDBY: Mac = test_mac(1);
const VF: Mac = test_mac(2);
const OTHER_VF: Mac = test_mac(3);
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_guest_runs_commands_and_keeps_files() {
    let Some(lab) = Lab::for_test("commands and files") else {
        return;
    };
    let host = lab.host("a").unwrap();
    let vm = lab.small_guest().standby(STANDBY).boot(&host).unwrap();
    eprintln!("booted in {} ms", vm.booted_in().as_millis());

    let version = Kernel::from_environment().unwrap().version();
    assert!(
        vm.sh("uname -r")
            .unwrap()
            .starts_with(&format!("{version}."))
    );
    assert!(vm.find_interface(STANDBY).unwrap().is_some());
    assert_eq!(vm.find_interface(VF).unwrap(), None);
    let ports = vm.sh("cat /sys/class/virtio-ports/*/name").unwrap();
    assert!(ports.contains(tandem_lab::CHANNEL_PORT_NAME), "{ports}");

    let output = vm
        .run(&["sh", "-c", "echo out; echo err >&2; exit 3"], LIMIT)
        .unwrap();
    assert_eq!(
        (output.exit, output.text().as_str()),
        (Exit::Status(3), "out")
    );
    assert_eq!(output.error_text(), "err");
    let slow = vm.run(&["sleep", "60"], Duration::from_secs(1)).unwrap();
    assert_eq!(slow.exit, Exit::TimedOut);

    let data: Vec<u8> = (0..700_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    vm.write_file("/tmp/data", &data, false).unwrap();
    assert_eq!(vm.read_file("/tmp/data").unwrap(), data);

    let program = vm
        .spawn(
            &["sh", "-c", "echo started; exec sleep 600"],
            &[],
            "/tmp/log",
        )
        .unwrap();
    vm.wait_sh("grep -q started /tmp/log", LIMIT).unwrap();
    assert_eq!(vm.wait(program, Duration::from_millis(1)).unwrap(), None);
    vm.signal(program, 9).unwrap();
    assert_eq!(vm.wait(program, LIMIT).unwrap(), Some(Exit::Signal(9)));
}

/// What a state would make two guests share is not shared, and all the rest is as after a boot.
#[test]
fn a_guest_from_a_saved_state_is_one_of_its_own() {
    let Some(lab) = Lab::for_test("saved state") else {
        return;
    };
    let host = lab.host("a").unwrap();
    lab.client().unwrap();
    let boot = || {
        let guest = lab.small_guest().standby(STANDBY).vf(NicModel::Igb, VF);
        guest.text("/tmp/own", "text").boot(&host).unwrap()
    };
    let first = boot();
    let random = |vm: &Vm| vm.sh("od -An -tx1 -N16 /dev/urandom").unwrap();
    let of_first = random(&first);
    drop(first);

    // An earlier run may have left the state: then the first one did not boot either.
    let mut vm = boot();
    assert!(vm.is_from_saved_state());
    eprintln!("came up in {} ms", vm.booted_in().as_millis());
    assert_ne!(
        random(&vm),
        of_first,
        "two guests have the same random numbers"
    );
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let told: u64 = vm.sh("date +%s").unwrap().parse().unwrap();
    assert!(now.abs_diff(told) <= 60, "{told}, not {now}");
    assert_eq!(vm.sh("cat /tmp/own").unwrap(), "text");

    let standby = vm.wait_interface(STANDBY, LIMIT).unwrap();
    vm.sh(&format!(
        "ip link set {standby} up && ip address add {GUEST_V4}/24 dev {standby} && ping -c 1 -W 10 {CLIENT_V4}"
    ))
    .unwrap();
    vm.unplug_vf().unwrap();
    assert_eq!(vm.find_interface(VF).unwrap(), None);
    vm.plug_vf(NicModel::Igb, OTHER_VF).unwrap();
    vm.wait_interface(OTHER_VF, LIMIT).unwrap();
    vm.check().unwrap();
}

#[test]
fn native_hot_plug_works_too() {
    let Some(lab) = Lab::for_test("native hot-plug") else {
        return;
    };
    let host = lab.host("a").unwrap();
    let mut vm = lab
        .small_guest()
        .hot_plug(HotPlug::Native)
        .vf(NicModel::E1000e, VF)
        .boot(&host)
        .unwrap();
    vm.wait_interface(VF, LIMIT).unwrap();
    let took = vm.unplug_vf().unwrap();
    // The guest's kernel lets 5 s pass after the button (drivers/pci/hotplug/pciehp_ctrl.c, 6.12).
    assert!(took >= Duration::from_secs(4), "{took:?}");
    assert_eq!(vm.find_interface(VF).unwrap(), None);
    vm.plug_vf(NicModel::Igb, OTHER_VF).unwrap();
    vm.wait_interface(OTHER_VF, LIMIT).unwrap();
}

#[test]
fn a_kernel_panic_ends_the_test_with_the_consoles_tail() {
    let Some(lab) = Lab::for_test("kernel panic") else {
        return;
    };
    let host = lab.host("a").unwrap();
    let vm = lab.small_guest().boot(&host).unwrap();
    let error = vm.sh("echo c >/proc/sysrq-trigger; sleep 60").unwrap_err();
    let failure = error
        .downcast_ref::<GuestFailure>()
        .expect("a guest failure");
    assert!(
        matches!(failure, GuestFailure::Kernel { .. }),
        "{failure:?}"
    );
    assert!(failure.to_string().contains("sysrq"), "{failure}");
    assert!(vm.check().is_err());
}

#[test]
fn a_migration_that_fails_leaves_the_guest_where_it_was() {
    let Some(lab) = Lab::for_test("failed migration") else {
        return;
    };
    let (here, there) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    // QEMU refuses to migrate a guest that shares memory with another one as its peer.
    let shared_memory = [
        "-object",
        "memory-backend-ram,id=shared,size=1M,share=on",
        "-device",
        "ivshmem-plain,memdev=shared,bus=pcie.0,addr=0x1a",
    ]
    .map(str::to_owned);
    let mut vm = lab
        .small_guest()
        .standby(STANDBY)
        .hardware(|hardware| hardware.extra_arguments.extend(shared_memory))
        .boot(&here)
        .unwrap();
    let error = vm.migrate_to(&there).unwrap_err();
    assert!(format!("{error:#}").contains("ivshmem"), "{error:#}");
    assert_eq!(vm.host().name(), "a");
    assert_eq!(vm.sh("echo still here").unwrap(), "still here");
    let links = there.namespace().ip(&["-oneline", "link"]).unwrap();
    assert!(links.contains("br0") && !links.contains("tap"), "{links}");
}
