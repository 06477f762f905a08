//! The program as it is shipped, over a `virsh` of two hosts that have state: whole evacuations, where no hypervisor is.

#![expect(clippy::unwrap_used, reason = "everything in here is part of a test")]

mod devices;
mod slow;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// The second host.
const THERE: &str = "qemu+ssh://b/system";

/// Two hosts, of which the first has the domain.
struct Hosts {
    folder: tempfile::TempDir,
}

/// How an evacuation ended.
struct Ended {
    code: Option<i32>,
    report: Value,
}

impl Hosts {
    /// A domain with that many bonds: each its standby, and a VF with the alias `ua-vf` and its number. `more` are
    /// devices besides, by their aliases.
    fn new(bonds: usize, more: &[(&str, &str)]) -> Self {
        let hosts = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for name in ["here/metadata", "here/devices"] {
            fs::create_dir_all(hosts.path(name)).unwrap();
        }
        let virsh = hosts.file("virsh", include_str!("virsh.sh"));
        fs::set_permissions(virsh, fs::Permissions::from_mode(0o755)).unwrap();
        hosts.file("here/state", "running (booted)\n");
        let mut elements = String::new();
        for number in 0..bonds {
            let (standby, vf) = (
                format!("52:54:00:00:0{number}:01"),
                format!("52:54:00:00:0{number}:02"),
            );
            elements.push_str(&format!(
                "<bond name='bond{number}'><standby mac='{standby}'/><vf alias='ua-vf{number}' mac='{vf}'/></bond>"
            ));
            let standby = format!(
                "<interface type='bridge'><mac address='{standby}'/><alias name='net{number}'/></interface>"
            );
            hosts.file(&format!("here/devices/net{number}"), &standby);
            let source = format!(
                "<interface type='hostdev'><mac address='{vf}'/><source><address type='pci' domain='0' bus='0x3b' \
                 slot='2' function='{number}'/></source><alias name='ua-vf{number}'/></interface>"
            );
            hosts.file(&format!("here/devices/ua-vf{number}"), &source);
            // An emulated one, so that none of the destination has to be there.
            let destination = format!(
                "<interface type='bridge'><mac address='{vf}'/><source bridge='b'/><alias name='ua-vf{number}'/>\
                 </interface>"
            );
            hosts.file(&format!("vf{number}.xml"), &destination);
        }
        for (alias, xml) in more {
            hosts.file(&format!("here/devices/{alias}"), xml);
        }
        let namespace = tandem_host::xml::BONDS_NAMESPACE;
        let elements = format!("<bonds xmlns='{namespace}'>{elements}</bonds>");
        hosts.file("here/metadata/bonds", &elements);
        hosts
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// What that host knows, by the names of its files; nothing if the domain is not there.
    fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// `migrate` with VFs for all bonds; `environment` is the fake's.
    fn migrate(&self, bonds: usize, options: &[&str], environment: &[(&str, &str)]) -> Ended {
        let words = [&["migrate", "g1", THERE], options].concat();
        self.run(&words, bonds, "records", environment)
    }

    /// `recover` of the domain on the second host, with VFs for that many bonds, and records in that folder.
    fn recover(&self, domain: &str, bonds: usize, records: &str, options: &[&str]) -> Ended {
        let words = [&["recover", domain, "--connect", THERE], options].concat();
        self.run(&words, bonds, records, &[])
    }

    fn run(
        &self,
        words: &[&str],
        bonds: usize,
        records: &str,
        environment: &[(&str, &str)],
    ) -> Ended {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-host"));
        command.args(words).args(["--no-agent", "--json"]);
        for number in 0..bonds {
            let file = self.path(&format!("vf{number}.xml"));
            command.arg("--vf");
            command.arg(format!("bond{number}={}", file.display()));
        }
        command.arg("--state-dir").arg(self.path("state-dir"));
        command.arg("--records-dir").arg(self.path(records));
        command.env("HERE", self.folder.path()).env("DELAY", "0");
        command.envs(environment.iter().copied());
        command.env("PATH", format!("{}:{path}", self.folder.path().display()));
        let output = command.output().expect("it runs");
        let report = serde_json::from_slice(&output.stdout);
        Ended {
            code: output.status.code(),
            report: report.unwrap_or_else(|_| panic!("{output:?}")),
        }
    }
}
