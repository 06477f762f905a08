//! DNS queries of a guest, one after the other, by the resolver that its programs have.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::agent::Background;
use crate::dhcp::NAME;
use crate::full_guest::Manager;
use crate::net::CLIENT_V4;
use crate::tandem::{Guest, STEP_LIMIT};

const LOG: &str = "/run/lab-queries";
const ENOUGH: &str = "/run/lab-enough";
/// The last query may wait for each try of its resolver.
const END_LIMIT: Duration = Duration::from_secs(60);

/// As the image comes, NetworkManager leaves the file to others.
const BY_NETWORK_MANAGER: &str =
    "printf '[main]\\ndns=default\\nrc-manager=file\\n' >/etc/NetworkManager/conf.d/zz-lab.conf
    nmcli general reload";

/// Queries under way.
pub(super) struct Queries {
    program: Background,
}

/// What became of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) count: usize,
    pub(super) slowest_ms: u64,
    /// What the resolver said.
    pub(super) failed: Vec<String>,
}

impl Queries {
    /// Comes back when one was answered.
    pub(super) fn start(manager: Manager, guest: &Guest) -> Result<Self> {
        let vm = &guest.vm;
        match manager {
            // It has resolved tell programs, where that is there.
            Manager::Networkd => vm.sh(&format!(
                "systemctl -q is-active systemd-resolved || echo nameserver {CLIENT_V4} >/etc/resolv.conf"
            ))?,
            Manager::NetworkManager => vm.sh(BY_NETWORK_MANAGER)?,
            Manager::Ifupdown | Manager::Dhcpcd => String::new(),
        };
        let ask = format!(
            "while test ! -e {ENOUGH}; do
                began=$(date +%s%3N)
                if said=$(getent ahostsv4 {NAME} 2>&1); then result=ok; else result=failed; fi
                echo $result $(($(date +%s%3N) - began)) $said
                sleep 0.2
            done"
        );
        vm.sh(&format!("rm -f {ENOUGH} {LOG}"))?;
        let program = vm.spawn(&["sh", "-c", &ask], &[], LOG)?;
        let answered = vm.wait_sh(&format!("grep -q ^ok {LOG}"), STEP_LIMIT);
        answered.with_context(|| format!("nobody answers the guest's question for {NAME}"))?;
        Ok(Self { program })
    }

    pub(super) fn finish(self, guest: &Guest) -> Result<Answers> {
        guest.vm.sh(&format!("touch {ENOUGH}"))?;
        let ended = guest.vm.wait(self.program, END_LIMIT)?;
        ended.context("the guest's queries don't end")?;
        let log = guest.vm.read_file(LOG)?;
        read(&String::from_utf8_lossy(&log))
    }
}

/// A line each: the result, how long it took, and what was said. What failed before the first answer is not about the
/// change.
fn read(log: &str) -> Result<Answers> {
    let mut answers = Answers::default();
    for line in log.lines().skip_while(|line| !line.starts_with("ok ")) {
        let mut words = line.splitn(3, ' ');
        let (result, took) = (words.next(), words.next().and_then(|ms| ms.parse().ok()));
        let took: u64 = took.with_context(|| format!("a query left `{line}`"))?;
        answers.count += 1;
        answers.slowest_ms = answers.slowest_ms.max(took);
        if result != Some("ok") {
            answers
                .failed
                .push(format!("query {}: {line}", answers.count));
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_failed_is_told() {
        let answers =
            read("failed 1\nok 30 10.77.0.1 STREAM\nfailed 5010\nok 7 10.77.0.1\n").unwrap();
        let expected = Answers {
            count: 3,
            slowest_ms: 5010,
            failed: vec!["query 2: failed 5010".to_owned()],
        };
        assert_eq!(answers, expected);
        assert!(read("ok 7 10.77.0.1\nfailed\n").is_err());
    }
}
