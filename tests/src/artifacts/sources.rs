//! Reads the machine's own apt sources, so that other suites come from the same archive under the same
//! key and no host name is written anywhere. Formats: sources.list(5), one-line and deb822.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Debian's own key ring, for sources that name no key (Debian's package debian-archive-keyring).
const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One place apt fetches packages from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AptSource {
    /// The archive's URIs, as written.
    pub uris: Vec<String>,
    /// The suites asked for, such as `bookworm`.
    pub suites: Vec<String>,
    /// The components asked for, such as `main`.
    pub components: Vec<String>,
    /// The key: a path, or the lines of an embedded key block, as a deb822 value.
    pub signed_by: Option<String>,
}

/// The machine's release, from os-release(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// `ID=`, such as `debian`.
    pub id: String,
    /// `VERSION_CODENAME=`, such as `bookworm`; empty if absent.
    pub codename: String,
}

impl Release {
    /// The release of this machine.
    pub fn of_this_machine() -> Result<Self> {
        let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or("")
                .trim_matches(['"', '\''])
                .to_owned()
        };
        Self {
            id: field("ID"),
            codename: field("VERSION_CODENAME"),
        }
    }
}

/// The source this machine gets its Debian `main` from, with the key that signs it.
pub fn debian_source() -> Result<AptSource> {
    let release = Release::of_this_machine()?;
    if release.id != "debian" {
        bail!(
            "this machine runs `{}`, not Debian, so the lab cannot fetch from a Debian archive. \
             Name a kernel by LAB_KERNEL=/path/vmlinuz and LAB_MODULES=/path/lib/modules/VERSION, \
             a static busybox by LAB_BUSYBOX=/path, and install the tools named above yourself",
            release.id
        );
    }
    let mut source = machine_sources(Path::new("/etc/apt"))?
        .into_iter()
        .find(|source| {
            source.suites.contains(&release.codename) && source.components.iter().any(|c| c == "main")
        })
        .with_context(|| {
            format!(
                "no source under /etc/apt offers `{} main`; add Debian's archive to this machine's apt sources",
                release.codename
            )
        })?;
    if source.signed_by.is_none() && Path::new(DEBIAN_KEYRING).exists() {
        source.signed_by = Some(DEBIAN_KEYRING.to_owned());
    }
    Ok(source)
}

fn machine_sources(etc_apt: &Path) -> Result<Vec<AptSource>> {
    let mut sources = Vec::new();
    if let Ok(text) = fs::read_to_string(etc_apt.join("sources.list")) {
        sources.extend(text.lines().filter_map(parse_line));
    }
    let Ok(entries) = fs::read_dir(etc_apt.join("sources.list.d")) else {
        return Ok(sources);
    };
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    for path in paths {
        let read =
            || fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(read()?.lines().filter_map(parse_line)),
            Some("sources") => sources.extend(parse_deb822(&read()?)),
            _ => {}
        }
    }
    Ok(sources)
}

/// `deb [signed-by=KEY arch=…] URI SUITE COMPONENT…`
fn parse_line(line: &str) -> Option<AptSource> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    rest = rest.trim_start();
    let mut signed_by = None;
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        rest = after;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(|keys| keys.replace(',', " "));
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(AptSource {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by,
    })
}

fn parse_deb822(text: &str) -> Vec<AptSource> {
    let mut stanzas: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(stanza) = stanzas.last_mut() else {
            break;
        };
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            // A continuation keeps its line break: an embedded key needs it.
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            stanza.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    stanzas
        .iter()
        .filter_map(|stanza| source_of_stanza(stanza))
        .collect()
}

fn source_of_stanza(stanza: &[(String, String)]) -> Option<AptSource> {
    let field = |name: &str| {
        stanza
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    };
    let words = |name: &str| -> Vec<String> {
        field(name).map_or_else(Vec::new, |value| {
            value.split_whitespace().map(str::to_owned).collect()
        })
    };
    let disabled = field("enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    if disabled || !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    Some(AptSource {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let line = "deb [arch=amd64 signed-by=/k/a.gpg] http://mirror.test/debian bookworm main contrib # x";
        let source = parse_line(line).unwrap();
        assert_eq!(source.uris, ["http://mirror.test/debian"]);
        assert_eq!(source.suites, ["bookworm"]);
        assert_eq!(source.components, ["main", "contrib"]);
        assert_eq!(source.signed_by.as_deref(), Some("/k/a.gpg"));
        assert_eq!(
            parse_line("deb-src http://mirror.test/debian bookworm main"),
            None
        );
        assert_eq!(
            parse_line("# deb http://mirror.test/debian bookworm main"),
            None
        );

        let text = "Types: deb deb-src\n# a note\nURIs: http://mirror.test/debian\nSuites: trixie trixie-updates\n\
                    Components: main\nSigned-By:\n -----BEGIN\n .\n line\n\nTypes: deb\nEnabled: no\nURIs: x\nSuites: y\n";
        let sources = parse_deb822(text);
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].suites, ["trixie", "trixie-updates"]);
        assert_eq!(
            sources[0].signed_by.as_deref(),
            Some("\n -----BEGIN\n .\n line")
        );
    }

    #[test]
    fn the_release_is_read() {
        let release = Release::parse("PRETTY_NAME=\"x\"\nID=debian\nVERSION_CODENAME=trixie\n");
        assert_eq!(
            release,
            Release {
                id: "debian".into(),
                codename: "trixie".into()
            }
        );
    }
}
