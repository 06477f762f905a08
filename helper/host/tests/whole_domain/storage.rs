//! Disks that libvirt would refuse to leave behind.

use std::fs;

use crate::{Bench, VF};

#[test]
fn a_disk_that_no_other_host_has_is_named() {
    let bench = Bench::new(VF);
    let disk = bench.file("disk.raw", "");
    let xml = format!(
        "<disk type='file' device='disk'><source file='{}'/><target dev='vda'/></disk></devices>",
        disk.display()
    );
    let domain = fs::read_to_string(bench.folder.path().join("domain.xml")).unwrap();
    bench.file("domain.xml", &domain.replace("</devices>", &xml));
    let said = ["vda", "disk.raw", "--copy-storage-all"];
    bench.refuses("disk-not-shared", &[], &said);
    let some = ["--copy-storage-all", "--migrate-disks"];
    bench.refuses(
        "disk-not-shared",
        &[&some[..], &["vdb,vdc"]].concat(),
        &said,
    );
    let named = [&some[..], &["vdb,vda"]].concat();
    for options in [&["--unsafe"][..], &["--copy-storage-all"], &named] {
        let output = bench.run(&["check"], options);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    // A CD in it stays where it is.
    let read_only = xml.replace("<target", "<readonly/><target");
    bench.file("domain.xml", &domain.replace("</devices>", &read_only));
    assert_eq!(bench.run(&["check"], &[]).status.code(), Some(0));
    bench.changed_nothing();
}

/// So it is where the disk is a volume of a pool, whose file only libvirt knows.
#[test]
fn a_volume_that_no_other_host_has_is_named() {
    let bench = Bench::new(VF);
    bench.file("disk.raw", "");
    let domain = fs::read_to_string(bench.folder.path().join("domain.xml")).unwrap();
    let with = |pool: &str| {
        let xml = format!(
            "<disk type='volume' device='disk'><source pool='{pool}' volume='a disk'/><target dev='vda'/></disk>\
             </devices>"
        );
        bench.file("domain.xml", &domain.replace("</devices>", &xml));
    };
    with("images");
    let said = ["vda", "disk.raw", "--copy-storage-all"];
    bench.refuses("disk-not-shared", &[], &said);
    for options in [&["--unsafe"][..], &["--copy-storage-all"]] {
        let output = bench.run(&["check"], options);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    // libvirt has no such rule for block devices, and knows best of what it does not tell.
    for pool in ["blocks", "unheard-of"] {
        with(pool);
        let output = bench.run(&["check"], &[]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    bench.changed_nothing();
}
