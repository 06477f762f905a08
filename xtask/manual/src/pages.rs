//! The pages' commands, options and configuration are such as the programs take.

use clap::error::ErrorKind;
use tandem_host::xml::Document;
use tandem_lab::readme::{self, Page};

use crate::commands;

fn pages() -> Vec<Page> {
    readme::pages().expect("README.md and docs/")
}

/// Why the program does not take these words, if so.
fn refused(words: &[&str]) -> Option<String> {
    let command = match words[0] {
        "tandem" => commands::guest(),
        "tandem-host" => commands::host(),
        _ => return None,
    };
    let error = command.try_get_matches_from(words).err()?;
    let harmless = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
    (!harmless.contains(&error.kind())).then(|| error.to_string())
}

#[test]
fn commands_in_blocks_are_taken() {
    let mut seen = 0;
    for page in pages() {
        for command in readme::commands(&page.text) {
            // What stands in quotes is one word.
            let parts = command.split('"').enumerate();
            let words: Vec<&str> = parts
                .flat_map(|(index, part)| match index % 2 {
                    0 => part.split_whitespace().collect(),
                    _ => vec![part],
                })
                .collect();
            assert_eq!(refused(&words), None, "{}: {command}", page.name);
            seen += usize::from(words[0].starts_with("tandem"));
        }
    }
    assert!(seen > 20, "{seen} commands");
    assert!(refused(&["tandem", "dance"]).is_some());
}

/// `` `--option` `` in running text is an option of one of the programs, or of one that is named here.
#[test]
fn options_in_the_text_exist() {
    /// Of cargo, of `cargo xtask`, whose commands in the pages a test of xtask's parses, of ifquery and of virsh.
    const OTHERS: [&str; 28] = [
        "--",
        "--armed",
        "--boot",
        "--carried",
        "--carry-costs",
        "--check",
        "--costs",
        "--evacuation",
        "--growth",
        "--help",
        "--instructions",
        "--kernel",
        "--libvirt",
        "--list",
        "--listen-address",
        "--offline",
        "--only",
        "--package",
        "--plain",
        "--postcopy-resume",
        "--release",
        "--silent-host",
        "--skip-lab",
        "--state",
        "--suspend",
        "--tcp",
        "--watch",
        "--vfio",
    ];
    let known: Vec<String> = [commands::guest(), commands::host()]
        .iter()
        .flat_map(commands::leaves)
        .flat_map(|leaf| commands::arguments(&leaf))
        .flat_map(|argument| words(&argument.written))
        .collect();
    let mut seen = 0;
    for page in pages() {
        let prose = readme::prose(&page.text);
        let spans = prose.split('`').skip(1).step_by(2);
        for word in spans.flat_map(words).filter(|word| word.starts_with("--")) {
            // What follows is its value.
            let option = word.split('=').next().unwrap_or_default().to_owned();
            let is_known = OTHERS.contains(&option.as_str()) || known.contains(&option);
            assert!(is_known, "{}: {option}", page.name);
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} options");
}

fn words(text: &str) -> Vec<String> {
    text.split([' ', ',']).map(str::to_owned).collect()
}

#[test]
fn bonds_in_xml_are_taken() {
    let blocks: Vec<String> = pages()
        .iter()
        .flat_map(|page| readme::blocks(&page.text, "xml"))
        .filter(|block| block.starts_with("<bonds"))
        .collect();
    assert!(!blocks.is_empty(), "the pages show no <bonds>");
    for block in blocks {
        Document::parse(&block).unwrap();
    }
}
