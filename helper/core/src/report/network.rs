//! What is wrong with a bond's network, though the bond itself works.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::bond::context::Context;
use crate::bond::view::Bond;
use crate::model::status::{Problem, ProblemCode};
use crate::model::types::IfName;

/// Problems of addresses, routes, leases, and of managers that configure a port.
pub(crate) fn of_network(context: &Context<'_>) -> Vec<Problem> {
    let Context {
        view, memory, now, ..
    } = context;
    let bond = Some(&view.policy.name);
    let network = &memory.network;
    let mut all = Vec::new();
    let code = ProblemCode::NoAddress;
    if network.lacks_address(*now) {
        let message = match view.bond().is_some_and(Bond::has_addresses) {
            true if network.had_ipv4() => "there was an IPv4 address, and it has none",
            true => "it should get an IPv4 address, and none came",
            false => "it carries traffic and has no address",
        };
        all.push(problem(code, bond, message.into()));
    }
    let code = ProblemCode::NoDefaultRoute;
    if network.lacks_route(*now) {
        let message = "its IPv4 default route is gone, and no other interface has one";
        all.push(problem(code, bond, message.into()));
    }
    if let Some(addresses) = listed(network.unrenewed(*now)) {
        let code = ProblemCode::LeaseUnrenewed;
        let message = format!("nobody renewed the lease of {addresses}, which is about to end");
        all.push(problem(code, bond, message));
    }
    let code = ProblemCode::PortContested;
    for port in view.nics() {
        if network.is_contested(port.ifindex(), *now) {
            let message =
                "addresses were taken off this port again and again: another manager configures it";
            all.push(problem(code, Some(&port.link.name), message.into()));
        }
    }
    all
}

fn problem(code: ProblemCode, device: Option<&IfName>, message: String) -> Problem {
    Problem {
        code,
        device: device.cloned(),
        message,
        remedy: code.remedy().into(),
    }
}

/// The first few of them in words; nothing of nothing.
fn listed(all: impl Iterator<Item = impl ToString>) -> Option<String> {
    const MAX: usize = 4;
    let mut words: Vec<_> = all.map(|one| one.to_string()).collect();
    if words.len() > MAX {
        words.truncate(MAX);
        words.push("…".into());
    }
    (!words.is_empty()).then(|| words.join(", "))
}
