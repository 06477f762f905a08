//! Arguments of `migrate`, `recover`, `prepare` and `resume`.

use std::path::PathBuf;

use clap::Args;

use crate::commands::carry::Carry;
use crate::commands::connect::{Connect, typed};
use crate::commands::how::How;
use crate::commands::text_file::NamedFile;
use crate::evacuate::{Cause, CauseCode, Limits};
use crate::execute::{Lock, Records, RecordsError, default_records_folder};
use crate::files::default_folder;

/// What all commands share.
#[derive(Debug, Clone, Args)]
pub struct Common {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub connect: Connect,
    /// Folder of lock files
    #[arg(long, default_value_os_t = default_folder(), value_name = "FOLDER")]
    pub state_dir: PathBuf,
    /// Where this host keeps its own records of evacuations; nobody else may write there
    #[arg(long, default_value_os_t = default_records_folder(), value_name = "FOLDER")]
    pub records_dir: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

impl Common {
    /// Keeps every other evacuation of the domain on this host away.
    pub(super) fn lock(&self, domain: &str) -> Result<Lock, Cause> {
        Lock::take(&self.state_dir, "domain", domain)
            .map_err(|error| Cause::new(CauseCode::Claimed, error.to_string()))
    }

    /// This host's own records.
    pub(super) fn records(&self) -> Result<Records, Cause> {
        Records::open(&self.records_dir).map_err(not_written)
    }
}

/// Without a record, nothing that was begun could be finished after a kill.
pub(super) fn not_written(error: RecordsError) -> Cause {
    Cause::new(CauseCode::RecordNotWritten, error.to_string())
}

/// `tandem-host migrate`
#[derive(Debug, Clone, Args)]
pub struct Migrate {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub evacuation: Evacuation,
    /// Check all that `check` does, print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// An evacuation as it is asked for: `tandem-host migrate`, `tandem-host check`
#[derive(Debug, Clone, Args)]
pub struct Evacuation {
    /// Name of the domain
    pub domain: String,
    /// Destination: a libvirt URI, or qmp:SOCKET[,agent=SOCKET]
    #[arg(value_name = "DESTURI", value_parser = typed)]
    pub destination: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub common: Common,
    /// The destination's VF: a file with its `<interface>` or `<hostdev>` (QEMU: JSON for `device_add`); once for each
    /// bond, by its name if neither alias nor MAC tells which
    #[arg(long, value_name = "[BOND=]FILE", value_parser = NamedFile::parse)]
    pub vf: Vec<NamedFile>,
    /// Another pass-through device to let go, by alias; may be repeated
    #[arg(long, value_name = "ALIAS")]
    pub detach: Vec<String>,
    /// What comes on the destination in place of a device that is let go; may be repeated
    #[arg(long, value_name = "ALIAS=FILE", value_parser = NamedFile::parse)]
    pub device: Vec<NamedFile>,
    /// The domain's XML on the destination, if it differs
    #[arg(long, value_name = "FILE")]
    pub xml: Option<PathBuf>,
    /// Only this bond of those in the domain's XML; what the others have has to be let go by --detach
    #[arg(long, value_name = "NAME")]
    pub bond: Option<String>,
    /// The source's VF, by alias or MAC, if the domain's XML does not tell
    #[arg(long, value_name = "ALIAS|MAC")]
    pub source_vf: Option<String>,
    /// Go on if the guest does not answer or no VF is given for the destination
    #[arg(long)]
    pub yes_degraded: bool,
    /// Do not ask the guest
    #[arg(long)]
    pub no_agent: bool,
    /// A device that the hypervisor can migrate itself, by alias, such as a pass-through one or a file system; it stays attached; may be repeated
    #[arg(long, value_name = "ALIAS")]
    pub migratable: Vec<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub how: How,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub carry: Carry,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub timeouts: Timeouts,
}

/// Longest time that can be asked for, in s: 30 days.
const LONGEST_S: u64 = 30 * 86_400;

/// A time in s.
fn seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(..=LONGEST_S)
}

/// How long things may take.
#[derive(Debug, Clone, Args)]
pub struct Timeouts {
    /// Limit for the guest to release the VF, in s
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = seconds())]
    pub unplug_timeout: u64,
    /// Limit for the migration, in s; then it is cancelled
    #[arg(long, default_value_t = 3600, value_name = "S", value_parser = seconds())]
    pub migrate_timeout: u64,
    /// Limit for plugging in a VF, on either host, in s
    #[arg(long, default_value_t = 120, value_name = "S", value_parser = seconds())]
    pub plug_timeout: u64,
    /// How long to wait for the guest to use the new VF, in s
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = seconds())]
    pub verify_timeout: u64,
}

/// `tandem-host recover`
#[derive(Debug, Clone, Args)]
pub struct Recover {
    /// Name of the domain
    pub domain: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub common: Common,
    /// Where the domain came from, if this host has no record of its own, or a wrong one; without
    /// --destination, the domain came to the host of --connect
    #[arg(long, value_name = "URI", value_parser = typed)]
    pub source: Option<String>,
    /// Where it was to go; without --source, it came from the host of --connect
    #[arg(long, value_name = "URI", value_parser = typed)]
    pub destination: Option<String>,
    /// The VF where the domain runs now: a file with its `<interface>` or `<hostdev>` (QEMU: JSON for `device_add`); once
    /// for each bond
    #[arg(long, value_name = "[BOND=]FILE", value_parser = NamedFile::parse)]
    pub vf: Vec<NamedFile>,
    /// A device of no bond where the domain runs now, in place of the one that was let go; may be repeated
    #[arg(long, value_name = "ALIAS=FILE", value_parser = NamedFile::parse)]
    pub device: Vec<NamedFile>,
    /// URI of the memory transfer, to go on with a post-copy that broke off
    #[arg(long, value_name = "URI")]
    pub migrate_uri: Option<String>,
    /// Go on with it peer to peer, if it was begun so
    #[arg(long)]
    pub p2p: bool,
    /// Continue without a VF if neither --vf nor this host's own record names one
    #[arg(long)]
    pub yes_degraded: bool,
    /// Don't ask the guest at all
    #[arg(long)]
    pub no_agent: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub timeouts: Timeouts,
}

/// `tandem-host prepare`, `tandem-host resume`
#[derive(Debug, Clone, Args)]
pub struct OneStep {
    /// Name of the domain
    pub domain: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub common: Common,
    /// The bond, if the guest has several
    #[arg(long, value_name = "NAME")]
    pub bond: Option<String>,
}

impl Timeouts {
    /// With the usual values for all else.
    pub fn limits(&self) -> Limits {
        let ms = |seconds: u64| seconds.saturating_mul(1000);
        Limits {
            unplug_ms: ms(self.unplug_timeout),
            migrate_ms: ms(self.migrate_timeout),
            plug_ms: ms(self.plug_timeout),
            restore_ms: ms(self.plug_timeout),
            verify_ms: ms(self.verify_timeout),
            ..Limits::default()
        }
    }
}

/// What clap makes of these words of `tandem-host migrate`.
#[cfg(test)]
pub(crate) fn parse_migrate(words: &[&str]) -> Evacuation {
    use clap::FromArgMatches as _;
    let command = Migrate::augment_args(clap::Command::new("migrate").no_binary_name(true));
    let migrate = Migrate::from_arg_matches(&command.get_matches_from(words));
    migrate.expect("all that is required").evacuation
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    #[test]
    fn no_time_is_so_long_that_it_wraps() {
        let command = Migrate::augment_args(clap::Command::new("migrate").no_binary_name(true));
        let with = |time: &str| {
            let words = ["g1", "qemu+ssh://b/system", "--migrate-timeout", time];
            command.clone().try_get_matches_from(words)
        };
        assert!(with("18446744073709551615").is_err());
        let longest = with(&LONGEST_S.to_string()).unwrap();
        let limits = Migrate::from_arg_matches(&longest)
            .unwrap()
            .evacuation
            .timeouts
            .limits();
        assert_eq!(limits.migrate_ms, LONGEST_S * 1000);
        let opened = ["g1", "qemu+ext:///system?command=id"];
        assert!(command.clone().try_get_matches_from(opened).is_err());
    }

    #[test]
    fn each_time_reaches_the_evacuation() {
        let limits = parse_migrate(&[
            "g1",
            "qemu+ssh://b/system",
            "--unplug-timeout",
            "1",
            "--migrate-timeout",
            "2",
            "--plug-timeout",
            "3",
            "--verify-timeout",
            "4",
        ]);
        let limits = limits.timeouts.limits();
        let times = [
            limits.unplug_ms,
            limits.migrate_ms,
            limits.plug_ms,
            limits.restore_ms,
        ];
        assert_eq!((times, limits.verify_ms), ([1000, 2000, 3000, 3000], 4000));
    }
}
