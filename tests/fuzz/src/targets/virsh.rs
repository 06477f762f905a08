//! What virsh prints, for each of its commands. The first line is also taken for a domain's name, which may be
//! anything but a line's end.

use tandem_host::hypervisor::{DomainEvent, EventKind};
use tandem_host::libvirt::fuzzing::printed;

use crate::shown::is_printable;

/// libvirt's words that are passed on, in characters.
const MAX_WORDS: usize = 600;

pub(super) fn run(bytes: &[u8]) {
    let text = super::text(bytes);
    let name = text.lines().next().unwrap_or_default();
    let read = printed(&text, "g1");
    for names in &read.names {
        for name in names {
            assert!(!name.contains('\n') && text.contains(name.as_str()));
        }
        assert!(names.len() <= text.lines().count());
    }
    for events in [&read.events, &read.monitor_events] {
        assert!(events.len() <= text.lines().count());
    }
    for refusal in &read.refusals {
        // Besides them only words of ours.
        is_printable(&refusal.to_string(), MAX_WORDS + 200);
    }
    if !name.is_empty() && !name.contains('\r') {
        named(name);
    }
}

/// A domain's name is read as it is, and never as another domain's.
fn named(name: &str) {
    let list = format!("5e1c3f7e-0000-4000-8000-000000000001 {name}\n");
    for names in printed(&list, "g1").names {
        assert_eq!(names, [name], "{name:?} is read as another");
    }
    let of_it = |events: Vec<DomainEvent>, kind: EventKind| {
        let domain = Some(name.to_owned());
        assert_eq!(
            events,
            [DomainEvent { domain, kind }],
            "an event of {name:?}"
        );
    };
    let time = "2026-01-02 03:04:05.678+0000";
    let line = format!("{time}: event 'device-removed' for domain '{name}': ua-vf");
    let alias = "ua-vf".to_owned();
    of_it(
        printed(&line, "g1").events,
        EventKind::DeviceRemoved { alias },
    );
    let line = format!("{time}: event 'reboot' for domain '{name}': ");
    of_it(printed(&line, "g1").events, EventKind::Reboot);
    let details = r#"{"open":true,"id":"channel0"}"#;
    let line = format!("{time}: event VSERPORT_CHANGE for domain '{name}': {details}");
    let connected = true;
    of_it(
        printed(&line, "g1").monitor_events,
        EventKind::Agent { connected },
    );
}
