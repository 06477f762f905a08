//! Every command that the pages show, and what runs it.

use anyhow::Result;

use crate::project;

/// Commands of the pages, and what runs them: a file of the project, and words of it that do.
struct Proof {
    /// The whole command, or its beginning if it ends with a space.
    command: &'static str,
    file: &'static str,
    words: &'static str,
}

const fn proof(command: &'static str, file: &'static str, words: &'static str) -> Proof {
    Proof {
        command,
        file,
        words,
    }
}

/// Runs the guide's installation by hand in a guest.
const NEVER_WORSE: &str = "tests/tests/never_worse/main.rs";
const RUNS_INSTALLATION: &str = "plain.install_by_hand()?";
/// Lives with the package in a guest.
const PACKAGING: &str = "tests/tests/packaging/life.rs";
const SUITES: &str = "xtask/src/test/suites.rs";

/// Every command that the pages may show, without a leading `sudo`. Those that install the guest's files are
/// held against the lab's own list instead; that each option exists is held by `xtask/manual/`.
const PROOFS: [Proof; 31] = [
    proof("cargo xtask test", ".ci/run", "cargo xtask test"),
    proof(
        "cargo xtask demo",
        "xtask/src/test/suites.rs",
        "&[\"demo\"]",
    ),
    proof(
        "cargo xtask fuzz ",
        "xtask/src/test/suites.rs",
        "&[\"fuzz\", \"--seconds\", \"5\"]",
    ),
    proof(
        "cargo build --release --package tandem-guest --bin tandem",
        "xtask/src/test/suites.rs",
        "build --release --package tandem-guest --bin tandem",
    ),
    proof("cargo xtask package", SUITES, "&[\"package\", \"--check\"]"),
    proof(
        "cargo xtask package tandem --deb",
        SUITES,
        "&[\"package\", \"--deb\", \"--check\", \"--debug-host\"]",
    ),
    proof(
        "cargo xtask package tandem-host --deb",
        SUITES,
        "&[\"package\", \"--deb\", \"--check\", \"--debug-host\"]",
    ),
    proof(
        "apt install ./target/packages/tandem_*.deb",
        PACKAGING,
        "guest.run_block(\"README.md\", \"apt install \")?",
    ),
    proof(
        "apt install ./target/packages/tandem-host_*.deb",
        "tests/tests/packaging/chroot.rs",
        "install /packages/tandem_*.deb /packages/tandem-host_*.deb",
    ),
    proof(
        "systemctl start tandem",
        PACKAGING,
        "systemctl start {UNIT}",
    ),
    proof(
        "apt purge tandem",
        PACKAGING,
        "apt(&guest, \"purge tandem\")?",
    ),
    proof("tandem ", "tests/tests/readme.rs", "readme::commands"),
    proof(
        "systemd-sysusers tandem.conf",
        NEVER_WORSE,
        RUNS_INSTALLATION,
    ),
    proof("systemctl daemon-reload", NEVER_WORSE, RUNS_INSTALLATION),
    proof("udevadm control --reload", NEVER_WORSE, RUNS_INSTALLATION),
    proof(
        "systemctl enable tandem.service",
        NEVER_WORSE,
        RUNS_INSTALLATION,
    ),
    proof(
        "tandem-host migrate DOMAIN qemu+ssh://destination/system --vf vf.xml --dry-run",
        "tests/tests/libvirt/operator.rs",
        "arguments.push(\"--dry-run\".to_owned())",
    ),
    proof(
        "tandem-host migrate DOMAIN qemu+ssh://destination/system --vf vf.xml",
        "tests/src/libvirt/guest.rs",
        "self.arguments(\"migrate\", here, there, &[vf])",
    ),
    proof(
        "tandem-host check DOMAIN qemu+ssh://destination/system --vf vf.xml",
        "helper/host/tests/whole_domain/main.rs",
        "bench.run(&[\"check\"], &more)",
    ),
    proof(
        "tandem-host migrate DOMAIN qmp:/run/b.qmp ",
        "tests/src/carried.rs",
        "\"--carry-from\",\n            &from,",
    ),
    proof(
        "tandem-host recover DOMAIN",
        "tests/src/libvirt/guest.rs",
        "\"recover\",\n            &self.spec.name,",
    ),
    proof(
        "tandem-host xml set DOMAIN bonds.xml",
        "tests/tests/libvirt/operator.rs",
        "&[\"xml\", \"set\", DOMAIN, &saved]",
    ),
    proof(
        "tandem-host xml check DOMAIN",
        "tests/tests/libvirt/operator.rs",
        "&[\"xml\", \"check\", DOMAIN]",
    ),
    proof(
        "tandem-host xml show DOMAIN",
        "tests/tests/libvirt/operator.rs",
        "&[\"xml\", \"show\", DOMAIN]",
    ),
    proof(
        "tandem-host configure DOMAIN",
        "tests/src/libvirt/guest.rs",
        "\"configure\",\n                &self.spec.name,",
    ),
    proof(
        "tandem-host status",
        "tests/tests/libvirt/operator.rs",
        "&[\"status\", \"--json\"]",
    ),
    proof(
        "tandem-host status DOMAIN --json",
        "tests/tests/libvirt/operator.rs",
        "[\"status\", DOMAIN, \"--json\"]",
    ),
    proof(
        "tandem-host watch DOMAIN",
        "tests/tests/libvirt/operator.rs",
        "\"watch\",\n        DOMAIN,",
    ),
    proof(
        "tandem-host prepare DOMAIN",
        "tests/tests/libvirt_faults/guest.rs",
        "world.one_step(\"prepare\")",
    ),
    proof(
        "tandem-host resume DOMAIN",
        "tests/tests/libvirt_faults/guest.rs",
        "world.one_step(\"resume\")",
    ),
    proof(
        "install -m 755 helper/host/hooks/qemu /etc/libvirt/hooks/qemu.d/tandem",
        "tests/src/libvirt/daemon.rs",
        "helper/host/hooks/qemu",
    ),
];

/// Why nothing shows that a command works, if so.
pub(super) fn unproven(command: &str) -> Result<Option<String>> {
    match PROOFS.iter().find(|proof| proof.is_of(command)) {
        Some(proof) => missing(command, proof),
        None => Ok(Some(format!(
            "`{command}` is run by no test that {} knows",
            file!()
        ))),
    }
}

impl Proof {
    fn is_of(&self, command: &str) -> bool {
        command == self.command || self.command.ends_with(' ') && command.starts_with(self.command)
    }
}

fn missing(command: &str, proof: &Proof) -> Result<Option<String>> {
    let text = project::text(proof.file.as_ref())?.unwrap_or_default();
    Ok((!text.contains(proof.words)).then(|| {
        format!(
            "`{command}` should be run by {}, which has no `{}`",
            proof.file, proof.words
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_nothing_runs_is_found() {
        assert_eq!(unproven("cargo xtask test").unwrap(), None);
        assert_eq!(unproven("tandem-host resume DOMAIN").unwrap(), None);
        for command in ["tandem-host dance DOMAIN", "tandem-host resume", "rm -rf x"] {
            let found = unproven(command).unwrap().unwrap();
            assert!(found.contains(command), "{found}");
        }
    }

    #[test]
    fn a_proof_that_is_gone_is_found() {
        let kept = proof("x", ".ci/run", "cargo xtask test");
        assert_eq!(missing("x", &kept).unwrap(), None);
        let gone = proof("x", ".ci/run", "no such words");
        let found = missing("x", &gone).unwrap().unwrap();
        assert!(found.contains("no such words"));
    }
}
