//! What the program prints for other programs when nothing is begun.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// Between fork and exec a child of one test has what the other holds, its lock too.
static ONE_TEST_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A QEMU that is not there, and a state folder of the test's own.
fn run(folder: &Path, words: &[&str]) -> Output {
    let socket = folder.join("qmp.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-host"));
    command.args(words).arg("-c");
    command.arg(format!("qmp:{}", socket.display()));
    command.arg("--state-dir").arg(folder.join("state"));
    command.arg("--records-dir").arg(folder.join("records"));
    command.output().expect("it runs")
}

fn expect(output: &Output, code: i32, cause: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["verdict"], "refused", "{report:#}");
    assert_eq!(report["looked"], false, "{report:#}");
    assert_eq!(report["cause"]["code"], cause, "{report:#}");
    assert_eq!(report["recovery-needed"], false, "{report:#}");
}

#[test]
fn what_is_not_begun_is_told_as_json() {
    let _alone = ONE_TEST_AT_A_TIME
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let there = ["migrate", "g1", "qmp:/nowhere", "--json"];
    let output = run(folder, &there);
    expect(&output, 10, "no-such-domain");
    assert!(!output.stderr.is_empty(), "people are told too");
    let no_file = [&there[..], &["--vf", "/no/such/file"]].concat();
    expect(&run(folder, &no_file), 1, "not-begun");
    let recover = ["recover", "g1", "--json"];
    expect(&run(folder, &recover), 0, "nothing-to-recover");
    let text = run(folder, &there[..3]);
    assert_eq!(text.status.code(), Some(10));
    assert!(text.stdout.is_empty(), "{text:?}");
}

#[test]
fn a_domain_that_another_process_has_is_told_as_json() {
    let _alone = ONE_TEST_AT_A_TIME
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let lock = tandem_host::execute::Lock::take(&state, "domain", "g1").unwrap();
    let output = run(folder.path(), &["recover", "g1", "--json"]);
    expect(&output, 10, "claimed");
    drop(lock);
    let output = run(folder.path(), &["recover", "g1", "--json"]);
    expect(&output, 0, "nothing-to-recover");
}
