//! What a bench comes to, in one form for all: the figures (JSON), one table, one list of claims, and where there is
//! one a picture; for a terminal, in target/bench, and as a page that is committed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_lab::artifacts::cache;
use tandem_lab::command;

use super::machine::Machine;
use super::table::Table;

/// Where pages are committed.
const RESULTS: &str = "tests/results";

/// One claim and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) text: String,
    pub(super) holds: bool,
}

impl Claim {
    /// In a line.
    fn line(&self) -> String {
        let mark = if self.holds { "ok    " } else { "MISSED" };
        format!("{mark}  {}", self.text)
    }

    /// As an item of a page.
    fn item(&self) -> String {
        let mark = if self.holds { "holds" } else { "**missed**" };
        format!("* {mark}: {}\n", self.text)
    }
}

/// All that a bench came to.
#[derive(Debug)]
pub(super) struct Report {
    /// Its name: of its files, and after `cargo xtask bench --`.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What has to be known to read the table.
    pub(super) about: String,
    pub(super) machine: Machine,
    /// Every figure, with nothing left out.
    pub(super) figures: Value,
    pub(super) table: Table,
    pub(super) claims: Vec<Claim>,
    /// An SVG file's text.
    pub(super) picture: Option<String>,
}

impl Report {
    /// Prints it.
    pub(super) fn print(&self) {
        println!("\n{}", self.table.text());
        for claim in &self.claims {
            println!("{}", claim.line());
        }
        print!("{}", self.machine.text());
    }

    /// Keeps figures and picture in target/bench.
    pub(super) fn keep(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.json())?;
        write(&folder(), &format!("{}.json", self.name), &text)?;
        self.draw(&folder())
    }

    /// Prints and keeps it, with `page` also as the page that is committed; fails if a claim does not hold.
    pub(super) fn publish(&self, page: bool) -> Result<()> {
        self.print();
        self.keep()?;
        if page {
            let pages = cache::workspace_folder().join(RESULTS);
            write(&pages, &format!("{}.md", self.name), &self.markdown())?;
            self.draw(&pages)?;
        }
        let missed = self.claims.iter().filter(|claim| !claim.holds).count();
        ensure!(missed == 0, "{missed} claims do not hold in this run");
        Ok(())
    }

    fn draw(&self, folder: &Path) -> Result<()> {
        match &self.picture {
            Some(picture) => write(folder, &self.picture_name(), picture),
            None => Ok(()),
        }
    }

    fn picture_name(&self) -> String {
        format!("{}.svg", self.name)
    }

    fn json(&self) -> Value {
        let claims = self.claims.iter();
        let claims = claims.map(|claim| json!({ "claim": claim.text, "holds": claim.holds }));
        json!({
            "machine": self.machine.json(),
            "figures": self.figures,
            "claims": claims.collect::<Vec<_>>(),
        })
    }

    fn markdown(&self) -> String {
        let picture = self.picture.as_ref().map_or(String::new(), |_| {
            format!("![{}]({})\n\n", self.title, self.picture_name())
        });
        format!(
            "# {}\n\nWritten by `cargo xtask bench --{} --write-results`; not to be edited. {}\n\n{picture}{}\n\
             ## Claims\n\n{}\n## Measured on\n\n{}",
            self.title,
            self.name,
            self.about,
            self.table.markdown(),
            self.claims.iter().map(Claim::item).collect::<String>(),
            self.machine.markdown(),
        )
    }
}

/// Where this machine's results go.
pub(super) fn folder() -> PathBuf {
    cache::target_folder().join("bench")
}

pub(super) fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    command::progress(&format!("written: {}", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_table_picture_claims_and_machine() {
        let mut table = Table::new(&["system", "kind", "lost"]);
        table.rows.push(["a", "b", "7"].map(str::to_owned).to_vec());
        let report = Report {
            name: "sample",
            title: "A sample",
            about: "All of it.".to_owned(),
            machine: Machine::default(),
            figures: json!([7]),
            table,
            claims: [true, false]
                .map(|holds| Claim {
                    text: "nothing lost".to_owned(),
                    holds,
                })
                .to_vec(),
            picture: Some(String::new()),
        };
        let page = report.markdown();
        for text in [
            "`cargo xtask bench --sample --write-results`; not to be edited. All of it.\n",
            "![A sample](sample.svg)\n",
            "| a | b | 7 |\n",
            "* holds: nothing lost\n* **missed**: nothing lost\n",
        ] {
            assert!(page.contains(text), "`{text}` is not in:\n{page}");
        }
        assert_eq!(report.json()["figures"], json!([7]));
    }
}
