//! `tandem-host carry-half`, and the options of `migrate` about a carry.

use clap::Args;

use super::connect::Connect;
use crate::carry::{CarrySettings, HalfArguments, Place, run_half};
use crate::hypervisor::{MigrateOptions, Nic};

/// The most memory for frames that can be asked for, in MiB.
const MOST_MIB: u64 = 16 * 1024;
/// The longest pause that can be asked for, in ms.
const LONGEST_PAUSE_MS: u64 = 60_000;

/// Why none is with `--dname`.
pub(super) const OTHER_NAME: &str = "a carry looks for the domain under one name on both hosts";

/// How frames for the guest are carried.
#[derive(Debug, Clone, Args)]
pub struct Carry {
    /// The taps of the guest's virtio NIC between which frames are carried after it while it moves: the source's, and the
    /// destination's if that has another name. libvirt is asked for them, unless given. Without this option, frames are
    /// carried where that can be; with it, a domain that has no VF is migrated too
    #[arg(long, value_name = "TAP[=TAP]", value_parser = taps, num_args = 0..=1, require_equals = true, overrides_with = "no_carry")]
    pub carry: Option<Option<[String; 2]>>,
    /// Hold and carry no frames
    #[arg(long, overrides_with = "carry")]
    pub no_carry: bool,
    /// Command that runs `tandem-host` where the source's tap is; default: this program, over SSH if the URI leads there so
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_carry")]
    pub carry_from: Option<String>,
    /// Command that runs `tandem-host` where the destination's tap is, such as `ssh root@b tandem-host`; default: this
    /// program, over SSH if the URI leads there so
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_carry")]
    pub carry_to: Option<String>,
    /// The most memory for frames on each host, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=MOST_MIB))]
    pub carry_limit: u64,
    /// Where frames are carried: stop the guest once its remaining memory can be sent in this time, in ms
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=LONGEST_PAUSE_MS))]
    pub max_pause: u64,
}

/// `tandem-host carry-half`
#[derive(Debug, Clone, Args)]
pub struct CarryHalf {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub connect: Connect,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub half: HalfArguments,
}

/// Runs one half of a carry; returns the exit code.
///
/// # Errors
/// If the tap can't be guarded, or its kernel fails.
pub async fn run(arguments: &CarryHalf) -> anyhow::Result<u8> {
    run_half(&arguments.half, arguments.connect.open()).await
}

impl Carry {
    /// The carry that is wanted, for a domain with these NICs, between the hosts of these URIs, as it is to migrate.
    pub(super) fn settings(
        &self,
        nics: &[Nic],
        [from, to]: [&str; 2],
        options: &MigrateOptions,
    ) -> Option<CarrySettings> {
        if self.no_carry {
            return None;
        }
        let mut obstacle = options.dname.as_ref().map(|_| OTHER_NAME.to_owned());
        let mut place = |uri: &str, given: &Option<String>| {
            let place = Place::of(uri, given.as_deref());
            place.unwrap_or_else(|reason| {
                obstacle.get_or_insert(reason);
                Place {
                    program: Vec::new(),
                    uri: uri.to_owned(),
                }
            })
        };
        let places = [place(from, &self.carry_from), place(to, &self.carry_to)];
        let bytes = self.carry_limit.saturating_mul(1 << 20);
        Some(CarrySettings {
            taps: self.carry.clone().flatten(),
            places,
            obstacle,
            own: nics.iter().filter_map(|nic| nic.mac).collect(),
            limit_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            max_pause_ms: self.max_pause,
            bandwidth_mib_s: options.bandwidth_mib_s,
        })
    }

    /// It is asked for, and not only done where it can be.
    pub(super) const fn is_asked_for(&self) -> bool {
        self.carry.is_some() && !self.no_carry
    }
}

/// One name of a tap, or two.
fn taps(text: &str) -> Result<[String; 2], String> {
    let (source, destination) = text.split_once('=').unwrap_or((text, text));
    let is_name = |name: &str| {
        let good = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'=');
        (1..16).contains(&name.len()) && name.bytes().all(good)
    };
    if is_name(source) && is_name(destination) {
        Ok([source.to_owned(), destination.to_owned()])
    } else {
        Err("a network device has a name of 1 to 15 letters, digits and signs".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_may_have_another_name_on_the_destination() {
        assert_eq!(taps("tap0"), Ok(["tap0".to_owned(), "tap0".to_owned()]));
        assert_eq!(
            taps("tap0=vnet7"),
            Ok(["tap0".to_owned(), "vnet7".to_owned()])
        );
        for wrong in [
            "",
            "=tap0",
            "tap0=",
            "a b",
            "sixteen-letters-",
            "a=b=c",
            "../x",
        ] {
            assert!(taps(wrong).is_err(), "{wrong}");
        }
    }
}
