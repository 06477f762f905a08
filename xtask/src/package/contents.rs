//! The files of a package, as its Cargo.toml lists them for cargo-deb.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Package;
use crate::project;

/// What cargo-deb takes for the folder that was built into, whatever its name.
const BUILT: &str = "target/release/";

/// A file and where it is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asset {
    /// On this machine.
    pub(super) source: PathBuf,
    /// Without a leading slash.
    pub(super) target: String,
    /// In octal.
    pub(super) mode: String,
}

/// The list of a package, whose program is in the folder `built`.
pub(super) fn assets(package: Package, built: &Path) -> Result<Vec<Asset>> {
    let metadata = project::metadata()?;
    let packages = metadata["packages"].as_array();
    let mut packages = packages.context("cargo metadata names no packages")?.iter();
    let ours = packages
        .find(|one| one["name"] == package.crate_name())
        .with_context(|| format!("there is no {}", package.crate_name()))?;
    let manifest = ours["manifest_path"].as_str().map(Path::new);
    let folder = manifest
        .and_then(Path::parent)
        .context("a manifest without a folder")?;
    let list = ours["metadata"]["deb"]["assets"].as_array();
    let list = list.with_context(|| format!("{} lists no assets", package.crate_name()))?;
    list.iter()
        .map(|one| asset(one, folder, built).with_context(|| format!("not an asset: {one}")))
        .collect()
}

fn asset(listed: &Value, folder: &Path, built: &Path) -> Option<Asset> {
    let word = |index: usize| listed[index].as_str();
    let source = word(0)?;
    Some(Asset {
        source: match source.strip_prefix(BUILT) {
            Some(made) => built.join(made),
            None => folder.join(source),
        },
        target: word(1)?.to_owned(),
        mode: word(2)?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tandem_lab::artifacts::cache;
    use tandem_lab::full_guest::install;

    use super::*;

    #[test]
    fn the_guests_package_has_every_file_that_the_lab_installs() {
        let assets = assets(Package::Tandem, Path::new("/built")).unwrap();
        let by_target: BTreeMap<_, _> = assets
            .iter()
            .map(|asset| (format!("/{}", asset.target), asset))
            .collect();
        for (from, to) in install::FILES.iter().chain(install::DRACUT_FILES) {
            let asset = by_target.get(*to).unwrap_or_else(|| panic!("no {to}"));
            let same = |path: &Path| path.canonicalize().unwrap();
            assert_eq!(same(&asset.source), same(&install::source(from)));
            let is_script = to.ends_with(".sh");
            assert_eq!(asset.mode, if is_script { "755" } else { "644" }, "{to}");
        }
        let program = by_target["/usr/bin/tandem"];
        assert_eq!(program.source, Path::new("/built/tandem"));
        assert_eq!(program.mode, "755");
    }

    #[test]
    fn what_is_not_built_is_there() {
        for package in [Package::Tandem, Package::TandemHost] {
            let assets = assets(package, Path::new("/built")).unwrap();
            let ours = assets
                .iter()
                .filter(|asset| !asset.source.starts_with("/built"));
            for asset in ours {
                assert!(asset.source.is_file(), "{asset:?}");
                assert!(asset.source.starts_with(cache::workspace_folder()));
            }
        }
    }
}
