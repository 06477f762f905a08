//! `tandem-host migrate`

use std::path::Path;

use anyhow::Context as _;

use super::plan::plan_of;
use super::{args, connect, exit, session};
use crate::act::{Hosts, Lock, Runner};
use crate::decide::{Evacuation, Start};
use crate::hypervisor::DomainState;
use crate::report::plan_text;
use crate::xml::domain::DomainXml;

/// Longest file that is read: libvirt's own bound of an XML is larger than any real one.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Evacuates the domain; returns the exit code.
///
/// # Errors
/// If nothing could be begun.
pub async fn run(arguments: &args::Migrate) -> anyhow::Result<u8> {
    let device = arguments.vf.as_deref().map(read).transpose()?;
    let xml = arguments.xml.as_deref().map(read).transpose()?;
    let options = arguments.how.options(xml);
    let limits = arguments.timeouts.limits();
    let hosts = Hosts {
        source: arguments.common.connect.open(),
        destination: connect::open(&arguments.destination),
    };
    let name = arguments.domain.as_str();
    let facts = hosts.source.domain(name).await?;
    if facts.state == DomainState::Absent {
        eprintln!(
            "refused: there is no domain {name} on {}; `virsh list --all` shows those that are",
            arguments.common.connect.uri
        );
        return Ok(exit::REFUSED);
    }
    let bonds = hosts.source.bonds(name).await?;
    if bonds.is_some() && options.xml.as_deref().is_some_and(lacks_bonds) {
        eprintln!(
            "refused: the XML of --xml has no <bonds>, so {name} would lose its bond there; add those that \
             `tandem-host xml show {name}` shows"
        );
        return Ok(exit::REFUSED);
    }
    let plan = plan_of(arguments, &facts, bonds.as_ref(), device.as_deref())?;
    if arguments.dry_run {
        print!("{}", plan_text(&plan, &limits, &options));
        return Ok(0);
    }
    let policy = bonds.map(|bonds| bonds.policy(&facts.nics)).transpose()?;
    let lock = match Lock::take(&arguments.common.state_dir, "domain", name) {
        Ok(lock) => lock,
        Err(error) => {
            eprintln!("refused: {error}");
            return Ok(exit::REFUSED);
        }
    };
    let start = Start {
        plan,
        limits,
        evacuation: session::random_name()?,
        owner: session::owner()?,
    };
    let runner = Runner {
        hosts,
        migrate: options,
        policy,
        folder: arguments.common.state_dir.clone(),
        lock,
        lessor: arguments.common.connect.lessor(),
    };
    session::run(runner, Evacuation::new(start, 0), arguments.common.json).await
}

/// libvirt takes the metadata on the destination from this XML. One that can't be read
/// is refused by whoever reads it next.
fn lacks_bonds(xml: &str) -> bool {
    DomainXml::parse(xml).is_ok_and(|domain| domain.bonds.is_none())
}

fn read(path: &Path) -> anyhow::Result<String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).with_context(|| format!("{}", path.display()))?;
    let mut text = String::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    read.with_context(|| format!("{}", path.display()))?;
    anyhow::ensure!(
        text.len() as u64 <= MAX_FILE_BYTES,
        "{} is longer than {MAX_FILE_BYTES} bytes",
        path.display()
    );
    Ok(text)
}
