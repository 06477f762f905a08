//! Policies: a configuration file, or, from `{` on, what the host handed over as the guest keeps it; the first line
//! also for a bond's name. Then what
//! udev, the kernel and other programs are told of it.

use tandem_core::action::ActionKind;
use tandem_core::link::Link;
use tandem_core::policy::{BondPolicy, Origin, Policy, PortMatch};
use tandem_core::{IfName, Input};
use tandem_guest::fuzzing::{configuration, udev_entry, udev_properties};

use crate::machine::Driven;

/// What the kernel or a program would take for something else.
const RESERVED: [&str; 6] = ["", ".", "..", "all", "default", "bonding_masters"];

pub(super) fn run(bytes: &[u8]) {
    let text = super::text(bytes);
    udev_entry(&text);
    let read = if text.starts_with('{') {
        serde_json::from_str(&text).ok().map(of_the_host)
    } else {
        configuration(&text).ok().map(|config| config.policy)
    };
    let name = text.lines().next().unwrap_or_default();
    let named = name.parse().ok().map(with_the_name);
    let policies = [read, named].into_iter().flatten();
    policies
        .filter(|policy| policy.validate().is_ok())
        .for_each(taken);
}

fn of_the_host(policy: Policy) -> Policy {
    Policy {
        origin: Origin::Host,
        ..policy
    }
}

/// The first line may be a bond's name, and is soon found to be a bad one where nothing else is needed.
fn with_the_name(name: IfName) -> Policy {
    let nic = |driver: &str| PortMatch {
        driver: Some(driver.to_owned()),
        ..PortMatch::default()
    };
    of_the_host(Policy {
        bonds: vec![BondPolicy::new(name, nic("virtio_net"), vec![nic("iavf")])],
        ..Policy::default()
    })
}

/// What was found valid.
fn taken(policy: Policy) {
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
