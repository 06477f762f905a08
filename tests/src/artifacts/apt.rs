//! A private apt configuration: other suites of the machine's own archive, with lists and cache of its
//! own. apt checks each suite's signature and each package's hash; the machine's apt state is not touched.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cache::Cache;
use super::sources::{self, AptSource};
use crate::command;

const UPDATE_LIMIT: Duration = Duration::from_secs(300);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1200);
/// Package lists are used for this long.
const LIST_AGE_LIMIT: Duration = Duration::from_secs(24 * 3600);
const QUERY_LIMIT: Duration = Duration::from_secs(60);

/// A suite of the Debian archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Debian 12.
    Bookworm,
    /// Newer packages for Debian 12.
    BookwormBackports,
    /// Debian 13.
    Trixie,
    /// Newer packages for Debian 13.
    TrixieBackports,
    /// Debian testing, which becomes Debian 14.
    Forky,
}

impl Suite {
    /// The archive's name for the suite.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::BookwormBackports => "bookworm-backports",
            Self::Trixie => "trixie",
            Self::TrixieBackports => "trixie-backports",
            Self::Forky => "forky",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Debian {}", self.name())
    }
}

/// apt with the lab's own sources, lists and cache.
#[derive(Debug)]
pub struct PrivateApt {
    folder: PathBuf,
}

impl PrivateApt {
    /// The configuration of one suite alone, its lists fetched if they were not yet.
    pub fn of_suite(cache: &Cache, suite: Suite) -> Result<Self> {
        Self::of_suites(cache, suite.name(), &[suite.name()])
    }

    /// The configuration `name` over several suites. Package lists older than a day are fetched anew:
    /// an archive does not keep what they name for ever.
    pub fn of_suites(cache: &Cache, name: &str, suites: &[&str]) -> Result<Self> {
        let name = format!("apt-{name}");
        let _lock = cache.lock(&name)?;
        let apt = Self {
            folder: cache.root().join(name),
        };
        let wanted = stanza(&sources::debian_source()?, suites);
        let known = fs::read_to_string(apt.sources_file()).unwrap_or_default();
        let stamp = apt.folder.join("updated");
        if known == wanted && is_younger(&stamp, LIST_AGE_LIMIT) {
            return Ok(apt);
        }
        for path in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.folder.join(path)).context("cannot create apt's folders")?;
        }
        fs::write(apt.sources_file(), wanted).context("cannot write the private apt sources")?;
        let mut update = apt.command("apt-get");
        // Otherwise apt calls it a success when only some lists arrived.
        update.args(["-q", "-o", "APT::Update::Error-Mode=any", "update"]);
        let what = format!("fetching the package lists of {}", suites.join(", "));
        let lists = apt.folder.join("lists");
        command::step(&what, Some(&lists), || {
            command::run(&mut update, UPDATE_LIMIT)
        })?;
        fs::write(stamp, "").context("cannot note when the package lists were read")?;
        Ok(apt)
    }

    /// The sources in deb822 format, for programs that set up an apt of their own.
    pub fn sources_file(&self) -> PathBuf {
        self.folder.join("lab.sources")
    }

    /// This machine's apt takes package lists whose date is past: it has a mirror that keeps old ones. Who signed them
    /// is checked all the same.
    pub fn takes_old_lists(&self) -> Result<bool> {
        let mut config = self.command("apt-config");
        config.args(["shell", "CHECK", "Acquire::Check-Valid-Until/b"]);
        let shown = command::run(&mut config, QUERY_LIMIT)?;
        Ok(shown.stdout.trim() == "CHECK='false'")
    }

    /// `apt-get`, `apt-cache`, … under this configuration.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let folder = self.folder.display();
        for option in [
            format!("Dir::Etc::sourcelist={folder}/lab.sources"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            format!("Dir::State::lists={folder}/lists"),
            format!("Dir::Cache={folder}/cache"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            // The cache may lie where apt's own unprivileged user cannot reach.
            "APT::Sandbox::User=".to_owned()
                + if rustix::process::geteuid().is_root() {
                    "root"
                } else {
                    ""
                },
        ] {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C");
        command
    }

    /// The packages that `package` depends on directly, as this suite's newest version says.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let shown = command::run(
            self.command("apt-cache")
                .args(["show", "--no-all-versions", package]),
            QUERY_LIMIT,
        )?;
        Ok(parse_depends(&shown.stdout))
    }

    /// Fetches the packages into `folder` (created) and gives the paths of the archives.
    pub fn download(&self, packages: &[String], folder: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(folder).context("cannot create the download folder")?;
        command::run(
            self.command("apt-get")
                .arg("download")
                .args(packages)
                .current_dir(folder),
            DOWNLOAD_LIMIT,
        )?;
        let mut archives: Vec<PathBuf> = fs::read_dir(folder)
            .context("cannot list the download folder")?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect();
        archives.sort();
        if archives.len() < packages.len() {
            bail!(
                "apt-get download of {} left only {archives:?}",
                packages.join(", ")
            );
        }
        Ok(archives)
    }
}

fn is_younger(path: &Path, limit: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < limit))
}

fn stanza(source: &AptSource, suites: &[&str]) -> String {
    let signed_by = source
        .signed_by
        .as_ref()
        .map_or_else(String::new, |key| format!("Signed-By: {key}\n"));
    format!(
        "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nTargets: Packages\n{signed_by}",
        source.uris.join(" "),
        suites.join(" ")
    )
}

/// The names in the `Depends:` field, the first of alternatives, without versions.
fn parse_depends(text: &str) -> Vec<String> {
    let Some(line) = text.lines().find_map(|line| line.strip_prefix("Depends: ")) else {
        return Vec::new();
    };
    line.split(',')
        .filter_map(|part| part.split('|').next()?.split_whitespace().next())
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_are_names_only() {
        let text = "Package: a\nDepends: b (= 1.2), c | d, e:any (>= 3)\nVersion: 1\n";
        assert_eq!(parse_depends(text), ["b", "c", "e"]);
        assert!(parse_depends("Package: a\n").is_empty());
    }

    #[test]
    fn the_private_source_keeps_archive_and_key() {
        let source = AptSource {
            uris: vec!["http://mirror.test/debian".into()],
            suites: vec!["bookworm".into()],
            components: vec!["main".into()],
            signed_by: Some("/k/a.gpg".into()),
        };
        let text = stanza(&source, &["trixie"]);
        assert!(text.contains("URIs: http://mirror.test/debian\nSuites: trixie\n"));
        assert!(text.contains("Signed-By: /k/a.gpg\n"));
    }
}
