//! Links between the pages lead somewhere: the file exists, and has the heading.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use tandem_lab::artifacts::cache;
use tandem_lab::readme::{self, Page};

use crate::project;

/// A line for each link of a page that leads nowhere.
pub(super) fn broken(page: &Page) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for target in &targets(&page.text) {
        if target.contains("://") {
            continue;
        }
        let (path, heading) = target
            .split_once('#')
            .map_or((target.as_str(), None), |(path, heading)| {
                (path, Some(heading))
            });
        let file = resolve(&page.name, path);
        if !cache::workspace_folder().join(&file).exists() {
            findings.push(format!("{}: ({target}): no such file", page.name));
            continue;
        }
        let Some(heading) = heading else { continue };
        let text = match path {
            "" => page.text.clone(),
            _ => project::text(&file)?.unwrap_or_default(),
        };
        if !anchors(&text).iter().any(|anchor| anchor == heading) {
            findings.push(format!("{}: ({target}): no such heading", page.name));
        }
    }
    Ok(findings)
}

/// What stands between `](` and `)`, outside of blocks.
fn targets(text: &str) -> Vec<String> {
    let prose = readme::prose(text);
    let parts = prose.split("](").skip(1);
    let targets = parts.filter_map(|part| Some(part.split_once(')')?.0.to_owned()));
    targets.collect()
}

/// The file that a page's link names, relative to the project; the page itself if the link names none.
fn resolve(page: &str, path: &str) -> PathBuf {
    if path.is_empty() {
        return PathBuf::from(page);
    }
    let mut file = Path::new(page)
        .parent()
        .unwrap_or(Path::new(""))
        .to_path_buf();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => {
                file.pop();
            }
            other => file.push(other),
        }
    }
    file
}

/// The anchors that GitHub makes of a page's headings: small letters, digits, `-` and `_`; each space a dash.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page {
            name: "docs/guide.md".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let sound = "[a](../README.md) [b](host.md#metrics) [c](#own-heading) [d](https://x.test/)\n# Own heading\n";
        assert_eq!(broken(&page(sound)).unwrap(), Vec::<String>::new());
        for text in ["[a](../READYOU.md)", "[b](host.md#no-such)", "[c](#none)"] {
            assert_eq!(broken(&page(text)).unwrap().len(), 1, "{text}");
        }
    }

    #[test]
    fn headings_give_anchors_and_blocks_no_links() {
        assert_eq!(
            anchors("## Exit codes of `tandem-host`\ntext\n### A, b\n"),
            ["exit-codes-of-tandem-host", "a-b"]
        );
        assert_eq!(targets("```text\n[a](b)\n```\n[c](d)\n"), ["d"]);
    }
}
