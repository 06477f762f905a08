//! `xml check`, `show`, `set` and `clear`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};

use super::connect::Connect;
use super::mac_form;
use super::text_file::read;
use crate::hypervisor::{DomainFacts, DomainLook, DomainState, Host, Nic};
use crate::report::device;
use crate::xml::domain::DomainXml;
use crate::xml::{Bonds, Document};

/// The bonds in a domain's XML.
#[derive(Debug, Subcommand)]
pub enum Xml {
    /// Check a domain's bonds, and show which devices they mean
    Check(Check),
    /// Print a domain's bonds
    Show(Domain),
    /// Write the bonds of a file into a domain's XML, now and for its next start
    Set(Set),
    /// Remove the bonds from a domain's XML; the guest keeps those it has
    Clear(Domain),
}

/// `tandem-host xml check`
#[derive(Debug, Args)]
pub struct Check {
    /// Name of the domain
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub domain: Option<String>,
    /// File with the element `bonds` or a whole domain's XML, instead of a domain
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub connect: Connect,
}

/// `tandem-host xml show`, `tandem-host xml clear`
#[derive(Debug, Args)]
pub struct Domain {
    /// Name of the domain
    pub domain: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub connect: Connect,
}

/// `tandem-host xml set`
#[derive(Debug, Args)]
pub struct Set {
    /// Name of the domain
    pub domain: String,
    /// File with the element `bonds`
    pub file: PathBuf,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub connect: Connect,
}

/// Checks, prints, writes or removes bonds.
///
/// # Errors
/// If the bonds are not sound, with line and element, or the hypervisor refuses.
pub async fn run(command: &Xml) -> Result<u8> {
    match command {
        Xml::Check(Check {
            file: Some(file), ..
        }) => check_file(file)?,
        Xml::Check(Check {
            domain, connect, ..
        }) => {
            let domain = domain.as_deref().unwrap_or_default();
            check_domain(connect.open().as_ref(), domain).await?;
        }
        Xml::Show(Domain { domain, connect }) => {
            let (_, bonds) = bonds_of(connect.open().as_ref(), domain).await?;
            print!("{}", bonds.to_xml());
        }
        Xml::Set(Set {
            domain,
            file,
            connect,
        }) => set(connect.open().as_ref(), domain, file).await?,
        Xml::Clear(Domain { domain, connect }) => connect.open().set_bonds(domain, None).await?,
    }
    Ok(0)
}

async fn set(host: &dyn Host, domain: &str, file: &Path) -> Result<()> {
    let name = || file.display().to_string();
    let document = Document::parse(&read(file)?).with_context(name)?;
    let facts = present(host, domain).await?.facts;
    document.policy(&facts.nics).with_context(name)?;
    host.set_bonds(domain, Some(&document.bonds)).await?;
    describe(&document.bonds, Some(&facts.nics));
    mac_form::warn(domain, host.uri(), &document.bonds, &facts.nics).await;
    Ok(())
}

fn check_file(file: &Path) -> Result<()> {
    let text = read(file)?;
    let name = || file.display().to_string();
    // A file that is no domain's XML is read as bonds, whose errors say what is expected.
    let Ok(domain) = DomainXml::parse(&text) else {
        let document = Document::parse(&text).with_context(name)?;
        describe(&document.bonds, None);
        return Ok(());
    };
    let document = domain
        .bonds
        .with_context(|| format!("{}: there are no <bonds> in its <metadata>", name()))?;
    let document = document.with_context(name)?;
    document.policy(&domain.nics).with_context(name)?;
    describe(&document.bonds, Some(&domain.nics));
    Ok(())
}

async fn check_domain(host: &dyn Host, domain: &str) -> Result<()> {
    let (facts, bonds) = bonds_of(host, domain).await?;
    bonds
        .policy(&facts.nics)
        .with_context(|| format!("the bonds of domain {domain}"))?;
    describe(&bonds, Some(&facts.nics));
    mac_form::warn(domain, host.uri(), &bonds, &facts.nics).await;
    Ok(())
}

async fn bonds_of(host: &dyn Host, domain: &str) -> Result<(DomainFacts, Bonds)> {
    let look = present(host, domain).await?;
    let bonds = look
        .bonds
        .map_err(|reason| anyhow!("the XML of domain {domain}: {reason}"))?;
    let bonds = bonds.with_context(|| {
        format!("domain {domain} has no bonds; give it some by `tandem-host xml set {domain} FILE`")
    })?;
    Ok((look.facts, bonds))
}

/// What is so about a domain that must exist.
async fn present(host: &dyn Host, domain: &str) -> Result<DomainLook> {
    let look = host.look(domain).await?;
    if look.facts.state == DomainState::Absent {
        bail!("domain {domain} does not exist on {}", host.uri());
    }
    Ok(look)
}

/// Which devices the bonds mean, for the operator to see.
fn describe(bonds: &Bonds, nics: Option<&[Nic]>) {
    for bond in &bonds.bonds {
        println!("{}: sound", bond.name);
        let Some(nics) = nics else { continue };
        for (role, nic) in [
            ("standby", bond.standby_device(nics)),
            ("VF", bond.vf(nics)),
        ] {
            match nic {
                Some(nic) => println!("  {role}: {}", device(nic)),
                None => println!("  {role}: the domain has no such device now"),
            }
        }
    }
}
