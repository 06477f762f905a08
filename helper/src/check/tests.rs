use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;
use tandem_core::link::{Link, LinkKind};
use tandem_core::status::{Problem, ProblemCode};
use tandem_core::types::Ifindex;
use tempfile::TempDir;

use super::*;
use crate::ebpf::{Lockdown, Support};
use crate::nics::UnitState;
use crate::surroundings::Concern;
use crate::system_files::SystemFiles;

const RULES: [&str; 2] = ["10-tandem-unmanaged.rules", "60-tandem.rules"];
const DEVICE: &str = "/dev/vport1p1";

/// A system in a folder; at first without anything.
struct Fake {
    folder: TempDir,
    system: System,
}

impl Fake {
    fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let system = System {
            files: SystemFiles {
                root: folder.path().to_path_buf(),
                kernel_release: "5.15.0-test".to_string(),
            },
            unit: None,
            capabilities: CapabilitySet::empty(),
            ebpf: Support {
                btf: false,
                missing_capabilities: Vec::new(),
                lockdown: Lockdown::None,
            },
            links: Ok(Vec::new()),
            permanent: Vec::new(),
            told: Ok(Vec::new()),
        };
        Self { folder, system }
    }

    /// With all that Tandem needs.
    fn complete() -> Self {
        let mut fake = Self::empty();
        fake.system.capabilities = CapabilitySet::all();
        fake.system.ebpf.btf = true;
        fake.system.files.kernel_release = "6.12.0-test".to_string();
        let nic = |index, last| Link {
            mac: Some(format!("52:54:00:00:00:{last:02x}").parse().unwrap()),
            admin_up: true,
            carrier: true,
            ..Link::named(
                Ifindex(index),
                format!("eth{index}").parse().unwrap(),
                LinkKind::Physical,
            )
        };
        fake.system.links = Ok(vec![nic(1, 1), nic(2, 2)]);
        fake.write("/run/udev/control", "");
        for rule in RULES {
            fake.write(&format!("/usr/lib/udev/rules.d/{rule}"), "");
        }
        fake.write("/run/systemd/netif/links/1", "");
        fake.write("/usr/lib/systemd/network/01-tandem-unmanaged.network", "");
        fake.write("/run/systemd/system/a.unit", "");
        fake.write("/usr/lib/systemd/system/tandem.service", "[Unit]\n");
        let owner = std::fs::metadata(fake.folder.path()).unwrap().uid();
        fake.passwd(owner);
        fake.write(
            "/etc/systemd/system/multi-user.target.wants/tandem.service",
            "",
        );
        fake.write(
            "/sys/class/virtio-ports/vport1p1/name",
            "org.tandem.agent.0\n",
        );
        fake.write(DEVICE, "");
        fake.write(
            "/lib/modules/6.12.0-test/modules.dep",
            "kernel/drivers/net/bonding/bonding.ko.xz: \n",
        );
        fake.write(
            "/etc/tandem/tandem.toml",
            "[[bond]]\nname = \"bond0\"\nstandby = { mac = \"52:54:00:00:00:01\" }\n\
             vfs = [{ mac = \"52:54:00:00:00:02\" }]\n",
        );
        fake
    }

    /// The user `tandem`, with this number.
    fn passwd(&self, user: u32) {
        let line = format!("root:x:0:0::/:/bin/sh\ntandem:x:{user}:5::/:/bin/false\n");
        self.write("/etc/passwd", &line);
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.path(path)).unwrap();
    }

    /// A process with a file open.
    fn process(&self, pid: u32, words: &[&str], capabilities: CapabilitySet, file: Option<&str>) {
        let folder = format!("/proc/{pid}");
        let program = Path::new(words[0]).file_name().unwrap().to_str().unwrap();
        self.write(&format!("{folder}/comm"), &format!("{program}\n"));
        self.write(&format!("{folder}/cmdline"), &(words.join("\0") + "\0"));
        self.write(
            &format!("{folder}/status"),
            &format!("Name:\t{program}\nCapEff:\t{:016x}\n", capabilities.bits()),
        );
        if let Some(file) = file {
            let descriptor = self.path(&format!("{folder}/fd/7"));
            std::fs::create_dir_all(descriptor.parent().unwrap()).unwrap();
            symlink(file, descriptor).unwrap();
        }
    }

    fn report(&self) -> Report {
        check(&self.system, &self.path("/etc/tandem/tandem.toml"))
    }

    /// The level of a finding, and what is said of it. Only this one is not as it should be.
    fn only(&self, name: &str, level: Level) -> String {
        let report = self.report();
        assert_eq!(report.level, level, "{}", render(&report));
        for finding in &report.findings {
            let expected = if finding.name == name {
                level
            } else {
                Level::Ok
            };
            assert_eq!(finding.verdict.level, expected, "{finding:?}");
        }
        render(&report)
    }
}

#[test]
fn an_empty_system_lacks_everything_and_says_so() {
    let report = Fake::empty().report();
    assert_eq!(report.level, Level::Fatal);
    let fatal = ["bonding driver", "network capabilities"];
    // Without systemd nobody expects a unit; without a bond, NICs.
    let fine = [
        "service",
        "user",
        "given back",
        "NICs",
        "addressing",
        "network",
    ];
    for finding in &report.findings {
        let expected = match finding.name {
            name if fatal.contains(&name) => Level::Fatal,
            name if fine.contains(&name) => Level::Ok,
            _ => Level::Degraded,
        };
        assert_eq!(finding.verdict.level, expected, "{finding:?}");
        assert_eq!(
            finding.verdict.level == Level::Ok,
            finding.verdict.consequence.is_empty() && finding.verdict.remedy.is_empty(),
            "{finding:?}"
        );
    }
    assert!(render(&report).contains("remedy: give the VM a virtio-serial channel"));
}

#[test]
fn a_complete_system_is_ok() {
    let fake = Fake::complete();
    let text = fake.only("", Level::Ok);
    assert!(text.contains("bond0: standby eth1, VF eth2"), "{text}");
    assert!(text.contains("of this process"), "{text}");

    fake.write("/sys/class/net/bond0/ifindex", "7");
    let text = fake.only("configuration", Level::Fatal);
    let file = fake.path("/etc/tandem/tandem.toml");
    let place = format!("{}:2:1: key `name`", file.display());
    assert!(
        text.contains(&place) && text.contains("rename or remove"),
        "{text}"
    );
    fake.write("/sys/class/net/bond0/bonding/mode", "active-backup 1");
    fake.only("", Level::Ok);
}

#[test]
fn an_old_kernel_is_told_and_may_lack_the_way_to_attach_programs() {
    let mut fake = Fake::complete();
    let modules = |release: &str, more: &str| {
        fake.write(
            &format!("/lib/modules/{release}/modules.dep"),
            &format!("kernel/drivers/net/bonding/bonding.ko: \n{more}"),
        );
    };
    modules("6.1.0-test", "kernel/net/sched/cls_bpf.ko: \n");
    modules("5.15.0-test", "kernel/net/sched/cls_bpf.ko: \n");
    fake.system.files.kernel_release = "6.1.0-test".to_string();
    let text = fake.only("fast-path programs", Level::Degraded);
    assert!(
        text.contains("has no tcx, and the kernel module sch_ingress is missing"),
        "{text}"
    );
    fake.write("/sys/module/sch_ingress/refcnt", "0");
    let text = fake.only("", Level::Ok);
    assert!(text.contains("by sch_ingress and cls_bpf"), "{text}");
    fake.system.files.kernel_release = "5.15.0-test".to_string();
    let text = fake.only("kernel", Level::Degraded);
    assert!(text.contains("use Linux 6.1 or later"), "{text}");
}

#[test]
fn the_capabilities_of_the_service_count_where_it_runs() {
    let mut fake = Fake::complete();
    fake.system.capabilities = CapabilitySet::empty();
    let service = ["/usr/bin/tandem", "run"];
    let all = CapabilitySet::NET_ADMIN
        | CapabilitySet::NET_RAW
        | CapabilitySet::BPF
        | CapabilitySet::PERFMON;
    fake.process(
        40,
        &["/usr/bin/tandem", "check"],
        CapabilitySet::empty(),
        None,
    );
    fake.process(41, &service, all, Some(DEVICE));
    let text = fake.only("", Level::Ok);
    assert!(text.contains("the running service (process 41)"), "{text}");
    fake.process(41, &service, all - CapabilitySet::NET_RAW, None);
    let text = fake.only("network capabilities", Level::Degraded);
    assert!(text.contains("CAP_NET_RAW is missing"), "{text}");
    let net = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    fake.process(42, &service, net, Some("anon_inode:bpf-prog"));
    std::fs::remove_dir_all(fake.path("/proc/41")).unwrap();
    fake.only("", Level::Ok);
    std::fs::remove_dir_all(fake.path("/proc/42")).unwrap();
    fake.process(41, &service, all - CapabilitySet::BPF, None);
    let report = fake.report();
    let lacking = report
        .findings
        .iter()
        .filter(|one| one.verdict.level != Level::Ok);
    let lacking: Vec<_> = lacking.map(|one| (one.name, &one.verdict.detail)).collect();
    assert!(
        matches!(&lacking[..], [("eBPF monitor", monitor), ("fast-path programs", programs)]
            if monitor.contains("CAP_BPF") && programs.contains("CAP_BPF")),
        "{lacking:?}"
    );
}

#[test]
fn rules_that_are_missing_or_masked_are_named() {
    let fake = Fake::complete();
    fake.remove("/usr/lib/systemd/network/01-tandem-unmanaged.network");
    let text = fake.only("udev", Level::Degraded);
    assert!(
        text.contains("running, without 01-tandem-unmanaged.network"),
        "{text}"
    );
    std::fs::create_dir_all(fake.path("/etc/udev/rules.d")).unwrap();
    let mask = fake.path("/etc/udev/rules.d").join(RULES[0]);
    symlink("/dev/null", mask).unwrap();
    let text = fake.only("udev", Level::Degraded);
    assert!(
        text.contains(&format!("without {}, 01-", RULES[0])),
        "{text}"
    );
    assert!(
        text.contains("NetworkManager or systemd-networkd"),
        "{text}"
    );
}

#[test]
fn a_service_that_nothing_starts_is_told() {
    let fake = Fake::complete();
    fake.remove("/etc/systemd/system/multi-user.target.wants/tandem.service");
    let text = fake.only("service", Level::Fatal);
    assert!(
        text.contains("systemctl enable --now tandem.service"),
        "{text}"
    );
    fake.write("/run/systemd/system/tandem.service", "");
    let text = fake.only("service", Level::Fatal);
    assert!(text.contains("is masked by"), "{text}");
    fake.remove("/run/systemd/system/tandem.service");
    fake.remove("/usr/lib/systemd/system/tandem.service");
    let text = fake.only("service", Level::Fatal);
    assert!(text.contains("tandem.service is not installed"), "{text}");
}

#[test]
fn a_service_that_fails_is_told_and_one_that_was_stopped() {
    let mut fake = Fake::complete();
    let unit = |active: &str, result: &str, code: &str, status: &str| UnitState {
        active: active.to_owned(),
        result: result.to_owned(),
        code: code.to_owned(),
        status: status.to_owned(),
        ..UnitState::default()
    };
    fake.system.unit = Some(unit("active", "success", "0", "0"));
    assert!(fake.only("", Level::Ok).contains("is enabled, and runs"));
    fake.system.unit = Some(unit("failed", "core-dump", "3", "6"));
    let text = fake.only("service", Level::Fatal);
    assert!(
        text.contains("fails: core-dump, killed by signal 6"),
        "{text}"
    );
    fake.system.unit = Some(unit("inactive", "success", "0", "0"));
    let text = fake.only("service", Level::Degraded);
    assert!(text.contains("does not run"), "{text}");
}

#[test]
fn a_missing_user_and_nics_that_were_given_back_are_told() {
    let fake = Fake::complete();
    fake.write("/etc/passwd", "root:x:0:0::/:/bin/sh\n");
    let text = fake.only("user", Level::Fatal);
    assert!(text.contains("systemd-sysusers tandem.conf"), "{text}");

    let fake = Fake::complete();
    fake.write(
        crate::nics::GIVEN_BACK_PATH,
        r#"{"bond0": "the service fails: signal"}"#,
    );
    let text = fake.only("given back", Level::Fatal);
    assert!(
        text.contains("the NICs of bond0: the service fails: signal"),
        "{text}"
    );
}

#[test]
fn a_bonding_driver_that_is_forbidden_is_told() {
    let fake = Fake::complete();
    fake.write("/etc/modprobe.d/no.conf", "blacklist bonding\n");
    let text = fake.only("bonding driver", Level::Fatal);
    assert!(text.contains("no.conf says `blacklist bonding`"), "{text}");
}

#[test]
fn a_port_that_another_has_or_that_belongs_to_another_is_told() {
    let fake = Fake::complete();
    let user = std::fs::metadata(fake.path(DEVICE)).unwrap().uid();
    fake.only("", Level::Ok);
    fake.passwd(user + 1);
    let text = fake.only("host channel", Level::Degraded);
    assert!(
        text.contains("does not belong to the user `tandem`"),
        "{text}"
    );
    let agent = ["/usr/sbin/qemu-ga", "--path", DEVICE];
    fake.process(50, &agent, CapabilitySet::empty(), Some(DEVICE));
    let text = fake.only("host channel", Level::Degraded);
    assert!(text.contains("in use by qemu-ga (process 50)"), "{text}");
    fake.remove(DEVICE);
    let text = fake.only("host channel", Level::Degraded);
    assert!(text.contains("/dev/vport1p1 can't be opened"), "{text}");
}

#[test]
fn a_bond_without_its_standby_is_told_and_one_without_a_vf_is_fine() {
    let mut fake = Fake::complete();
    let mut nics = fake.system.links.clone().unwrap();
    nics.truncate(1);
    fake.system.links = Ok(nics);
    let text = fake.only("", Level::Ok);
    assert!(text.contains("standby eth1, VF absent"), "{text}");
    assert!(!text.contains("in no bond"), "{text}");
    // Whose MAC may be written wrongly.
    let mut other = complete_nics()[1].clone();
    other.mac = Some("52:54:00:00:00:09".parse().unwrap());
    other.pci = Some("0000:01:00.0".parse().unwrap());
    fake.system.links.as_mut().unwrap().push(other);
    let text = fake.only("", Level::Ok);
    assert!(
        text.contains("VF absent (in no bond: eth2 52:54:00:00:00:09)"),
        "{text}"
    );
    fake.system.links = Ok(Vec::new());
    let text = fake.only("NICs", Level::Degraded);
    assert!(text.contains("bond0: standby absent, VF absent"), "{text}");
    fake.system.links = Err("no".to_owned());
    fake.only("NICs", Level::Degraded);
}

fn complete_nics() -> Vec<Link> {
    Fake::complete().system.links.unwrap()
}

/// As right after the package's installation.
#[test]
fn what_the_service_does_when_it_starts_is_told_as_that() {
    let mut fake = Fake::complete();
    fake.system.told = Err("tandem is not running".to_owned());
    let owner = std::fs::metadata(fake.folder.path()).unwrap().uid();
    fake.passwd(owner + 1);
    let text = fake.only("", Level::Ok);
    assert!(
        text.contains("which the service takes when it starts"),
        "{text}"
    );
    assert!(text.contains("bond0: what the standby has moves to the bond"));
    fake.write(
        "/etc/systemd/network/20-lan.network",
        "[Match]\nName=eth1\n[Network]\nDHCP=yes\n",
    );
    fake.write(
        "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
        "",
    );
    fake.write("/run/udev/data/n1", "I:1\n");
    let text = fake.only("", Level::Ok);
    let configured = "bond0: systemd-networkd configures bond0 by 20-lan.network";
    assert!(text.contains(configured), "{text}");
}

#[test]
fn what_the_service_says_of_the_network_is_found() {
    let mut fake = Fake::complete();
    let concern = |code: ProblemCode| Concern {
        bond: "bond0".parse().unwrap(),
        problem: Problem {
            code,
            device: None,
            message: "what is wrong".to_owned(),
            remedy: code.remedy().to_owned(),
        },
    };
    // Of the bond itself the status tells.
    fake.system.told = Ok(vec![concern(ProblemCode::Flapping)]);
    assert!(fake.only("", Level::Ok).contains("network: no problem"));
    fake.system.told = Ok(vec![concern(ProblemCode::LeaseUnrenewed)]);
    let text = fake.only("network", Level::Degraded);
    assert!(text.contains("bond0: what is wrong"), "{text}");
    fake.system.told = Ok(vec![concern(ProblemCode::NoAddress)]);
    fake.only("network", Level::Fatal);
    fake.system.told = Err("tandem is not running".to_owned());
    assert!(fake.only("", Level::Ok).contains("tandem is not running"));
}
