//! What libvirt or QEMU would refuse to migrate, and tell only once the VF had gone.

use std::fs;

use crate::{Bench, VF};

impl Bench {
    /// The domain with more of everything in it.
    fn also(&self, domain: &str, devices: &str) {
        let xml = fs::read_to_string(self.folder.path().join("domain.xml")).unwrap();
        let xml = xml.replace("</devices>", &format!("{devices}</devices>"));
        self.file(
            "domain.xml",
            &xml.replace("</domain>", &format!("{domain}</domain>")),
        );
    }

    fn is_well(&self, options: &[&str]) {
        let output = self.run(&["check"], options);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        self.changed_nothing();
    }
}

const VIRTIOFS: &str =
    "<filesystem type='mount'><driver type='virtiofs'/><alias name='fs0'/></filesystem>";
const NINE_PFS: &str =
    "<filesystem type='mount'><source dir='/a'/><alias name='fs1'/></filesystem>";
const SHARED_MEMORY: &str =
    "<shmem name='s'><model type='ivshmem-plain'/><alias name='shmem0'/></shmem>";
const TRANSIENT: &str = "<disk type='network' device='disk'><target dev='vdb'/><transient/></disk>";
const COPIED: &str =
    "<disk type='network' device='disk'><target dev='vdc'/><mirror type='file' job='copy'/></disk>";
const NVME: &str = "<disk type='nvme' device='disk'><source type='pci' managed='yes' namespace='1'><address \
                    domain='0' bus='1' slot='0' function='0'/></source><target dev='vdd'/></disk>";
const RENDERS: &str = "<video><model type='virtio'><acceleration accel3d='yes'/></model><alias name='video0'/></video>";
const INVTSC: &str = "<cpu mode='custom'><feature policy='require' name='invtsc'/></cpu>";
const SEV: &str = "<launchSecurity type='sev-snp'/>";

#[test]
fn each_device_that_would_not_migrate_is_named_with_what_to_do() {
    for (domain, device, code, said) in [
        (
            "",
            VIRTIOFS,
            "not-migratable",
            ["virtiofs (fs0)", "virsh detach-device-alias g1 fs0 --live"],
        ),
        (
            "",
            NINE_PFS,
            "not-migratable",
            ["9p file system (fs1)", "--migratable fs1"],
        ),
        (
            "",
            SHARED_MEMORY,
            "not-migratable",
            ["shmem0", "virsh detach-device-alias g1 shmem0 --live"],
        ),
        (
            "",
            TRANSIENT,
            "not-migratable",
            ["vdb", "virsh detach-disk g1 vdb --live"],
        ),
        (
            "",
            COPIED,
            "job-under-way",
            ["vdc", "virsh blockjob g1 vdc"],
        ),
        ("", NVME, "disk-not-shared", ["vdd", "NVMe drive"]),
        ("", RENDERS, "not-migratable", ["video0", "accel3d='yes'"]),
        (
            INVTSC,
            "",
            "not-migratable",
            ["invtsc", "<timer name='tsc' frequency='HZ'/>"],
        ),
        (SEV, "", "not-migratable", ["encrypted", "SEV"]),
    ] {
        let bench = Bench::new(VF);
        bench.also(domain, device);
        bench.refuses(code, &[], &said);
    }
}

#[test]
fn what_the_operator_knows_better_or_copies_is_no_obstacle() {
    for (device, options) in [
        (VIRTIOFS, &["--migratable", "fs0"][..]),
        (NINE_PFS, &["--migratable", "fs1"]),
        (RENDERS, &["--migratable", "video0"]),
        (NVME, &["--unsafe"]),
        (NVME, &["--copy-storage-all"]),
        (NVME, &["--copy-storage-inc", "--migrate-disks", "vda,vdd"]),
    ] {
        let bench = Bench::new(VF);
        bench.also("", device);
        bench.is_well(options);
    }
    let bench = Bench::new(VF);
    bench.also("", NVME);
    let others = ["--copy-storage-all", "--migrate-disks", "vda"];
    bench.refuses("disk-not-shared", &others, &["vdd"]);
    // Nothing helps against what libvirt never migrates.
    let bench = Bench::new(VF);
    bench.also("", SHARED_MEMORY);
    bench.refuses("not-migratable", &["--migratable", "shmem0"], &["shmem0"]);
    let bench = Bench::new(VF);
    let known = "<cpu><feature name='invtsc'/></cpu><clock><timer name='tsc' frequency='2000000000'/></clock>";
    bench.also(
        known,
        "<shmem name='s' role='master'/><vsock model='virtio'/>",
    );
    bench.is_well(&[]);
}

#[test]
fn snapshots_are_named() {
    let bench = Bench::new(VF);
    bench.file("snapshots", "before\n\nsecond\nthird\nfourth\n\n");
    let said = [
        "before, second, third and 1 more",
        "virsh snapshot-delete g1 before --metadata",
    ];
    bench.refuses("not-migratable", &[], &said);
}

/// libvirt tells domains apart by name and UUID, also those that do not run.
#[test]
fn another_domain_of_the_same_name_or_uuid_on_the_destination_is_named() {
    let bench = Bench::new(VF);
    let there = |uuid: &str| {
        let xml = format!("<domain><name>g1</name><uuid>{uuid}</uuid><devices/></domain>");
        bench.file("there.xml", &xml)
    };
    there("u-other");
    bench.refuses(
        "on-destination",
        &[],
        &["u-other", "virsh domrename g1", "--dname"],
    );
    // What was left there of this one is no other.
    fs::remove_file(there("u")).unwrap();
    there("u");
    bench.is_well(&[]);
    fs::remove_file(bench.folder.path().join("there.xml")).unwrap();
    bench.file("all", "u7 g7\nu g1-old\n");
    bench.refuses(
        "on-destination",
        &[],
        &["virsh undefine g1-old", "--dname g1-old"],
    );
    bench.file("all", "u7 g7\n");
    bench.is_well(&[]);
}
