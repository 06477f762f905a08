//! README.md taken apart, so that what it shows can be run.

use anyhow::{Context, Result};

use crate::artifacts::cache;

/// The whole text.
pub fn text() -> Result<String> {
    let path = cache::workspace_folder().join("README.md");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
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
