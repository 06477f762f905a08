//! README.md and the pages of `docs/` taken apart, so that what they show can be run.

use std::path::Path;

use anyhow::{Context, Result};

use crate::artifacts::cache;

/// The page that a reader sees first.
pub const FIRST: &str = "README.md";
/// The folder with all others.
const FOLDER: &str = "docs";

/// A page and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its path, relative to the project.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// README.md, then the pages of `docs/` in order of their names.
///
/// # Errors
/// If one can't be read.
pub fn pages() -> Result<Vec<Page>> {
    let top = cache::workspace_folder();
    let folder = top.join(FOLDER);
    let mut names = vec![FIRST.to_owned()];
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut others: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "md"))
        .map(|name| format!("{FOLDER}/{name}"))
        .collect();
    others.sort();
    names.extend(others);
    let read = |name: String| {
        let path = top.join(&name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Page { name, text })
    };
    names.into_iter().map(read).collect()
}

/// The blocks in this language, such as `toml`, each with its line breaks.
pub fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    let mut in_other = false;
    for line in markdown.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(marked), None) if !in_other && marked.trim() == language => {
                open = Some(String::new());
            }
            (Some(_), None) => in_other = !in_other,
            (None, Some(block)) => *block += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    blocks
}

/// The text without its blocks.
pub fn prose(markdown: &str) -> String {
    let mut in_block = false;
    let outside = markdown.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        in_block ^= is_fence;
        !is_fence && !in_block
    });
    outside.collect::<Vec<_>>().join("\n")
}

/// The commands that the blocks in `sh` show, one a line, without comments and a leading `sudo`.
pub fn commands(markdown: &str) -> Vec<String> {
    let blocks = blocks(markdown, "sh");
    let lines = blocks.iter().flat_map(|block| block.lines());
    lines
        .map(|line| line.split(" #").next().unwrap_or(line).trim())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.strip_prefix("sudo ").unwrap_or(line).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_told_apart_by_language() {
        let markdown = "```sh\nls\n```\ntext\n```\nplain\n```\n```toml\nkey = 1\n# note\n```\n```toml\nkey = 2\n```\n";
        assert_eq!(blocks(markdown, "sh"), ["ls\n"]);
        assert_eq!(blocks(markdown, "toml"), ["key = 1\n# note\n", "key = 2\n"]);
    }

    #[test]
    fn commands_come_without_comments_and_sudo() {
        let markdown = "```sh\n# a note\nsudo tandem status   # for people\n\ncargo xtask test\n```\n```\nls\n```\n";
        assert_eq!(commands(markdown), ["tandem status", "cargo xtask test"]);
    }
}
