//! `serve` and its service manager (`sd_notify(3)`), and what a virsh of it is given.

#![expect(clippy::unwrap_used, reason = "everything in here is part of a test")]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends with the test.
struct Serve(Child);

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A `tandem-host` that has only this virsh.
fn tandem_host(folder: &Path, virsh: &str) -> Command {
    let program = folder.join("virsh");
    std::fs::write(&program, format!("#!/bin/sh\n{virsh}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-host"));
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", folder.display()));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The next thing that the manager hears, if anything for so long.
fn heard(manager: &UnixDatagram, limit: Duration) -> Option<String> {
    manager.set_read_timeout(Some(limit)).unwrap();
    let mut bytes = [0; 256];
    let count = manager.recv(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..count]).trim().to_owned())
}

#[test]
fn the_manager_hears_that_serve_began_and_that_its_loop_turns() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let mut command = tandem_host(folder.path(), "exec sleep 600");
    command.args(["serve", "-c", "test:///default", "--serve-socket"]);
    command.arg(folder.path().join("serve.sock"));
    command.arg("--state-dir").arg(folder.path().join("state"));
    command.env("NOTIFY_SOCKET", &socket);
    command.env("WATCHDOG_USEC", "400000");
    let serve = Serve(command.spawn().unwrap());
    let long = Duration::from_secs(120);
    let first = heard(&manager, long);
    assert_eq!(first.as_deref(), Some("READY=1"));
    // Nothing happens there, and virsh does not even answer.
    for _ in 0..5 {
        let next = heard(&manager, long);
        assert_eq!(next.as_deref(), Some("WATCHDOG=1"));
    }
    let pid = i32::try_from(serve.0.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    while let Some(word) = heard(&manager, long) {
        if word == "STOPPING=1" {
            return;
        }
        assert_eq!(word, "WATCHDOG=1");
    }
    panic!("it did not say that it ends");
}

/// As by `kill -9`, after which nothing of it can clean up.
#[test]
fn a_virsh_that_listens_ends_with_its_tandem_host() {
    let folder = tempfile::tempdir().unwrap();
    let listens = "case \"$*\" in *--loop*) echo $$ > \"$HERE/new.$$\"; \
                   mv \"$HERE/new.$$\" \"$HERE/pid.$$\" ;; esac\nexec sleep 600";
    let mut command = tandem_host(folder.path(), listens);
    command.args(["serve", "-c", "test:///default", "--serve-socket"]);
    command.arg(folder.path().join("serve.sock"));
    command.arg("--state-dir").arg(folder.path().join("state"));
    command.env("HERE", folder.path());
    let serve = Serve(command.spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait = || {
        assert!(Instant::now() < deadline, "it takes too long");
        std::thread::sleep(Duration::from_millis(10));
    };
    let listeners = || -> Vec<PathBuf> {
        let files = std::fs::read_dir(folder.path()).unwrap();
        let files = files.map(|file| file.unwrap().path());
        let is_pid = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == "pid");
        files.filter(is_pid).collect()
    };
    while listeners().len() < 2 {
        wait();
    }
    // Kills it.
    drop(serve);
    for file in listeners() {
        let pid = std::fs::read_to_string(file).unwrap();
        // Where nobody collects it, its entry stays.
        let runs = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        while runs() {
            wait();
        }
    }
}

#[test]
fn what_would_change_the_output_of_virsh_does_not_reach_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tandem_host(folder.path(), "env > \"$HERE/env\"; exit 1");
    command.args([
        "status",
        "g1",
        "--ask",
        "-c",
        "test:///default",
        "--serve-socket",
    ]);
    command.arg(folder.path().join("serve.sock"));
    command.env("HERE", folder.path());
    for name in ["LIBVIRT_LOG_OUTPUTS", "LIBVIRT_DEBUG", "VIRSH_DEBUG"] {
        command.env(name, "1");
    }
    command.env("LIBVIRT_AUTH_FILE", "/a");
    assert!(!command.status().unwrap().success());
    let given = std::fs::read_to_string(folder.path().join("env")).unwrap();
    let own = given
        .lines()
        .filter(|line| line.starts_with("LIBVIRT_") || line.starts_with("VIRSH_"));
    assert_eq!(own.collect::<Vec<_>>(), ["LIBVIRT_AUTH_FILE=/a"]);
    assert!(given.lines().any(|line| line == "LC_ALL=C"), "{given}");
}
