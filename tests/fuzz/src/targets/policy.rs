//! Policies: a configuration file, or, from `{` on, what the host handed over as the guest keeps it. Then what
//! udev, the kernel and other programs are told of it.

use tandem_core::action::ActionKind;
use tandem_core::link::Link;
use tandem_core::policy::{Origin, Policy};
use tandem_core::{IfName, Input};
use tandem_guest::fuzzing::{configuration, udev_entry, udev_properties};

use crate::machine::Driven;

/// What the kernel or a program would take for something else.
const RESERVED: [&str; 6] = ["", ".", "..", "all", "default", "bonding_masters"];

pub(super) fn run(bytes: &[u8]) {
    let text = super::text(bytes);
    udev_entry(&text);
    let policy = if text.starts_with('{') {
        let read: Option<Policy> = serde_json::from_str(&text).ok();
        let policy = read.map(|policy| Policy {
            origin: Origin::Host,
            ..policy
        });
        policy.filter(|policy| policy.validate().is_ok())
    } else {
        configuration(&text).ok().map(|config| config.policy)
    };
    let Some(policy) = policy else {
        return;
    };
    policy.validate().expect("it was found valid");
    let kept = serde_json::to_string(&policy).expect("it is JSON");
    let again: Policy = serde_json::from_str(&kept).expect("what is kept is read");
    assert_eq!(again, policy);
    for bond in &policy.bonds {
        is_safe(&bond.name);
    }
    for properties in udev_properties(&policy) {
        properties.iter().for_each(|line| is_udevs(line));
    }
    created(policy);
}

/// A name that the kernel takes as it is (`dev_valid_name`, `__dev_alloc_name`, net/core/dev.c, 6.12: its
/// `isspace` counts byte 0xa0 too), and that no program takes for an option.
fn is_safe(name: &IfName) {
    let name = name.as_str();
    let bad = |byte: u8| {
        matches!(byte, b'/' | b':' | b'%' | 0xa0) || byte.is_ascii_whitespace() || byte == 0x0b
    };
    assert!(name.len() <= 15 && !RESERVED.contains(&name), "{name:?}");
    assert!(!name.bytes().any(bad) && !name.starts_with('-'), "{name:?}");
    assert!(
        !name.chars().any(|c| c.is_control() || c.is_whitespace()),
        "{name:?}"
    );
}

/// `^TANDEM_[A-Z]+=\S+$`, and no quote in front: udev drops a line whose quotes do not pair (systemd 257,
/// `src/udev/udev-rules.c`, `get_property_from_string`).
fn is_udevs(line: &str) {
    let property = line
        .strip_prefix("TANDEM_")
        .and_then(|rest| rest.split_once('='));
    let (name, value) = property.unwrap_or_else(|| panic!("{line:?} is no property"));
    assert!(
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase()),
        "{line:?}"
    );
    assert!(
        !value.is_empty() && !value.contains(char::is_whitespace),
        "{line:?}"
    );
    assert!(!value.starts_with(['"', '\'']), "{line:?}");
}

/// The machine makes the bonds of the policy, and no others.
fn created(policy: Policy) {
    let names: Vec<IfName> = policy.bonds.iter().map(|bond| bond.name.clone()).collect();
    let mut driven = Driven::new(policy);
    driven.handle(Input::Links(Vec::<Link>::new()));
    driven.wait_ms(1_000);
    for action in driven.open() {
        if let ActionKind::CreateBond { name, .. } = &action.kind {
            assert!(names.contains(name));
        }
    }
}
