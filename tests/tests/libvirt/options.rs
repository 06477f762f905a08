//! Options of `virsh migrate`: a disk that the hosts don't share, another name there, one option after `--`, and post-copy;
//! and all that stands in the way told at once.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Result, ensure};
use serde_json::json;
use tandem_core::status::BondState;
use tandem_lab::libvirt::{DISK_FILE, DomainSpec, LibvirtGuest, LibvirtHost, file};
use tandem_lab::{Lab, test_mac};

use crate::{DOMAIN, expect};

/// The domain's name after the first move.
const MOVED: &str = "g1-moved";
/// The disk's length, in bytes.
const DISK_BYTES: usize = 4 << 20;

/// What a host's libvirt tells of the states of its domains, for as long as this lives.
struct Listener {
    virsh: Child,
    told: PathBuf,
}

impl Listener {
    fn at(lab: &Lab, host: &LibvirtHost) -> Result<Self> {
        let told = lab.folder().join("lifecycle-events");
        let virsh = Command::new("virsh")
            .args([
                "-q",
                "-c",
                &host.uri(),
                "event",
                "--event=lifecycle",
                "--loop",
            ])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(File::create(&told)?)
            .spawn()?;
        Ok(Self { virsh, told })
    }

    fn told(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.told)?)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.virsh.kill();
        let _ = self.virsh.wait();
    }
}

/// The disk comes along to `b`, where the domain has another name; on the way back the guest runs on `a` before its memory has come.
pub(crate) fn copy_and_switch(lab: &Lab) -> Result<()> {
    let (a, b) = LibvirtHost::pair(lab)?;
    let content: Vec<u8> = (0..DISK_BYTES).map(|at| (at / 512 % 251) as u8).collect();
    std::fs::write(a.folder().join(DISK_FILE), &content)?;
    // Who copies a disk has one there of the same length.
    std::fs::write(b.folder().join(DISK_FILE), vec![0; DISK_BYTES])?;
    let spec = DomainSpec {
        has_disk: true,
        ..DomainSpec::new(DOMAIN)
    };
    let guest = LibvirtGuest::boot(lab, &a, spec)?;
    guest.configure(&a)?;
    guest.await_state(BondState::Accelerated)?;
    let (first, second) = (guest.spec().vf, test_mac(3));
    let done = json!({"verdict": "done", "runs-on": "destination", "vf-attached": true,
        "guest": "uses-vf", "recovery-needed": false, "left": []});
    let refused = guest.migrate(&a, &b, second, &["--", "--suspend"])?;
    ensure!(
        refused.code == Some(1) && refused.stderr.contains("--suspend is not passed on"),
        "{refused:?}"
    );
    let copy = [
        "--copy-storage-all",
        "--dname",
        MOVED,
        "--",
        "--abort-on-error",
    ];
    expect(&guest.migrate(&a, &b, second, &copy)?, 0, &done)?;
    ensure!(guest.name() == MOVED, "it has its old name");
    guest.check(&b, &a, Some(second))?;
    let copied = std::fs::read(b.folder().join(DISK_FILE))?;
    ensure!(copied == content, "the disk's content did not come along");

    all_is_told_at_once(lab, &a, &b, &guest)?;

    // What the disk has there is the same by now.
    let switch = [
        "--unsafe",
        "--postcopy",
        "--timeout",
        "1",
        "--timeout-postcopy",
        "--bandwidth",
        "20",
        "--postcopy-bandwidth",
        "200",
    ];
    let listener = Listener::at(lab, &b)?;
    expect(&guest.migrate(&b, &a, first, &switch)?, 0, &done)?;
    guest.check(&a, &b, Some(first))?;
    let told = listener.told()?;
    ensure!(
        told.contains("Suspended Post-copy"),
        "it did not switch to post-copy: {told}"
    );
    Ok(())
}

/// A backup that waits for its reader, a disk of this host alone, and a VF that the guest does not know.
fn all_is_told_at_once(
    lab: &Lab,
    there: &LibvirtHost,
    here: &LibvirtHost,
    guest: &LibvirtGuest<'_>,
) -> Result<()> {
    let folder = here.folder().display();
    let backup = format!(
        "<domainbackup mode='pull'><server transport='unix' socket='{folder}/nbd'/><disks><disk name='vda' \
         backup='yes' type='file'><scratch file='{folder}/scratch.qcow2'/></disk></disks></domainbackup>"
    );
    let backup = file(lab.folder(), "backup.xml", &backup)?;
    here.virsh(&["backup-begin", MOVED, &backup])?;
    let foreign = guest.vf_file("ua-foreign", test_mac(99))?;
    let refused = json!({"verdict": "refused", "runs-on": "source", "vf-attached": true,
        "recovery-needed": false, "left": []});
    for command in ["check", "migrate"] {
        let arguments = guest.arguments(command, here, there, std::slice::from_ref(&foreign))?;
        let report = expect(&guest.evacuate(here, there, &arguments)?, 10, &refused)?;
        let more = report["more-causes"].as_array();
        let causes = std::iter::once(&report["cause"]).chain(more.into_iter().flatten());
        let codes: Vec<&str> = causes.filter_map(|one| one["code"].as_str()).collect();
        let all = ["disk-not-shared", "job-under-way", "unknown-vf"];
        ensure!(codes == all, "{command}: {report:#}");
    }
    here.virsh(&["domjobabort", MOVED])?;
    guest.has_no_record(here)
}
