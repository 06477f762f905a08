//! How long an honest guest's answers get.

use serde_json::{Value, json};
use tandem_core::Policy;
use tandem_core::status::BondStatus;
use tandem_wire::MAX_REPLY_BYTES;
use tandem_wire::reply::StatusReport;

/// Some eleven days, in µs.
const LONG_US: u64 = 999_999_999_999;

fn port(name: &str) -> Value {
    json!({"name": name, "ifindex": 16_384, "mac": "52:54:00:12:34:01", "pci": "0000:07:00.0", "driver": "vmxnet3_or_so",
        "enslaved": true, "active": false, "carrier": true, "held": "removal-expected", "unproved": "nobody-answers"})
}

fn problem(number: usize) -> Value {
    json!({"code": "switchover-unmeasured", "device": "enp193s0f0np0", "message": format!("{number:0>200}"),
        "remedy": "r".repeat(150)})
}

fn switchover(number: usize) -> Value {
    json!({"number": 1_000_000 + number, "at": LONG_US, "from": "standby", "to": "standby", "cause": "path-lost",
        "took-us": LONG_US, "lead-us": LONG_US, "warned-by": "button-cancelled", "reaction-us": LONG_US,
        "gap": {"receive-us": LONG_US, "transmit-us": LONG_US, "late-frames": LONG_US, "drain-us": LONG_US}})
}

/// As many bonds as there may be, each with more than anybody has seen of it.
#[test]
fn the_longest_status_of_a_guest_fits() {
    let bond = |number: usize| {
        let addresses: Vec<Value> = (0..8)
            .map(|at| json!({"ip": format!("2001:db8:1234:5678:9abc:def0:{number:x}:{at:x}"), "prefix": 64}))
            .collect();
        json!({"name": format!("bond-{number:0>10}"), "ifindex": 16_384, "mac": "52:54:00:12:34:01",
            "state": "switching-over", "traffic": "standby", "reason": "r".repeat(200), "standby": port("enp193s0f0np0"),
            "vf": port("enp193s0f0np1"), "backup-vfs": [port("enp193s0f0np2"), port("enp193s0f0np3")],
            "addresses": addresses, "problems": (0..4).map(problem).collect::<Vec<_>>(), "fast-path-armed": true,
            "next-deadline": LONG_US, "switchover-count": LONG_US,
            "switchovers": (0..BondStatus::MAX_SWITCHOVERS).map(switchover).collect::<Vec<_>>()})
    };
    let parts: Vec<Value> = (0..16)
        .map(|part| json!({"name": format!("part-{part}"), "ok": false, "detail": "d".repeat(200)}))
        .collect();
    let sources = ["links", "addressing", "udev", "ebpf", "channel"].map(
        |source| json!({"source": source, "health": "partial", "lost": LONG_US, "parts": parts}),
    );
    let report = json!({"tandem-protocol": 1, "version": "0.1.0", "now": LONG_US, "status": {"generation": LONG_US,
        "policy": "host", "problems": [], "bonds": (0..Policy::MAX_BONDS).map(bond).collect::<Vec<_>>(),
        "sources": sources}});
    let report: StatusReport = serde_json::from_value(report).unwrap();
    let text = serde_json::to_vec(&report).unwrap();
    println!("{} bytes", text.len());
    assert!(text.len() + 100 < MAX_REPLY_BYTES, "{}", text.len());
    assert!(text.len() > MAX_REPLY_BYTES / 2, "{}", text.len());
}
