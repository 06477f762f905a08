//! Arguments of `migrate`, `recover`, `prepare` and `resume`.

use std::path::PathBuf;

use clap::Args;

use crate::act::default_folder;
use crate::commands::connect::Connect;
use crate::decide::Limits;
use crate::hypervisor::MigrateOptions;

/// What all commands share.
#[derive(Debug, Clone, Args)]
pub struct Common {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub connect: Connect,
    /// Where lock files and copies of records are kept
    #[arg(long, default_value_os_t = default_folder(), value_name = "FOLDER")]
    pub state_dir: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// `tandem-host migrate`
#[derive(Debug, Clone, Args)]
pub struct Migrate {
    /// The domain
    pub domain: String,
    /// The destination: a libvirt URI, or qmp:SOCKET[,agent=SOCKET]
    #[arg(value_name = "DESTURI")]
    pub destination: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub common: Common,
    /// The destination's VF: a file with its `<interface>` or `<hostdev>` (QEMU: JSON for `device_add`)
    #[arg(long, value_name = "FILE")]
    pub vf: Option<PathBuf>,
    /// The domain's XML on the destination, if it differs
    #[arg(long, value_name = "FILE")]
    pub xml: Option<PathBuf>,
    /// Which bond, if the domain's XML has several
    #[arg(long, value_name = "NAME")]
    pub bond: Option<String>,
    /// Which NIC is the VF on the source, by alias or MAC, if the domain's XML has no bond
    #[arg(long, value_name = "ALIAS|MAC")]
    pub source_vf: Option<String>,
    /// Go on if the guest's agent does not answer, or no VF is named for the destination
    #[arg(long)]
    pub yes_degraded: bool,
    /// Don't ask the guest at all
    #[arg(long)]
    pub no_agent: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub how: How,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub timeouts: Timeouts,
}

/// How the hypervisor migrates.
#[derive(Debug, Clone, Args)]
pub struct How {
    /// Where the memory goes, such as `tcp://192.0.2.1`
    #[arg(long, value_name = "URI")]
    pub migrate_uri: Option<String>,
    /// The hosts' libvirtds talk to each other
    #[arg(long)]
    pub p2p: bool,
    /// The domain becomes persistent on the destination
    #[arg(long)]
    pub persistent: bool,
    /// Its definition is removed from the source
    #[arg(long)]
    pub undefine_source: bool,
    /// Live; this is always so, and taken for the sake of habit
    #[arg(long)]
    pub live: bool,
    /// Switch to post-copy after the first pass over the memory
    #[arg(long)]
    pub postcopy: bool,
    /// Slow the guest down until its memory converges
    #[arg(long)]
    pub auto_converge: bool,
    /// Limit in MiB/s
    #[arg(long, value_name = "MIB_PER_S")]
    pub bandwidth: Option<u64>,
    /// Encrypt
    #[arg(long)]
    pub tls: bool,
}

/// How long things may take.
#[derive(Debug, Clone, Args)]
pub struct Timeouts {
    /// For the guest to release the VF, in s
    #[arg(long, default_value_t = 60, value_name = "S")]
    pub unplug_timeout: u64,
    /// For the migration, in s; then it is cancelled
    #[arg(long, default_value_t = 3600, value_name = "S")]
    pub migrate_timeout: u64,
    /// For plugging in, on either host, in s
    #[arg(long, default_value_t = 120, value_name = "S")]
    pub plug_timeout: u64,
    /// For the guest to take the VF into use, in s
    #[arg(long, default_value_t = 60, value_name = "S")]
    pub verify_timeout: u64,
}

/// `tandem-host recover`
#[derive(Debug, Clone, Args)]
pub struct Recover {
    /// The domain
    pub domain: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub common: Common,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub timeouts: Timeouts,
}

/// `tandem-host prepare`, `tandem-host resume`
#[derive(Debug, Clone, Args)]
pub struct OneStep {
    /// The domain
    pub domain: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub common: Common,
    /// Which bond, if the guest has several
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

impl How {
    /// For the hypervisor; `xml` is the domain's XML on the destination.
    pub fn options(&self, xml: Option<String>) -> MigrateOptions {
        MigrateOptions {
            xml,
            migrate_uri: self.migrate_uri.clone(),
            peer_to_peer: self.p2p,
            persistent: self.persistent,
            undefine_source: self.undefine_source,
            postcopy: self.postcopy,
            auto_converge: self.auto_converge,
            bandwidth_mib_s: self.bandwidth,
            tls: self.tls,
        }
    }
}
