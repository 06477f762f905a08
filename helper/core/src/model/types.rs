//! Identifiers and time, each with its own type so that arguments can't be swapped.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not six pairs of hexadecimal digits separated by colons.
    #[error("`{0}` is not a MAC address; write it like 52:54:00:12:34:56")]
    Mac(String),
    /// Not `domain:bus:device.function`.
    #[error("`{0}` is not a PCI address; write it like 0000:02:00.0")]
    Pci(String),
    /// Empty, longer than 15 bytes, or with a character that the kernel refuses.
    #[error(
        "`{0}` is not an interface name; use 1 to 15 bytes without space, `/`, `:` and control characters"
    )]
    IfName(String),
}

/// An Ethernet hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All zero: what the kernel shows where there is no address.
    pub const ZERO: Self = Self([0; 6]);

    /// True for addresses that one station can have: not zero, not multicast.
    pub fn is_unicast(self) -> bool {
        self != Self::ZERO && self.0[0] & 1 == 0
    }

    /// Takes the first six bytes of a hardware address; `None` for other lengths.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::Mac(shortened(text));
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(error)?;
            *byte = hex(part, 2)
                .and_then(|v| u8::try_from(v).ok())
                .ok_or_else(error)?;
        }
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(Self(bytes))
    }
}

/// An interface's index within its network namespace; unique while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Ifindex(pub u32);

impl fmt::Display for Ifindex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A PCI function's address: domain, bus, device and function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// PCI domain (segment); VMD bridges use more than 16 bits.
    pub domain: u32,
    /// Bus number.
    pub bus: u8,
    /// Device (slot) number, below 32.
    pub device: u8,
    /// Function number, below 8.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl fmt::Debug for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PciAddress {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse_pci(text).ok_or_else(|| ParseError::Pci(shortened(text)))
    }
}

fn parse_pci(text: &str) -> Option<PciAddress> {
    let (domain, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    if domain.len() < 4 {
        return None;
    }
    let address = PciAddress {
        domain: hex(domain, 8)?,
        bus: u8::try_from(hex(bus, 2)?).ok()?,
        device: u8::try_from(hex(device, 2)?).ok()?,
        function: u8::try_from(hex(function, 1)?).ok()?,
    };
    (address.device < 32 && address.function < 8).then_some(address)
}

/// A network interface's name, as the kernel takes it (`dev_valid_name`, net/core/dev.c, 6.12).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// Longest name in bytes: `IFNAMSIZ` without the closing zero.
    pub const MAX_BYTES: usize = 15;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IfName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refused = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let valid = !text.is_empty()
            && text.len() <= Self::MAX_BYTES
            && text != "."
            && text != ".."
            && !text.contains(refused)
            // For the kernel's `isspace` this byte is white space too, as in `à` (lib/ctype.c, 6.12).
            && !text.as_bytes().contains(&0xa0);
        if valid {
            Ok(Self(text.to_string()))
        } else {
            Err(ParseError::IfName(shortened(text)))
        }
    }
}

/// Identity of an action; the executor answers to it with `Input::Done`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionId(pub u64);

/// Identity of an open command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub u64);

/// A moment: microseconds since boot, suspend included (`CLOCK_BOOTTIME`).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// The moment `ms` milliseconds later; stops at the end of time rather than wrap.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    /// Microseconds from `earlier` to this moment; 0 if it is not earlier.
    pub fn since_us(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole milliseconds from `earlier` to this moment; 0 if it is not earlier.
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.since_us(earlier) / 1000
    }
}

fn hex(text: &str, max_digits: usize) -> Option<u32> {
    let plain = !text.is_empty()
        && text.len() <= max_digits
        && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plain {
        u32::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

/// Keeps error messages readable whatever was given.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

macro_rules! text_serde {
    ($type:ty, $schema:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = alloc::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> alloc::borrow::Cow<'static, str> {
                $schema.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

text_serde!(Mac, "Mac", "^([0-9a-f]{2}:){5}[0-9a-f]{2}$");
text_serde!(
    PciAddress,
    "PciAddress",
    "^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]$"
);
text_serde!(IfName, "IfName", "^[^/:\\s]{1,15}$");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_not_an_identifier() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5g",
            "5254.0012.3456",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
        for text in [
            "",
            "0000:02:00",
            "0000:02:20.0",
            "0000:02:00.8",
            "2:0.0",
            "0000:+2:00.0",
        ] {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
        for text in ["", ".", "..", "a b", "a/b", "a:b", "à", "0123456789abcdef"] {
            assert!(text.parse::<IfName>().is_err(), "{text}");
        }
        assert!("ü".parse::<IfName>().is_ok());
    }

    proptest! {
        #[test]
        fn text_round_trips(bytes: [u8; 6], domain: u32, bus: u8, device in 0u8..32, function in 0u8..8) {
            let mac = Mac(bytes);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            let pci = PciAddress { domain, bus, device, function };
            prop_assert_eq!(pci.to_string().parse(), Ok(pci));
        }

        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,64}") {
            let _ = text.parse::<Mac>();
            let _ = text.parse::<PciAddress>();
            if let Ok(name) = text.parse::<IfName>() {
                prop_assert!(name.as_str().len() <= IfName::MAX_BYTES);
            }
        }
    }
}
