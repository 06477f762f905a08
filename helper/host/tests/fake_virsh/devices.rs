//! Domains with more than one pass-through device.

use crate::Hosts;

const GPU: &str = "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='0x3b' slot='0' function='0'/>\
                   </source><alias name='hostdev0'/></hostdev>";
/// Another one of the destination.
const GPU_THERE: &str = "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='4' slot='0' \
                         function='0'/></source><alias name='ua-gpu'/></hostdev>";

/// As it stands in a record.
const LACKING: &str = "lacking&quot;:1";

#[test]
fn of_three_bonds_one_that_gets_no_vf_is_named_and_the_others_have_theirs() {
    let hosts = Hosts::new(3, &[]);
    let ended = hosts.migrate(3, &["--plug-timeout", "1"], &[("NEVER", "ua-vf1")]);
    assert_eq!(ended.code, Some(12), "{:#}", ended.report);
    let report = &ended.report;
    assert_eq!(report["verdict"], "degraded", "{report:#}");
    assert_eq!(report["runs-on"], "destination", "{report:#}");
    assert_eq!(report["cause"]["code"], "plug-failed", "{report:#}");
    let said = report["cause"]["message"].as_str().unwrap();
    assert!(
        said.contains("of bond1") && said.contains("not viable"),
        "{said}"
    );
    assert!(
        !said.contains("of bond0") && !said.contains("of bond2"),
        "{said}"
    );
    let attached: Vec<_> = report["devices"].as_array().unwrap().iter().collect();
    let attached: Vec<_> = attached.iter().map(|one| one["attached"] == true).collect();
    assert_eq!(attached, [true, false, true], "{report:#}");
    let there = ["net0", "net1", "net2", "ua-vf0", "ua-vf2"];
    assert_eq!(hosts.names("there/devices"), there);
    // The record says what is missing, and nobody drives it.
    assert_eq!(hosts.names("there/metadata").len(), 2);
}

#[test]
fn a_gpu_is_let_go_and_another_one_is_given_back() {
    let hosts = Hosts::new(2, &[("hostdev0", GPU)]);
    let gpu = hosts.file("gpu.xml", GPU_THERE);
    // Without a word of it nothing is begun.
    let ended = hosts.migrate(2, &[], &[]);
    assert_eq!(ended.code, Some(10), "{:#}", ended.report);
    assert_eq!(ended.report["cause"]["code"], "device-stays");
    assert_eq!(hosts.names("here/devices").len(), 5);
    let device = format!("hostdev0={}", gpu.display());
    let ended = hosts.migrate(2, &["--device", &device], &[]);
    assert_eq!(ended.code, Some(0), "{:#}", ended.report);
    let there = ["net0", "net1", "ua-gpu", "ua-vf0", "ua-vf1"];
    assert_eq!(hosts.names("there/devices"), there);
    assert_eq!(hosts.names("there/metadata"), ["bonds"]);
    assert_eq!(ended.report["devices"].as_array().unwrap().len(), 3);
}

/// From the machine that has the record, and from one that has none: there each device is named.
#[test]
fn a_recovery_gives_back_what_was_let_go() {
    for records in ["records", "records-of-another-machine"] {
        let hosts = Hosts::new(2, &[("hostdev0", GPU)]);
        let gpu = hosts.file("gpu.xml", GPU_THERE);
        let device = format!("hostdev0={}", gpu.display());
        let options = ["--device", &device, "--plug-timeout", "1"];
        let ended = hosts.migrate(2, &options, &[("NEVER", "ua-gpu")]);
        assert_eq!(ended.code, Some(12), "{:#}", ended.report);
        assert_eq!(hosts.names("there/devices").len(), 4);
        // Whoever counts devices that are missing finds it with the domain.
        let metadata = hosts.names("there/metadata").into_iter();
        let metadata = metadata.map(|name| hosts.lines(&format!("there/metadata/{name}")).concat());
        let told = metadata.filter(|text| text.contains(LACKING)).count();
        assert_eq!(told, 1, "{records}");
        if records != "records" {
            let ended = hosts.recover("g1", 2, records, &[]);
            assert_eq!(ended.code, Some(10), "{:#}", ended.report);
            let said = ended.report["cause"]["message"].as_str().unwrap();
            assert!(said.contains("--device ALIAS=FILE"), "{said}");
        }
        // Another one than was meant to come.
        hosts.file("gpu.xml", &GPU_THERE.replace("bus='4'", "bus='5'"));
        let ended = hosts.recover("g1", 2, records, &["--device", &device]);
        assert_eq!(ended.code, Some(0), "{:#}", ended.report);
        let there = ["net0", "net1", "ua-gpu", "ua-vf0", "ua-vf1"];
        assert_eq!(hosts.names("there/devices"), there);
        let plugged = std::fs::read_to_string(hosts.path("there/devices/ua-gpu")).unwrap();
        assert!(plugged.contains("bus='5'"), "{plugged}");
        assert_eq!(hosts.names("there/metadata"), ["bonds"]);
    }
}

/// It is looked for, given its devices, and recovered under the name that it has where it is.
#[test]
fn a_domain_gets_another_name_on_the_way() {
    let hosts = Hosts::new(1, &[]);
    let ended = hosts.migrate(1, &["--dname", "g2"], &[]);
    assert_eq!(ended.code, Some(0), "{:#}", ended.report);
    assert_eq!(hosts.names("there/devices"), ["net0", "ua-vf0"]);
    assert_eq!(hosts.names("there/metadata"), ["bonds"]);
    assert_eq!(hosts.lines("there/name"), ["g2"]);
    for (name, records) in [
        ("g2", "records"),
        ("g1", "records"),
        ("g2", "records-of-another-machine"),
    ] {
        let hosts = Hosts::new(1, &[]);
        let options = ["--dname", "g2", "--plug-timeout", "1"];
        let ended = hosts.migrate(1, &options, &[("NEVER", "ua-vf0")]);
        assert_eq!(ended.code, Some(12), "{:#}", ended.report);
        assert_eq!(hosts.names("there/metadata").len(), 2);
        let ended = hosts.recover(name, 1, records, &[]);
        assert_eq!(ended.code, Some(0), "{name} {records}: {:#}", ended.report);
        assert_eq!(hosts.names("there/devices"), ["net0", "ua-vf0"]);
        assert_eq!(hosts.names("there/metadata"), ["bonds"]);
        assert_eq!(
            hosts.names("records").len(),
            usize::from(records != "records")
        );
    }
}

/// A virsh that can't do its work is no guest that does not let go.
#[test]
fn a_virsh_that_cannot_read_the_device_is_named() {
    let hosts = Hosts::new(1, &[]);
    let ended = hosts.migrate(1, &["--unplug-timeout", "5"], &[("NO_STDIN", "1")]);
    assert_eq!(ended.code, Some(11), "{:#}", ended.report);
    let cause = &ended.report["cause"];
    assert_eq!(cause["code"], "unplug-failed", "{:#}", ended.report);
    let said = cause["message"].as_str().unwrap();
    assert!(
        said.contains("/dev/stdin") && !said.contains("driver"),
        "{said}"
    );
    assert_eq!(hosts.names("here/devices"), ["net0", "ua-vf0"]);
    assert_eq!(hosts.names("here/metadata"), ["bonds"]);
}

/// Each bond has a standby of its own, and frames of several taps are not carried: whoever looks before is told so, and whoever
/// migrates.
#[test]
fn two_standbys_are_moved_and_the_report_says_why_nothing_is_carried() {
    let reason = "the domain has 2 taps on qemu:///system (vnet0, vnet1), and the frames of one alone can be carried";
    let taps = [("TAPS", "vnet0 vnet1")];
    let hosts = Hosts::new(2, &[]);
    let told = hosts.migrate(2, &["--dry-run"], &taps);
    assert_eq!(told.code, Some(0), "{:#}", told.report);
    let steps = told.report["steps"].as_array().unwrap();
    let migrate = steps.iter().find(|step| step["phase"] == "migrate");
    let does = migrate.unwrap()["does"].as_str().unwrap();
    assert!(
        does.ends_with(&format!("frames are not carried: {reason}")),
        "{does}"
    );
    let ended = hosts.migrate(2, &[], &taps);
    assert_eq!(ended.code, Some(0), "{:#}", ended.report);
    let carry = &ended.report["carry"];
    assert_eq!(carry["reason"], reason, "{:#}", ended.report);
    assert_eq!(carry["carried"], 0, "{:#}", ended.report);
}
