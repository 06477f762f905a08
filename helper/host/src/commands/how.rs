//! How the hypervisor shall migrate: the options of `virsh migrate`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args};

use crate::hypervisor::{MigrateOptions, OnTimeout, StorageCopy};
use crate::words::printable;

/// How the hypervisor migrates.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("storage").args(["copy_storage_all", "copy_storage_inc"]))]
pub struct How {
    /// URI of the memory transfer, such as `tcp://192.0.2.1`
    #[arg(long, value_name = "URI")]
    pub migrate_uri: Option<String>,
    /// Peer-to-peer migration; the source's libvirtd must reach DESTURI too
    #[arg(long)]
    pub p2p: bool,
    /// Make the domain persistent on the destination
    #[arg(long)]
    pub persistent: bool,
    /// Its persistent XML on the destination, if it differs
    #[arg(long, value_name = "FILE", requires = "persistent")]
    pub persistent_xml: Option<PathBuf>,
    /// Undefine the domain on the source
    #[arg(long)]
    pub undefine_source: bool,
    /// Give the domain this name on the destination
    #[arg(long, value_name = "NAME")]
    pub dname: Option<String>,
    /// Accepted for virsh compatibility: a migration is always live
    #[arg(long)]
    pub live: bool,
    /// Copy all of its disks that are not shared
    #[arg(long)]
    pub copy_storage_all: bool,
    /// Copy what its disks have beyond a base image that is on the destination already
    #[arg(long)]
    pub copy_storage_inc: bool,
    /// Have the guest's writes reach the destination's disk before they are confirmed
    #[arg(long, requires = "storage")]
    pub copy_storage_synchronous_writes: bool,
    /// Only these disks, by target names and with commas between them
    #[arg(long, value_name = "DISKS", requires = "storage")]
    pub migrate_disks: Option<String>,
    /// Several connections for the memory
    #[arg(long)]
    pub parallel: bool,
    /// Number of parallel connections
    #[arg(long, value_name = "NUMBER", requires = "parallel")]
    pub parallel_connections: Option<u32>,
    /// Compress the memory
    #[arg(long)]
    pub compressed: bool,
    /// By these methods, with commas between them, such as `xbzrle`; `zstd` needs --parallel
    #[arg(long, value_name = "METHODS", requires = "compressed")]
    pub comp_methods: Option<String>,
    /// Switch to post-copy after the first pass over the memory, or with --timeout-postcopy later
    #[arg(long)]
    pub postcopy: bool,
    /// Bandwidth limit after the switch to post-copy, in MiB/s
    #[arg(long, value_name = "MIB_PER_S", requires = "postcopy")]
    pub postcopy_bandwidth: Option<u64>,
    /// Pause the guest if the migration takes longer, in s, so that it ends
    #[arg(long, value_name = "S")]
    pub timeout: Option<u64>,
    /// With --timeout: pause the guest (the default)
    #[arg(long, requires = "timeout", conflicts_with = "timeout_postcopy")]
    pub timeout_suspend: bool,
    /// Switch to post-copy only when it takes longer than --timeout
    #[arg(long, requires_all = ["timeout", "postcopy"])]
    pub timeout_postcopy: bool,
    /// Slow the guest down until its memory converges
    #[arg(long)]
    pub auto_converge: bool,
    /// Bandwidth limit in MiB/s
    #[arg(long, value_name = "MIB_PER_S")]
    pub bandwidth: Option<u64>,
    /// Encrypt the migration (TLS)
    #[arg(long)]
    pub tls: bool,
    /// The destination's name in its certificate, if it is not its host's
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub tls_destination: Option<String>,
    /// Migrate although libvirt thinks that it may harm the disks' data
    #[arg(long)]
    pub r#unsafe: bool,
    /// Further options for `virsh migrate`, as it has them
    #[arg(last = true, value_name = "VIRSH_OPTION")]
    pub more: Vec<String>,
}

/// Options of `virsh migrate` that are refused after the `--`, and why.
const REFUSED: [(&[&str], &str); 4] = [
    (
        &["suspend", "offline"],
        "the guest has to run on the destination to take its VF into use",
    ),
    (&["domain", "desturi"], "both are named before the `--`"),
    (
        &["help", "verbose", "postcopy-resume"],
        "it does not start a migration, or hides how it goes; one whose post-copy broke off is resumed by itself, or by \
         `tandem-host recover`",
    ),
    (
        &[
            "live",
            "p2p",
            "persistent",
            "persistent-xml",
            "undefinesource",
            "dname",
            "copy-storage-all",
            "copy-storage-inc",
            "copy-storage-synchronous-writes",
            "migrate-disks",
            "parallel",
            "parallel-connections",
            "compressed",
            "comp-methods",
            "postcopy",
            "postcopy-after-precopy",
            "postcopy-bandwidth",
            "timeout",
            "timeout-suspend",
            "timeout-postcopy",
            "auto-converge",
            "bandwidth",
            "tls",
            "tls-destination",
            "unsafe",
            "xml",
            "migrateuri",
        ],
        "tandem-host has an option of its own for it: write that before the `--`",
    ),
];

impl How {
    /// For the hypervisor; `xml` is the domain's XML on the destination.
    ///
    /// # Errors
    /// If words after the `--` would break the evacuation's order, or a path is not UTF-8.
    pub fn options(&self, xml: Option<String>) -> anyhow::Result<MigrateOptions> {
        let persistent_xml = self.persistent_xml.as_deref().map(|path| {
            let path = path
                .to_str()
                .context("--persistent-xml: the path is not UTF-8")?;
            Ok::<_, anyhow::Error>(path.to_owned())
        });
        Ok(MigrateOptions {
            xml,
            migrate_uri: self.migrate_uri.clone(),
            peer_to_peer: self.p2p,
            persistent: self.persistent,
            persistent_xml: persistent_xml.transpose()?,
            undefine_source: self.undefine_source,
            dname: self.dname.clone(),
            resume_postcopy: false,
            storage: match (self.copy_storage_all, self.copy_storage_inc) {
                (true, _) => Some(StorageCopy::All),
                (_, true) => Some(StorageCopy::Incremental),
                _ => None,
            },
            storage_synchronous: self.copy_storage_synchronous_writes,
            disks: self.migrate_disks.clone(),
            parallel: self.parallel,
            parallel_connections: self.parallel_connections,
            compressed: self.compressed,
            compression_methods: self.comp_methods.clone(),
            postcopy: self.postcopy,
            postcopy_bandwidth_mib_s: self.postcopy_bandwidth,
            timeout: self.timeout.map(|seconds| match self.timeout_postcopy {
                true => (seconds, OnTimeout::PostCopy),
                false => (seconds, OnTimeout::Suspend),
            }),
            auto_converge: self.auto_converge,
            bandwidth_mib_s: self.bandwidth,
            tls: self.tls,
            tls_destination: self.tls_destination.clone(),
            is_unsafe: self.r#unsafe,
            more: passed_on(&self.more)?,
        })
    }
}

/// Options for `virsh migrate` that leave the evacuation's order as it is, each with its value in one word: virsh
/// would take a word that stands alone for the value of an option that was not named.
fn passed_on(words: &[String]) -> anyhow::Result<Vec<String>> {
    let mut options: Vec<String> = Vec::new();
    for word in words {
        let Some(option) = word.strip_prefix("--").filter(|name| !name.is_empty()) else {
            match options.last_mut().filter(|last| !last.contains('=')) {
                Some(last) if !word.starts_with('-') => {
                    *last = format!("{last}={word}");
                    continue;
                }
                _ => bail!(
                    "`{}` after the `--` is no option of `virsh migrate`, which begins with `--`",
                    printable(word)
                ),
            }
        };
        let name = option.split('=').next().unwrap_or_default();
        let refused = REFUSED.iter().find(|(names, _)| names.contains(&name));
        if let Some((_, why)) = refused {
            bail!("--{name} is not passed on to `virsh migrate`: {why}");
        }
        options.push(word.clone());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    fn of(words: &[&str]) -> anyhow::Result<MigrateOptions> {
        let command = How::augment_args(clap::Command::new("migrate").no_binary_name(true));
        let how = How::from_arg_matches(&command.get_matches_from(words))?;
        how.options(Some("<domain/>".to_owned()))
    }

    #[test]
    fn each_option_reaches_the_hypervisor() {
        let plain = MigrateOptions {
            xml: Some("<domain/>".to_owned()),
            ..MigrateOptions::default()
        };
        assert_eq!(of(&[]).unwrap(), plain);
        assert_eq!(of(&["--live"]).unwrap(), plain);
        type Change = fn(&mut MigrateOptions);
        let options: [(&[&str], Change); 20] = [
            (&["--p2p"], |it| it.peer_to_peer = true),
            (&["--persistent"], |it| it.persistent = true),
            (&["--persistent", "--persistent-xml", "/p.xml"], |it| {
                it.persistent = true;
                it.persistent_xml = Some("/p.xml".to_owned());
            }),
            (&["--undefine-source"], |it| it.undefine_source = true),
            (&["--dname", "g2"], |it| it.dname = Some("g2".to_owned())),
            (&["--copy-storage-all"], |it| {
                it.storage = Some(StorageCopy::All);
            }),
            (
                &["--copy-storage-inc", "--copy-storage-synchronous-writes"],
                |it| {
                    it.storage = Some(StorageCopy::Incremental);
                    it.storage_synchronous = true;
                },
            ),
            (
                &["--copy-storage-all", "--migrate-disks", "vda,vdb"],
                |it| {
                    it.storage = Some(StorageCopy::All);
                    it.disks = Some("vda,vdb".to_owned());
                },
            ),
            (&["--parallel"], |it| it.parallel = true),
            (&["--parallel", "--parallel-connections", "4"], |it| {
                it.parallel = true;
                it.parallel_connections = Some(4);
            }),
            (&["--compressed", "--comp-methods", "xbzrle"], |it| {
                it.compressed = true;
                it.compression_methods = Some("xbzrle".to_owned());
            }),
            (&["--postcopy"], |it| it.postcopy = true),
            (&["--postcopy", "--postcopy-bandwidth", "9"], |it| {
                it.postcopy = true;
                it.postcopy_bandwidth_mib_s = Some(9);
            }),
            (&["--timeout", "9"], |it| {
                it.timeout = Some((9, OnTimeout::Suspend));
            }),
            (
                &["--postcopy", "--timeout", "9", "--timeout-postcopy"],
                |it| {
                    it.postcopy = true;
                    it.timeout = Some((9, OnTimeout::PostCopy));
                },
            ),
            (&["--auto-converge"], |it| it.auto_converge = true),
            (&["--tls", "--tls-destination", "b"], |it| {
                it.tls = true;
                it.tls_destination = Some("b".to_owned());
            }),
            (&["--bandwidth", "7"], |it| it.bandwidth_mib_s = Some(7)),
            (&["--unsafe"], |it| it.is_unsafe = true),
            (&["--migrate-uri", "tcp://b"], |it| {
                it.migrate_uri = Some("tcp://b".to_owned());
            }),
        ];
        for (words, change) in options {
            let mut wanted = plain.clone();
            change(&mut wanted);
            assert_eq!(of(words).unwrap(), wanted, "{words:?}");
        }
    }

    #[test]
    fn what_stands_after_two_dashes_is_passed_on_unless_it_breaks_the_order() {
        for (words, told) in [
            (&["--", "--rdma-pin-all"][..], &["--rdma-pin-all"][..]),
            (
                &["--", "--listen-address", "192.0.2.1", "--abort-on-error"],
                &["--listen-address=192.0.2.1", "--abort-on-error"],
            ),
            (
                &["--", "--comp-zstd-level=3", "--disks-port", "7"],
                &["--comp-zstd-level=3", "--disks-port=7"],
            ),
        ] {
            assert_eq!(of(words).unwrap().more, told, "{words:?}");
        }
        for (words, why) in [
            (&["--", "--suspend"][..], "has to run"),
            (&["--", "--offline"], "has to run"),
            (&["--", "--dname=g2"], "option of its own"),
            (&["--", "--postcopy-resume"], "tandem-host recover"),
            (&["--", "--desturi", "qemu:///system"], "before the `--`"),
            (&["--", "--undefinesource"], "option of its own"),
            (&["--", "--xml=/dev/zero"], "option of its own"),
            (&["--", "--help"], "does not start"),
            (&["--", "tcp://b"], "is no option"),
            (&["--", "--disks-port", "1", "b"], "is no option"),
            (&["--", "--disks-port=1", "b"], "is no option"),
            (&["--", "--zerocopy", "-c"], "is no option"),
            (&["--", "--", "--suspend"], "is no option"),
        ] {
            let error = of(words).unwrap_err().to_string();
            assert!(error.contains(why), "{words:?}: {error}");
        }
    }
}
