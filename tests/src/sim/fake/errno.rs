//! How the fake kernel says no.

use tandem_core::input::Outcome;

/// A refusal in the kernel's own terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Error number, positive.
    pub errno: i32,
    /// Extended acknowledgement.
    pub message: &'static str,
}

impl Refusal {
    pub(super) const NO_DEVICE: Self = Self::new(19, "No such device");
    pub(super) const EXISTS: Self = Self::new(17, "File exists");
    pub(super) const UNKNOWN_TYPE: Self = Self::new(95, "Unknown device type");
    pub(super) const NOT_A_BOND: Self = Self::new(22, "is no bond");
    pub(super) const OTHER_BOND: Self = Self::new(16, "is a port of another bond");
    pub(super) const HAS_PORTS: Self = Self::new(
        39,
        "unable to set option because the bond device has slaves",
    );
    pub(super) const MTU: Self = Self::new(22, "mtu greater than device maximum");
    pub(super) const MAC: Self = Self::new(99, "Cannot assign requested address");
    pub(super) const BUSY: Self = Self::new(16, "Device is in use and cannot be enslaved");
    pub(super) const LAST_USABLE: Self = Self::new(16, "no other port of the bond is usable");
    pub(super) const NO_FRAME: Self = Self::new(110, "no frame came through the network");
    pub(super) const NET_DOWN: Self = Self::new(100, "Network is down");
    pub(super) const NET_UNREACHABLE: Self = Self::new(101, "Nexthop has invalid gateway");
    pub(super) const NOT_A_PORT: Self = Self::new(22, "Invalid argument");

    const fn new(errno: i32, message: &'static str) -> Self {
        Self { errno, message }
    }
}

impl From<Result<(), Refusal>> for OutcomeOf {
    fn from(result: Result<(), Refusal>) -> Self {
        Self(match result {
            Ok(()) => Outcome::Accepted,
            Err(Refusal::NO_DEVICE) => Outcome::Gone,
            Err(refusal) => Outcome::Failed {
                errno: refusal.errno,
                message: refusal.message.into(),
            },
        })
    }
}

/// What the executor reports of a result.
pub(super) struct OutcomeOf(pub(super) Outcome);
