//! Only `helper/src/act/` and what it arms in `helper/src/ebpf/fast_path/` change the kernel, and only
//! `helper/src/run.rs` drives the machine (invariant 9 of ARCHITECTURE.md): the few calls that do so stand
//! nowhere else.

use std::path::Path;

use anyhow::Result;

use super::Report;
use crate::project;

/// The guest's service.
const SERVICE: &str = "helper/src";

/// A call, and the files or folders that may make it.
struct Boundary {
    call: &'static str,
    within: &'static [&'static str],
}

const BOUNDARIES: [Boundary; 8] = [
    Boundary {
        call: ".change(",
        within: &["helper/src/act"],
    },
    Boundary {
        call: ".change_raw(",
        within: &["helper/src/act", "helper/src/netlink/request.rs"],
    },
    Boundary {
        call: "primary_request(",
        within: &[
            "helper/src/netlink/bond.rs",
            "helper/src/ebpf/fast_path/ready.rs",
        ],
    },
    Boundary {
        call: "packet_socket(",
        within: &[
            "helper/src/act",
            "helper/src/packet/socket.rs",
            "helper/src/ebpf/fast_path/ready.rs",
            "helper/src/ebpf/fast_path/test_frame.rs",
        ],
    },
    Boundary {
        call: "arrivals_socket(",
        within: &["helper/src/act", "helper/src/packet/socket.rs"],
    },
    Boundary {
        call: "qdisc_add_clsact(",
        within: &["helper/src/ebpf/fast_path/attach.rs"],
    },
    Boundary {
        call: ".attach_with_options(",
        within: &["helper/src/ebpf/fast_path/attach.rs"],
    },
    Boundary {
        call: "Machine::new(",
        // The last one in a test of what the port says when the core refuses.
        within: &[
            "helper/src/run.rs",
            "helper/src/replay.rs",
            "helper/src/channel/virtio.rs",
        ],
    },
];

pub(super) fn check() -> Result<Report> {
    let mut findings = Vec::new();
    let mut calls = 0;
    let is_source = |file: &Path| {
        file.starts_with(SERVICE) && file.extension().is_some_and(|extension| extension == "rs")
    };
    for (file, text) in project::texts(is_source)? {
        for boundary in &BOUNDARIES {
            calls += text.matches(boundary.call).count();
            findings.extend(boundary.finding(&file, &text));
        }
    }
    // Renamed functions would let everything through.
    if calls < BOUNDARIES.len() {
        findings.push(format!(
            "only {calls} guarded calls are left: the list in {} is out of date",
            file!()
        ));
    }
    Ok(Report {
        looked_at: format!("{calls} guarded calls in {SERVICE}"),
        findings,
    })
}

impl Boundary {
    fn finding(&self, file: &Path, text: &str) -> Option<String> {
        if self.within.iter().any(|allowed| file.starts_with(allowed)) {
            return None;
        }
        let line = text.lines().position(|line| line.contains(self.call))? + 1;
        Some(format!(
            "{}:{line}: `{}` belongs into {}",
            file.display(),
            self.call,
            self.within.join(" or ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_across_the_boundary_is_found() {
        let change = &BOUNDARIES[0];
        let text = "fn x() {\n    requests.change(&message, 0)\n}\n";
        assert_eq!(
            change.finding("helper/src/act/link.rs".as_ref(), text),
            None
        );
        let found = change
            .finding("helper/src/observe/udev.rs".as_ref(), text)
            .unwrap();
        assert!(
            found.starts_with("helper/src/observe/udev.rs:2: "),
            "{found}"
        );
    }
}
