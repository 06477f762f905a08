//! What else the kernel and the network say: device events, records of the kernel programs, types (BTF), and
//! frames of a path check and answers of neighbours. The first byte chooses.

use tandem_guest::ebpf::btf::Btf;
use tandem_guest::fuzzing::{device_event, neighbour_answer, path_check_payload, ring_record};

use crate::machine::Driven;

/// Bytes of a frame before its payload.
const HEADER_BYTES: usize = 14;
/// What `helper/src/ebpf/hooks.rs` asks for: functions, and paths in their first argument.
const ASKED: [(&str, &str); 4] = [
    ("pci_stop_and_remove_bus_device", "dev.kobj.name"),
    ("unregister_netdevice_queue", "nd_net.net"),
    ("pciehp_handle_button_press", "pcie"),
    ("acpi_hotplug_schedule", "physical_node_list.next"),
];

pub(super) fn run(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else {
        return;
    };
    match kind % 4 {
        0 => {
            device_event(rest);
        }
        1 => ring(rest),
        2 => btf(rest),
        _ => {
            let payload = path_check_payload(rest);
            assert!(payload.is_none_or(|payload| payload.len() + HEADER_BYTES == rest.len()));
            let [by_arp, by_ipv6] = neighbour_answer(rest);
            assert!(by_arp.is_none() || by_ipv6.is_none());
        }
    }
}

fn ring(bytes: &[u8]) {
    let mut driven = Driven::with_a_bond();
    for record in bytes.chunks(tandem_ebpf::EVENT_LEN) {
        let input = ring_record(record);
        input.into_iter().for_each(|input| {
            driven.handle(input);
        });
        driven.wait_ms(1_000);
    }
}

/// As the hooks are laid out.
fn btf(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(bytes.to_vec()) else {
        return;
    };
    for (function, path) in ASKED {
        let Ok(structure) = btf.argument(function, 0) else {
            continue;
        };
        let member = btf.member(structure, path);
        let target = btf.target(structure, path);
        assert!(target.is_err() || member.is_ok());
    }
    if let Ok(node) = btf.structure("acpi_device_physical_node") {
        let _ = btf.member(node, "node");
    }
    assert!(!btf.has_function("none of that name"));
}
