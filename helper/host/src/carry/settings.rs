//! How the halves are started.

use tandem_carry::Limits;
use tandem_core::types::Mac;

use super::pace::HOLD_MS;
use super::place::{self, Place};
use crate::evacuate::Side;

/// How long the guest may take to empty its tap's queue once frames are held, in ms: they are late by that, but what is in the
/// queue at the stop is lost.
const DRAIN_MS: u64 = 1_000;
/// How long a frame may be under way from the switch that has learnt to the source's hold, in ms: a busy host gets to it late, and
/// what comes after the native frames is out of order.
const STRAGGLE_MS: u64 = 20;
/// How long the destination half waits for a guest that has arrived to run, in ms. It costs nothing: until then nobody could take
/// a frame.
const RESUME_MS: u64 = 10_000;

/// A carry that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarrySettings {
    /// The taps of the guest's standby, on the source and on the destination; `None` if the hypervisors are to be asked. Where
    /// the domain goes to, they know once the migration has begun.
    pub taps: Option<[String; 2]>,
    /// Where each half runs.
    pub places: [Place; 2],
    /// Why there can't be one.
    pub obstacle: Option<String>,
    /// The guest's MACs.
    pub own: Vec<Mac>,
    /// The most memory for frames of one half, in bytes.
    pub limit_bytes: usize,
    /// The longest that the guest shall stand still, in ms.
    pub max_pause_ms: u64,
    /// How fast the migration may copy, in MiB/s, if that is limited.
    pub bandwidth_mib_s: Option<u64>,
}

/// What one half is told by its command line.
#[derive(Debug, Clone, clap::Args)]
pub struct HalfArguments {
    /// The host it is on
    #[arg(value_parser = side)]
    pub side: Side,
    /// The tap of the guest's standby
    #[arg(required_unless_present = "check")]
    pub tap: Option<String>,
    /// The domain
    #[arg(long)]
    pub domain: String,
    /// A MAC of the guest; may be repeated
    #[arg(long, value_name = "MAC")]
    pub own: Vec<Mac>,
    /// The most memory for frames, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().bytes)]
    pub limit: usize,
    /// The longest that the guest shall stand still, in ms
    #[arg(long, value_name = "MS", default_value_t = 300)]
    pub max_pause: u64,
    /// How fast the migration may copy once it is not slowed down for the carry, in bytes per second
    #[arg(long, value_name = "BYTES_PER_S")]
    pub speed: Option<u64>,
    /// The longest that the source holds frames from a guest that still runs, in ms; at most 2000 more while it asks whether the
    /// guest has stopped
    #[arg(long, value_name = "MS", default_value_t = Limits::default().hold_ms, value_parser = clap::value_parser!(u64).range(1..=HOLD_MS))]
    pub hold_limit: u64,
    /// Only say whether a half could do its work, with the tap, or if none is named with one of its own
    #[arg(long)]
    pub check: bool,
    /// There is no other half: what is held on the source goes to the network once the guest is heard from elsewhere
    #[arg(long)]
    pub without_destination: bool,
}

fn side(word: &str) -> Result<Side, String> {
    let found = Side::BOTH.into_iter().find(|side| side.as_str() == word);
    found.ok_or_else(|| "either source or destination".to_owned())
}

impl HalfArguments {
    /// The bounds of its machine.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            bytes: self.limit,
            // The destination is not told how long the source holds, and does not end before it.
            hold_ms: match self.side {
                Side::Source => self.hold_limit,
                Side::Destination => HOLD_MS,
            },
            drain_ms: DRAIN_MS,
            resume_ms: RESUME_MS,
            straggle_ms: STRAGGLE_MS,
            ..Limits::default()
        }
    }
}

impl CarrySettings {
    /// The command that starts one half.
    pub(super) fn command(&self, side: Side, tap: &str, domain: &str) -> Vec<String> {
        let own = self
            .own
            .iter()
            .flat_map(|mac| ["--own".to_owned(), mac.to_string()]);
        let mut words = vec!["--limit".to_owned(), self.limit_bytes.to_string()];
        words.extend(["--max-pause".to_owned(), self.max_pause_ms.to_string()]);
        words.extend(own);
        self.half(side, Some(tap), domain, words)
    }

    /// The command that says whether that half could do its work.
    pub(super) fn check_command(&self, side: Side, tap: Option<&str>, domain: &str) -> Vec<String> {
        self.half(side, tap, domain, vec!["--check".to_owned()])
    }

    fn half(&self, side: Side, tap: Option<&str>, domain: &str, more: Vec<String>) -> Vec<String> {
        let Place { program, uri } = &self.places[usize::from(side == Side::Destination)];
        let mut words = vec!["carry-half".to_owned(), side.as_str().to_owned()];
        words.extend(tap.map(str::to_owned));
        words.extend(["--domain".to_owned(), domain.to_owned()]);
        words.extend(["--connect".to_owned(), uri.to_owned()]);
        words.extend(more);
        place::command(program, words)
    }
}
