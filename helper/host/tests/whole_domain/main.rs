//! The program as it is shipped, over a `virsh` that shows a domain which can't be evacuated: that is found out
//! before anything is changed, and the device that stands in the way is named.

#![expect(clippy::unwrap_used, reason = "everything in here is part of a test")]

mod storage;
mod unmigratable;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// The destination has no domain, and one network; whatever would change something fails.
const VIRSH: &str = r#"#!/bin/sh
echo "$*" >>"$HERE/asked"
there=0
case "$2" in qemu+ssh:*) there=1 ;; esac
case "$there $*" in
0*) [ ! -e "$HERE/silent" ] || { echo "error: failed to connect to the hypervisor" >&2; exit 1; } ;;
esac
case "$there $*" in
1*' event '*|1*' qemu-monitor-event '*) sleep 100 ;;
1*) [ ! -e "$HERE/gone" ] || { echo "error: failed to connect to the hypervisor" >&2; exit 1; } ;;
esac
case "$there $*" in
1*' list --all --uuid --name') [ ! -e "$HERE/all" ] || cat "$HERE/all" ;;
*' snapshot-list '*) [ ! -e "$HERE/snapshots" ] || cat "$HERE/snapshots" ;;
1*' list --uuid') [ ! -e "$HERE/other.xml" ] || echo u9 ;;
1*' nodedev-dumpxml '*) ;;
1*' dumpxml --domain=u9') cat "$HERE/other.xml" ;;
1*' domstate '*) if [ -e "$HERE/there.xml" ]; then echo 'shut off (destroyed)'; exit; fi
    echo "error: failed to get domain 'g1'" >&2; exit 1 ;;
1*' dumpxml --domain=g1'*) cat "$HERE/there.xml" ;;
0*' domstate '*) cat "$HERE/domstate" ;;
0*' dumpxml '*) cat "$HERE/domain.xml" ;;
0*' domjobinfo '*) cat "$HERE/job" ;;
1*' net-info --network=vfs') printf 'Name:           vfs\nActive:         yes\n' ;;
1*' net-info --network=idle') printf 'Name:           idle\nActive:         no\n' ;;
1*' net-info --network=full') printf 'Name:           full\nActive:         yes\n' ;;
1*' net-dumpxml --network=full') echo "<network connections='1'><forward mode='hostdev'><address/></forward></network>" ;;
1*' net-info --network=last') printf 'Name:           last\nActive:         yes\n' ;;
1*' net-dumpxml --network=last') echo "<network connections='1'><forward mode='hostdev'><address/><address/></forward></network>" ;;
1*' net-info '*) echo "error: failed to get network 'nope'" >&2; exit 1 ;;
*' vol-path --pool=images --vol=a disk') printf '%s\n\n' "$HERE/disk.raw" ;;
*' vol-path --pool=blocks '*) printf '/dev/null\n\n' ;;
*' help migrate') cat "$HERE/help" ;;
*' event '*|*' qemu-monitor-event '*) sleep 100 ;;
*' list '*) ;;
*) echo "error: unexpected: $*" >&2; exit 1 ;;
esac
"#;

const VF: &str = "<interface type='hostdev'><mac address='52:54:00:00:00:02'/><source><address type='pci' \
                  domain='0' bus='0x3b' slot='2' function='1'/></source><alias name='ua-vf0'/></interface>";
const GPU: &str = "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='0x3b' slot='0' \
                   function='0'/></source><alias name='hostdev1'/></hostdev>";
const USB: &str =
    "<hostdev mode='subsystem' type='usb'><source/><alias name='hostdev2'/></hostdev>";
const MDEV: &str =
    "<hostdev mode='subsystem' type='mdev'><source/><alias name='hostdev3'/></hostdev>";
/// A VF that no `<vf>` means, as it has neither MAC nor alias of the bond.
const NAMELESS: &str = "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='0x3b' slot='2' \
                        function='1'/></source><alias name='hostdev0'/></hostdev>";

/// Words of commands that change something.
const CHANGES: [&str; 6] = [
    " detach-device",
    " attach-device",
    " metadata ",
    " migrate ",
    " domjobabort",
    " resume ",
];

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// A domain with these devices, and a bond whose VF has an alias and a MAC.
    fn new(devices: &str) -> Self {
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let virsh = bench.file("virsh", VIRSH);
        fs::set_permissions(virsh, fs::Permissions::from_mode(0o755)).unwrap();
        let namespace = tandem_host::xml::BONDS_NAMESPACE;
        let xml = format!(
            "<domain><name>g1</name><uuid>u</uuid><metadata><bonds xmlns='{namespace}'><bond name='bond0'>\
             <standby mac='52:54:00:00:00:01'/><vf alias='ua-vf0' mac='52:54:00:00:00:02'/></bond></bonds>\
             </metadata><devices><interface type='bridge'><mac address='52:54:00:00:00:01'/>\
             <alias name='net0'/></interface>{devices}</devices></domain>"
        );
        bench.file("domain.xml", &xml);
        bench.file("job", "Job type: 0\n");
        bench.file("domstate", "running (booted)\n");
        bench
    }

    /// Its XML has a second bond.
    fn with_another_bond(self) -> Self {
        let xml = fs::read_to_string(self.folder.path().join("domain.xml")).unwrap();
        let bond = "<bond name='bond1'><standby mac='52:54:00:00:01:01'/><vf alias='ua-vf1'/></bond></bonds>";
        self.file("domain.xml", &xml.replace("</bonds>", bond));
        self
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, words: &[&str], more: &[&str]) -> Output {
        self.plainly(words, &[&["--json"], more].concat())
    }

    /// Without `--json`.
    fn plainly(&self, words: &[&str], more: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        let here = self.folder.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-host"));
        command.args(words).args(["g1", "qemu+ssh://b/system"]);
        command.args(["--no-agent", "--yes-degraded"]);
        command.arg("--state-dir").arg(here.join("state"));
        command.arg("--records-dir").arg(here.join("records"));
        // The last of them may stand after a `--`.
        command.args(more);
        command.env("HERE", here);
        command.env("PATH", format!("{}:{path}", here.display()));
        command.output().expect("it runs")
    }

    /// Each way to ask refuses for this reason, and has changed nothing.
    fn refuses(&self, code: &str, more: &[&str], said: &[&str]) {
        for words in [&["check"][..], &["migrate", "--dry-run"], &["migrate"]] {
            let output = self.run(words, more);
            let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(output.status.code(), Some(10), "{output:?}");
            assert_eq!(report["verdict"], "refused", "{report:#}");
            assert_eq!(report["cause"]["code"], code, "{report:#}");
            let message = report["cause"]["message"].as_str().unwrap();
            for word in said {
                assert!(message.contains(word), "{word} is missing: {message}");
            }
            self.changed_nothing();
        }
    }

    fn changed_nothing(&self) {
        let asked = fs::read_to_string(self.folder.path().join("asked")).unwrap();
        let changes = CHANGES.iter().find(|change| asked.contains(**change));
        assert_eq!(changes, None, "{asked}");
    }
}

#[test]
fn what_would_stay_attached_is_named() {
    let bench = Bench::new(&[VF, GPU, MDEV].concat());
    let said = ["hostdev1", "0000:3b:00.0", "hostdev3", "type='mdev'"];
    bench.refuses("device-stays", &[], &said);
    let bench = Bench::new(NAMELESS);
    bench.refuses("device-stays", &[], &["hostdev0", "--source-vf hostdev0"]);
}

/// libvirt lets it pass.
#[test]
fn a_usb_device_stands_in_no_ones_way() {
    let bench = Bench::new(&[VF, USB].concat());
    let output = bench.run(&["check"], &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    bench.changed_nothing();
}

#[test]
fn a_domain_that_does_not_run_is_told_that_first() {
    let bench = Bench::new(&[VF, GPU].concat());
    bench.file("domstate", "shut off (destroyed)\n");
    bench.refuses("not-running", &[], &["g1"]);
}

#[test]
fn a_source_that_can_not_be_asked_is_a_refusal_like_a_destination() {
    let bench = Bench::new(VF);
    bench.file("silent", "");
    bench.refuses("unreachable", &[], &["the source can't be asked"]);
}

/// What stops nothing is told to people, and to programs in report and plan.
#[test]
fn a_vf_that_may_be_refused_its_bonds_mac_is_a_warning() {
    let bench = Bench::new(VF);
    let said = "whether its PF trusts it is unknown";
    for words in [&["check"][..], &["migrate", "--dry-run"]] {
        let output = bench.run(words, &[]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(said), "{told}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let warnings = report["warnings"].as_array().expect("warnings");
        let [warning] = warnings.as_slice() else {
            panic!("{report:#}")
        };
        assert!(warning.as_str().unwrap().contains(said), "{report:#}");
    }
    // One with the standby's MAC is none to warn of.
    let bench = Bench::new(&VF.replace("00:02", "00:01"));
    let output = bench.run(&["check"], &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report.get("warnings"), None, "{report:#}");
}

#[test]
fn an_option_that_this_virsh_has_not_or_that_breaks_the_order_is_refused() {
    let bench = Bench::new(VF);
    let all_well = |words: &[&str], options: &[&str]| {
        let output = bench.run(words, options);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // A virsh that does not say what it has.
    all_well(&["check"], &["--parallel"]);
    bench.file(
        "help",
        "    --live  live\n    --parallel  several\n    --disks-port <number>  port\n",
    );
    let known = ["--parallel", "--", "--disks-port", "49152"];
    let told = all_well(&["migrate", "--dry-run"], &known);
    assert!(
        told.contains("several connections, --disks-port=49152"),
        "{told}"
    );
    bench.refuses(
        "not-begun",
        &["--auto-converge"],
        &["no option --auto-converge"],
    );
    bench.refuses(
        "not-begun",
        &["--", "--parallel-x=1"],
        &["no option --parallel-x"],
    );
    let output = bench.run(&["migrate"], &["--", "--suspend"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("the guest has to run on the destination"),
        "{said}"
    );
    bench.changed_nothing();
}

#[test]
fn a_job_is_named_as_what_it_is() {
    let bench = Bench::new(VF);
    for (operation, code, said) in [
        (9, "job-under-way", "a backup of domain g1"),
        (6, "job-under-way", "a snapshot of domain g1"),
        (5, "migration-under-way", "a migration of domain g1"),
    ] {
        bench.file("job", &format!("Job type: 2\n\noperation: {operation}\n"));
        bench.refuses(code, &[], &[said]);
    }
}

#[test]
fn the_vf_that_shall_come_is_looked_into() {
    let bench = Bench::new(VF);
    let vf = |network: &str, mac: &str| {
        let text = format!(
            "<interface type='network'><mac address='{mac}'/><source network='{network}'/></interface>"
        );
        bench.file("vf.xml", &text)
    };
    let known = "52:54:00:00:00:02";
    let file = vf("vfs", "52:54:00:00:00:99");
    let more = ["--vf", file.to_str().unwrap()];
    bench.refuses("unknown-vf", &more, &["52:54:00:00:00:99", "bond0"]);
    for (network, said) in [
        ("nope", "virsh net-define"),
        ("idle", "virsh net-start idle"),
        ("full", "0 of its 1 devices are free"),
    ] {
        vf(network, known);
        for words in [&["check"][..], &["migrate", "--dry-run"]] {
            let output = bench.run(words, &more);
            let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(output.status.code(), Some(10), "{output:?}");
            assert_eq!(report["cause"]["code"], "vf-taken", "{report:#}");
            let message = report["cause"]["message"].as_str().unwrap();
            assert!(
                message.contains(network) && message.contains(said),
                "{message}"
            );
        }
    }
    vf("vfs", known);
    let output = bench.run(&["check"], &more);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(report["verdict"], "ready", "{report:#}");
    assert_eq!(report["vf-attached"], true, "{report:#}");
    let plan = bench.run(&["migrate", "--dry-run"], &more);
    assert_eq!(plan.status.code(), Some(0), "{plan:?}");
    let plan: Value = serde_json::from_slice(&plan.stdout).expect("one JSON object");
    assert_eq!(plan["steps"].as_array().unwrap().len(), 9, "{plan:#}");
    bench.changed_nothing();
}

#[test]
fn two_bonds_need_two_vfs_of_a_pool() {
    let second = VF.replace("00:02", "00:03").replace("ua-vf0", "ua-vf1");
    let second = second.replace("function='1'", "function='2'");
    let bench = Bench::new(&format!("{VF}{second}")).with_another_bond();
    let vf = |name: &str, mac: &str| {
        let text = format!(
            "<interface type='network'><mac address='{mac}'/><source network='last'/></interface>"
        );
        let file = bench.file(name, &text);
        format!("bond{}={}", &name[..1], file.display())
    };
    let vfs = [
        vf("0.xml", "52:54:00:00:00:02"),
        vf("1.xml", "52:54:00:00:00:03"),
    ];
    let more = ["--vf", &vfs[0], "--vf", &vfs[1]];
    let output = bench.run(&["check"], &more);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(10), "{output:?}");
    assert_eq!(report["cause"]["code"], "vf-taken", "{report:#}");
    let message = report["cause"]["message"].as_str().unwrap();
    assert!(
        message.contains("1 of its 2 devices are free, and 2 are wanted"),
        "{message}"
    );
    bench.changed_nothing();
}

/// Hosts of one make have the same functions, so that one bond's VF may come from where another's left.
#[test]
fn a_vf_may_come_from_the_function_that_another_one_leaves() {
    let at = |function: u8, device: u8| {
        let text = VF.replace("function='1'", &format!("function='{function}'"));
        let text = text.replace("ua-vf0", &format!("ua-vf{device}"));
        text.replace("00:02", &format!("00:0{}", 2 + device))
    };
    let bench = Bench::new(&format!("{}{}", at(1, 0), at(2, 1))).with_another_bond();
    let files = [
        bench.file("0.xml", &at(2, 0)),
        bench.file("1.xml", &at(1, 1)),
    ];
    let vfs = [
        format!("bond0={}", files[0].display()),
        format!("bond1={}", files[1].display()),
    ];
    let more = ["--vf", &vfs[0], "--vf", &vfs[1]];
    let output = bench.run(&["check"], &more);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["verdict"], "ready", "{report:#}");
    bench.changed_nothing();
}

/// Who mends them one after the other would be told of the next one each time.
#[test]
fn all_that_stands_in_the_way_is_told_at_once() {
    let bench = Bench::new(&[VF, GPU].concat());
    bench.file("job", "Job type: 2\n\noperation: 9\n");
    let disk = bench.file("disk.raw", "");
    let disk = format!(
        "<disk type='file' device='disk'><source file='{}'/><target dev='vda'/></disk></devices>",
        disk.display()
    );
    let domain = fs::read_to_string(bench.folder.path().join("domain.xml")).unwrap();
    bench.file("domain.xml", &domain.replace("</devices>", &disk));
    bench.file("help", "    --live  live\n");
    let vf = "<interface type='network'><mac address='52:54:00:00:00:99'/><source network='nope'/></interface>";
    let vf = bench.file("vf.xml", vf);
    let bare = bench.file("bare.xml", "<domain><name>g1</name></domain>");
    let more = [
        "--vf",
        vf.to_str().unwrap(),
        "--xml",
        bare.to_str().unwrap(),
        "--parallel",
    ];
    for words in [&["check"][..], &["migrate", "--dry-run"], &["migrate"]] {
        let output = bench.run(words, &more);
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(output.status.code(), Some(10), "{output:?}");
        let more = report["more-causes"].as_array().expect("more causes");
        let codes = std::iter::once(&report["cause"]).chain(more);
        let codes: Vec<&str> = codes.filter_map(|one| one["code"].as_str()).collect();
        let all = [
            "device-stays",
            "disk-not-shared",
            "bonds-missing",
            "not-begun",
            "job-under-way",
            "unknown-vf",
            "vf-taken",
        ];
        assert_eq!(codes, all, "{report:#}");
        bench.changed_nothing();
    }
    // A host that is silent hides nothing of the other.
    bench.file("gone", "");
    let output = bench.run(&["check"], &more);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let more = report["more-causes"].as_array().expect("more causes");
    assert!(
        more.iter().any(|one| one["code"] == "unreachable"),
        "{report:#}"
    );
    assert_eq!(report["cause"]["code"], "device-stays", "{report:#}");
    // People are told all of it too.
    let output = bench.plainly(&["check"], &more_words(&vf));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.matches("\n  why ").count() > 3, "{said}");
}

fn more_words(vf: &std::path::Path) -> [&str; 2] {
    ["--vf", vf.to_str().unwrap()]
}

/// Another domain there has the function.
#[test]
fn a_vf_in_use_there_is_named_with_who_has_it() {
    let bench = Bench::new(VF);
    let there = "<domain><name>g9</name><uuid>u9</uuid><devices><hostdev mode='subsystem' type='pci'><source><address \
                 domain='0' bus='4' slot='2' function='1'/></source><alias name='hostdev0'/></hostdev></devices></domain>";
    bench.file("other.xml", there);
    let vf = "<interface type='hostdev'><mac address='52:54:00:00:00:02'/><source><address type='pci' domain='0' \
              bus='4' slot='2' function='1'/></source><alias name='ua-vf0'/></interface>";
    let vf = bench.file("vf.xml", vf);
    let output = bench.run(&["check"], &more_words(&vf));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(10), "{output:?}");
    assert_eq!(report["cause"]["code"], "vf-taken", "{report:#}");
    let message = report["cause"]["message"].as_str().unwrap();
    assert!(message.contains("domain g9 has it"), "{message}");
    bench.changed_nothing();
}

#[test]
fn all_devices_go_unless_one_bond_is_chosen() {
    let second = VF.replace("ua-vf0", "ua-vf1").replace("00:02'", "01:02'");
    let second = second.replace("function='1'", "function='2'");
    let gpu = GPU.replace("hostdev1", "ua-gpu");
    let bench = Bench::new(&[VF, &second, &gpu].concat()).with_another_bond();
    bench.refuses("device-stays", &[], &["ua-gpu", "--detach ua-gpu"]);
    let one = ["--bond", "bond0", "--detach", "ua-gpu"];
    bench.refuses("device-stays", &one, &["ua-vf1"]);
    let all = ["--detach", "ua-gpu"];
    let output = bench.run(&["check"], &all);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let devices = report["devices"].as_array().unwrap();
    let names: Vec<&str> = devices
        .iter()
        .filter_map(|one| one["device"].as_str())
        .collect();
    let expected = [
        "PCI function 0000:3b:02.1 of bond0",
        "PCI function 0000:3b:02.2 of bond1",
        "PCI function 0000:3b:00.0",
    ];
    assert_eq!(names, expected, "{report:#}");
    assert!(
        devices.iter().all(|one| one["attached"] == true),
        "{report:#}"
    );
    let plan = bench.run(&["migrate", "--dry-run"], &all);
    let plan: Value = serde_json::from_slice(&plan.stdout).expect("one JSON object");
    assert_eq!(
        plan["spec"]["devices"].as_array().unwrap().len(),
        3,
        "{plan:#}"
    );
    bench.changed_nothing();
}
