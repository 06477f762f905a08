//! The program as it is shipped, over a `virsh` that shows a domain with a record that somebody else wrote.

#![expect(clippy::unwrap_used, reason = "everything in here is part of a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tandem_host::execute::Records;

/// As libvirt does, it runs the program that a URI of the transport `ext` names.
const VIRSH: &str = r#"#!/bin/sh
echo "$*" >>"$HERE/asked"
case "$2" in
*command=*) "${2#*command=}" ;;
qemu+ssh:*) echo "error: failed to get domain 'A'" >&2; exit 1 ;;
esac
case "$*" in
*' domstate '*) echo 'running (migrated)' ;;
*' dumpxml '*) cat "$HERE/domain.xml" ;;
*' domjobinfo '*) printf 'Job type:         None\n' ;;
*' list '*|*' migrate-set'*|*' metadata '*) ;;
*) echo "error: unexpected: $*" >&2; exit 1 ;;
esac
"#;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// A domain `A` with a record that may name the program `p` in that folder.
    fn new(record: impl FnOnce(&Path) -> Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let record = record(&folder.path().join("p"));
        let bench = Self { folder };
        bench.program("virsh", VIRSH);
        let marker = bench.path("ran");
        bench.program(
            "p",
            &format!("#!/bin/sh\necho ran >>{}\n", marker.display()),
        );
        let record = record
            .to_string()
            .replace('&', "&amp;")
            .replace('<', "&lt;");
        let namespace = tandem_host::xml::PROGRESS_NAMESPACE;
        let xml = format!(
            "<domain><name>A</name><uuid>u</uuid><metadata><t:progress xmlns:t='{namespace}'>{record}\
             </t:progress></metadata><devices/></domain>"
        );
        fs::write(bench.path("domain.xml"), xml).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, records: &Path, words: &[&str]) -> Output {
        self.command(records, words).output().expect("it runs")
    }

    fn command(&self, records: &Path, words: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-host"));
        command.args(words).args(["--json", "--state-dir"]);
        command.arg(self.path("state"));
        command.arg("--records-dir").arg(records);
        command.env("HERE", self.folder.path());
        command.env("PATH", format!("{}:{path}", self.folder.path().display()));
        command
    }

    fn without_record(&self) {
        let xml = fs::read_to_string(self.path("domain.xml")).unwrap();
        let (before, rest) = xml.split_once("<metadata>").unwrap();
        let (_, after) = rest.split_once("</metadata>").unwrap();
        fs::write(self.path("domain.xml"), format!("{before}{after}")).unwrap();
    }

    fn asked(&self) -> String {
        fs::read_to_string(self.path("asked")).unwrap_or_default()
    }
}

fn cause(output: &Output) -> (Option<i32>, String, String) {
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let word = |key: &str| report["cause"][key].as_str().unwrap_or_default().to_owned();
    (output.status.code(), word("code"), word("message"))
}

/// A record of today, as whoever may write the metadata of `A` would have it.
fn plain() -> Value {
    json!({"version": 2, "evacuation": "e", "domain": "A", "owner": null, "beat": 1,
        "stage": "degraded", "migration-begun": true, "home": "destination"})
}

/// The same with a host that is a command.
fn with_uri(version: u32, program: &Path) -> Value {
    let uri = format!("qemu+ext:///system?command={}", program.display());
    let spec = json!({"domain": "A", "source-uri": uri, "destination-uri": uri, "bond": null,
        "source-vf": null, "destination-vf": null, "agent": "never", "reaches-destination-agent": false,
        "configure": false, "yes-degraded": true});
    let mut record = plain();
    record["version"] = json!(version);
    record["spec"] = spec;
    record
}

#[test]
fn recover_opens_no_uri_that_stands_in_the_metadata() {
    for version in [1, 2] {
        let bench = Bench::new(|program| with_uri(version, program));
        let output = bench.run(&bench.path("records"), &["recover", "A"]);
        let (_, said, message) = cause(&output);
        assert_eq!(said, "not-begun", "{output:?}");
        assert!(!bench.path("ran").exists(), "it ran the command");
        assert!(!bench.asked().contains("command="), "{}", bench.asked());
        assert!(!message.contains("command="), "{message}");
    }
    // Without that, a record says no more than that there was an evacuation.
    let bench = Bench::new(|_| plain());
    let output = bench.run(&bench.path("records"), &["recover", "A"]);
    assert_eq!(cause(&output).1, "no-vf-named", "{output:?}");
}

/// It says that this domain was another one before, which is anybody's on either host.
#[test]
fn recover_asks_of_no_other_domain_that_stands_in_the_metadata() {
    let bench = Bench::new(|_| {
        let mut record = plain();
        record["version"] = json!(4);
        record["domain"] = json!("B");
        record["renamed"] = json!("A");
        record
    });
    let vf = bench.path("vf.xml");
    let network =
        "<interface type='network'><source network='n'/><alias name='ua-vf'/></interface>";
    fs::write(&vf, network).unwrap();
    let words = [
        "recover",
        "A",
        "--source",
        "qemu+ssh://b/system",
        "--vf",
        vf.to_str().unwrap(),
        "--no-agent",
    ];
    // What it would do, it can't: this virsh changes nothing.
    let output = bench.run(&bench.path("records"), &words);
    let asked = bench.asked();
    assert!(asked.contains("--domain=A"), "{output:?}: {asked}");
    assert!(!asked.contains("=B"), "{asked}");
}

/// With what the operator names, it goes on; the hosts are those of the command line.
#[test]
fn recover_takes_hosts_from_the_command_line_alone() {
    let bench = Bench::new(|_| plain());
    let words = [
        "recover",
        "A",
        "--source",
        "qemu+ext:///system?command=/bin/true",
    ];
    let output = bench.run(&bench.path("records"), &words);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(
        bench.asked(),
        "",
        "nothing is asked before the command line is understood"
    );
    let vf = bench.path("vf.xml");
    fs::write(
        &vf,
        "<interface type='ethernet'><script path='/tmp/p'/></interface>",
    )
    .unwrap();
    let output = bench.run(
        &bench.path("records"),
        &["recover", "A", "--vf", vf.to_str().unwrap()],
    );
    let (code, said, message) = cause(&output);
    assert_eq!((code, said.as_str()), (Some(1), "not-begun"), "{output:?}");
    assert!(message.contains("not plugged in"), "{message}");
    assert!(!bench.path("ran").exists());
}

/// This host has a record of an evacuation that left the domain elsewhere, and the domain runs here again,
/// without a mark of it: somebody else ended it.
#[test]
fn a_record_that_is_out_of_date_is_forgotten() {
    let bench = Bench::new(|_| json!({}));
    bench.without_record();
    let records = Records::open(&bench.path("records")).unwrap();
    let progress = json!({"version": 2, "evacuation": "e", "domain": "A", "owner": null, "beat": 9,
        "stage": "degraded", "migration-begun": true, "home": "destination"});
    let spec = json!({"domain": "A", "source-uri": "qemu:///system",
        "destination-uri": "qemu+ssh://b/system", "bond": null, "source-vf": null, "destination-vf": null,
        "agent": "never", "reaches-destination-agent": false, "configure": false, "yes-degraded": false});
    let record = json!({"progress": progress, "spec": spec});
    records
        .keep(&serde_json::from_value(record).unwrap())
        .unwrap();
    let output = bench.run(&bench.path("records"), &["recover", "A"]);
    let (code, said, _) = cause(&output);
    assert_eq!(
        (code, said.as_str()),
        (Some(0), "nothing-to-recover"),
        "{output:?}"
    );
    assert_eq!(records.read("A").unwrap(), None);
}

/// `migrate` and both halves of its carry are dead: nobody else has the migration end.
#[test]
fn recover_sets_back_what_a_carry_had_slowed_down() {
    let bench = Bench::new(|_| {
        let mut record = plain();
        record["stage"] = json!("migrating");
        record["version"] = json!(3);
        record
    });
    let records = Records::open(&bench.path("records")).unwrap();
    let progress = json!({"version": 3, "evacuation": "e", "domain": "A", "owner": null, "beat": 9,
        "stage": "migrating", "migration-begun": true});
    let spec = json!({"domain": "A", "source-uri": "qemu:///system",
        "destination-uri": "qemu+ssh://b/system", "devices": [], "agent": "never",
        "reaches-destination-agent": false, "configure": false, "yes-degraded": false});
    let pace = json!({"speed": 5_u64 << 30, "max-downtime-ms": 250});
    let record = json!({"progress": progress, "spec": spec, "pace": pace});
    records
        .keep(&serde_json::from_value(record).unwrap())
        .unwrap();
    // What follows takes its time with a virsh that changes nothing, and is another test's.
    let mut recovering = bench.command(&bench.path("records"), &["recover", "A"]);
    let mut recovering = recovering.spawn().expect("it runs");
    let wanted = [
        "migrate-setmaxdowntime --domain=A --downtime=250",
        "migrate-setspeed --domain=A --bandwidth=5120",
    ];
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_set = || wanted.iter().all(|wanted| bench.asked().contains(wanted));
    while !is_set() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    recovering.kill().unwrap();
    recovering.wait().unwrap();
    assert!(is_set(), "{}", bench.asked());
}

/// A full disk, say: here the folder can't even be made.
#[test]
fn migrate_begins_nothing_where_no_record_can_be_kept() {
    let bench = Bench::new(|_| json!({}));
    bench.without_record();
    let words = [
        "migrate",
        "A",
        "qemu+ssh://b/system",
        "--yes-degraded",
        "--no-agent",
    ];
    let output = bench.run(Path::new("/dev/null/records"), &words);
    let (code, said, message) = cause(&output);
    assert_eq!(
        (code, said.as_str()),
        (Some(10), "record-not-written"),
        "{output:?}"
    );
    assert!(message.contains("--records-dir"), "{message}");
    let asked = bench.asked();
    assert!(
        !asked.contains("metadata") && !asked.contains("ssh"),
        "{asked}"
    );
}
