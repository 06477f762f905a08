//! The service as a service manager sees it: the real program, and what it sends to `NOTIFY_SOCKET`
//! (`sd_notify(3)`). It runs in namespaces of its own, where it can change nothing of this machine.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tandem_core::status::ProblemCode;
use tandem_guest::client::Client;
use tandem_wire::Call;
use tandem_wire::reply::StatusReport;
use tempfile::TempDir;

/// Longer than anything here takes, so that it only ends a test that hangs.
const LIMIT: Duration = Duration::from_secs(60);
const CONFIG: &str = "[[bond]]\nname = \"bond0\"\nstandby = { mac = \"52:54:00:00:00:01\" }\n\
                      vfs = [{ mac = \"52:54:00:00:00:02\" }]\n";
/// What the status says of that bond where none of its NICs is there.
const AT_REST: &str = "STATUS=bond0: no NIC for the bond is there";

/// A service, and the manager's end of its socket.
struct Supervised {
    folder: TempDir,
    manager: UnixDatagram,
    service: Child,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

impl Supervised {
    /// Starts the service; `None` where this machine allows no namespaces.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let isolated = |command: &mut Command, script: &str| {
            command.args(["--map-root-user", "--mount", "--net", "sh", "-ec", script]);
        };
        let mut probe = Command::new("unshare");
        isolated(&mut probe, "mount -t tmpfs none /run");
        if !probe.status().is_ok_and(|status| status.success()) {
            let required = std::env::var("LAB_REQUIRE").is_ok_and(|value| value == "all");
            assert!(
                !required,
                "LAB_REQUIRE=all is set, but there are no namespaces"
            );
            eprintln!("SKIPPED: no namespaces; run as root");
            return None;
        }
        fs::write(folder.path().join("tandem.toml"), CONFIG).unwrap();
        let notify = folder.path().join("notify");
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager.set_read_timeout(Some(LIMIT)).unwrap();
        let mut command = Command::new("unshare");
        isolated(
            &mut command,
            "mount -t tmpfs none /run; exec \"$0\" run --config \"$1/tandem.toml\" --socket \"$1/socket\"",
        );
        command.arg(env!("CARGO_BIN_EXE_tandem")).arg(folder.path());
        command.env("NOTIFY_SOCKET", &notify);
        command.env("WATCHDOG_USEC", "1000000");
        Some(Self {
            service: command.spawn().unwrap(),
            folder,
            manager,
        })
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("tandem.toml")
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.service);
        kill_process(pid, signal).unwrap();
    }

    /// All that is said up to this line, which has to come.
    fn heard_until(&self, last: &str) -> Vec<String> {
        let mut heard: Vec<String> = Vec::new();
        while heard.last().is_none_or(|line| line != last) {
            let mut bytes = [0; 4096];
            let count = self
                .manager
                .recv(&mut bytes)
                .unwrap_or_else(|error| panic!("no `{last}` after {heard:#?}: {error}"));
            let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
            heard.extend(text.lines().map(str::to_owned));
        }
        heard
    }

    fn problems(&self) -> Vec<ProblemCode> {
        let mut client = Client::connect(&self.folder.path().join("socket")).unwrap();
        let report: StatusReport = client.call(Call::TandemStatus, LIMIT).unwrap();
        let problems = report.status.problems.iter();
        problems.map(|problem| problem.code).collect()
    }
}

fn last_status(heard: &[String]) -> &str {
    let status = heard.iter().rfind(|line| line.starts_with("STATUS="));
    status.unwrap_or_else(|| panic!("no status among {heard:#?}"))
}

#[test]
fn the_manager_is_told_of_start_reload_life_and_end() {
    let Some(mut supervised) = Supervised::start() else {
        return;
    };
    // Ready is said once the interfaces are known, and not before.
    let heard = supervised.heard_until("READY=1");
    assert_eq!(last_status(&heard), AT_REST, "{heard:#?}");
    assert!(supervised.problems().is_empty());
    supervised.heard_until("WATCHDOG=1");

    // What is wrong stands in the status until it is mended.
    fs::write(supervised.config(), format!("{CONFIG}nonsense = 1\n")).unwrap();
    supervised.signal(Signal::HUP);
    let heard = supervised.heard_until("READY=1");
    assert!(heard.contains(&"RELOADING=1".to_owned()), "{heard:#?}");
    let clock = |line: &String| line.starts_with("MONOTONIC_USEC=");
    assert!(heard.iter().any(clock), "{heard:#?}");
    let place = format!("{}:5:1: ", supervised.config().display());
    let status = last_status(&heard);
    assert!(
        status.contains(&place) && status.contains("`nonsense`"),
        "{status}"
    );
    assert!(status.contains("bond0: "), "{status}");
    assert_eq!(supervised.problems(), [ProblemCode::ConfigurationRefused]);

    fs::write(supervised.config(), CONFIG).unwrap();
    supervised.signal(Signal::HUP);
    let heard = supervised.heard_until("READY=1");
    assert_eq!(last_status(&heard), AT_REST, "{heard:#?}");
    assert!(supervised.problems().is_empty());

    supervised.signal(Signal::TERM);
    supervised.heard_until("STOPPING=1");
    assert!(supervised.service.wait().unwrap().success());
}
