//! What packages have that stands in no file: manual pages, completions, an example, the licences of others.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tandem_lab::{command, readme};

use super::{Package, third_party};
use crate::manual;

/// The page whose configuration file is complete.
const GUIDE: &str = "docs/guide.md";

const PACK_LIMIT: Duration = Duration::from_secs(30);

/// Writes them for a package: `man/`, a folder for each shell, `third-party/`, `tandem.toml`.
pub(super) fn write(package: Package, folder: &Path) -> Result<()> {
    manual::man_into(folder)?;
    pack_pages(&folder.join("man"))?;
    put(&folder.join("tandem.toml"), &example()?)?;
    let notices = third_party::notices(package.crate_name())?;
    put(
        &folder.join(format!("third-party/{}.txt", package.name())),
        &notices,
    )
}

/// Manual pages are installed packed.
fn pack_pages(folder: &Path) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let page = entry.context("cannot read a folder")?.path();
        if page.extension().is_some_and(|end| end != "gz") {
            let mut gzip = Command::new("gzip");
            gzip.args(["--best", "--no-name", "--force"]).arg(&page);
            command::run(&mut gzip, PACK_LIMIT)?;
        }
    }
    Ok(())
}

/// The guide's, which the suite `lab-readme` has the guest take.
fn example() -> Result<String> {
    let pages = readme::pages()?;
    let guide = pages.iter().find(|page| page.name == GUIDE);
    let text = &guide.with_context(|| format!("there is no {GUIDE}"))?.text;
    let blocks = readme::blocks(text, "toml");
    let example = blocks.first();
    Ok(example
        .with_context(|| format!("{GUIDE} shows no configuration"))?
        .clone())
}

fn put(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
