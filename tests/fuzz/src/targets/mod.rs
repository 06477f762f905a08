//! One file for each target; each has its corpus in `tests/fuzz/corpus/NAME`.

mod carry;
mod kernel;
mod mixed;
mod policy;
mod qmp;
mod record;
mod reply;
mod rtnl;
mod serve;
mod session;
mod virsh;
mod xml;

use std::sync::LazyLock;

use crate::limit;

/// A target: its name, and what it does with bytes.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 12] = [
    ("carry", carry::run),
    ("kernel", kernel::run),
    ("mixed", mixed::run),
    ("policy", policy::run),
    ("qmp", qmp::run),
    ("record", record::run),
    ("reply", reply::run),
    ("rtnl", rtnl::run),
    ("serve", serve::run),
    ("session", session::run),
    ("virsh", virsh::run),
    ("xml", xml::run),
];
const VARIABLE: &str = "TANDEM_FUZZ_TARGET";

/// The target that the environment names.
///
/// # Panics
/// If there is none of that name.
pub(crate) fn chosen() -> Target {
    static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        let found = TARGETS.into_iter().find(|(target, _)| *target == name);
        let names = TARGETS.map(|(name, _)| name).join(", ");
        found.unwrap_or_else(|| panic!("{VARIABLE} is `{name}`, and none of {names}"))
    });
    *CHOSEN
}

/// Runs the chosen target once.
///
/// # Panics
/// If a promise does not hold.
pub(crate) fn run(bytes: &[u8]) {
    let (name, target) = chosen();
    limit::within(name, bytes.len(), || target(bytes));
}

/// Bytes as text, as everything that takes text only would see them.
fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
