//! Manual pages.

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::commands::{self, Argument};
use crate::files::Made;
use crate::keys::{self, Key};

const MANUAL: &str = "Tandem";
/// What a configuration file says at least.
const SMALLEST: &str = "\
[[bond]]
name = \"bond0\"
standby = { mac = \"52:54:00:12:34:01\" }
vfs = [{ mac = \"52:54:00:12:34:02\" }]";

/// All pages.
///
/// # Errors
/// If the types say less than the pages tell.
pub(crate) fn pages() -> Result<Vec<Made>> {
    let guest = program(
        &commands::guest(),
        &tandem_guest::cli::exit::MEANINGS,
        &[
            (
                "/etc/tandem/tandem.toml",
                "configuration, see tandem.toml(5)",
            ),
            ("/etc/tandem/conf.d/*.toml", "more of it"),
            (tandem_guest::channel::SOCKET_PATH, "the service's socket"),
        ],
        &["tandem.toml(5)", "tandem-host(8)"],
    )?;
    let host = program(
        &commands::host(),
        &tandem_host::commands::exit::MEANINGS,
        &[
            (
                "/run/tandem-host",
                "locks, copies of records, and the socket of serve",
            ),
            (
                "/etc/default/tandem-host",
                "TANDEM_HOST_OPTIONS of tandem-host.service",
            ),
        ],
        &["tandem(8)", "virsh(1)"],
    )?;
    Ok(vec![guest, host, configuration()?])
}

fn program(
    command: &Command,
    exits: &[(u8, &str)],
    files: &[(&str, &str)],
    others: &[&str],
) -> Result<Made> {
    let page = Man::new(command.clone()).section("8").manual(MANUAL);
    let path = format!("man/{}", page.get_filename());
    let mut data = Vec::new();
    page.render_title(&mut data)?;
    page.render_name_section(&mut data)?;
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    let leaves = commands::leaves(command);
    for (index, leaf) in leaves.iter().enumerate() {
        if index > 0 {
            roff.control("br", []);
        }
        roff.text([roman(commands::usage(leaf))]);
    }
    roff.control("SH", ["COMMANDS"]);
    for leaf in &leaves {
        roff.control("SS", [commands::name(leaf).as_str()]);
        roff.text(spans(&format!("{}.", commands::about(leaf))));
        for one in commands::arguments(leaf) {
            argument(&mut roff, &one);
        }
    }
    roff.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in exits {
        item(&mut roff, &status.to_string(), spans(meaning));
    }
    closing(&mut roff, files, others);
    roff.to_writer(&mut data)?;
    Ok(Made { path, data })
}

fn configuration() -> Result<Made> {
    let mut roff = Roff::new();
    let version = format!("tandem {}", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["tandem.toml", "5", "", version.as_str(), MANUAL]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("tandem.toml - configuration of tandem")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text(spans(
        "tandem reads `/etc/tandem/tandem.toml`, then `/etc/tandem/conf.d/*.toml` in order of their names. Bonds add up. \
         An unknown key is an error. `systemctl reload tandem` applies a change.",
    ));
    for table in keys::tables()? {
        let heading = match table.header {
            "" => "TOP LEVEL",
            header => header,
        };
        roff.control("SH", [heading.replace('…', "...").as_str()]);
        if !table.about.is_empty() {
            roff.text(spans(&table.about));
        }
        for one in &table.keys {
            key(&mut roff, one);
        }
    }
    roff.control("SH", ["EXAMPLE"]);
    roff.control("nf", []);
    for line in SMALLEST.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    closing(&mut roff, &[], &["tandem(8)"]);
    let mut data = Vec::new();
    roff.to_writer(&mut data)?;
    Ok(Made {
        path: "man/tandem.toml.5".to_owned(),
        data,
    })
}

fn argument(roff: &mut Roff, one: &Argument) {
    let mut text = spans(&format!("{}.", one.help));
    if let Some(default) = &one.default {
        text.extend([roman(" Default: "), italic(default.as_str()), roman(".")]);
    }
    item(roff, &one.written, text);
}

fn key(roff: &mut Roff, one: &Key) {
    let mut text = spans(&one.meaning);
    text.push(roman(match one.required {
        true => " Required.".to_owned(),
        false => String::new(),
    }));
    if let (Some(default), false) = (&one.default, one.required) {
        text.extend([roman(" Default: "), italic(default.as_str()), roman(".")]);
    }
    item(roff, &one.name, text);
    if one.words.is_empty() {
        return;
    }
    roff.control("RS", []);
    for word in &one.words {
        item(roff, &word.word, spans(&word.meaning));
    }
    roff.control("RE", []);
}

fn closing(roff: &mut Roff, files: &[(&str, &str)], others: &[&str]) {
    if !files.is_empty() {
        roff.control("SH", ["FILES"]);
    }
    for (file, meaning) in files {
        item(roff, file, vec![roman(*meaning)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(others.join(", "))]);
}

fn item(roff: &mut Roff, tag: &str, text: Vec<Inline>) {
    roff.control("TP", []);
    roff.text([bold(tag)]);
    roff.text(text);
}

/// Text whose words in backticks are bold.
fn spans(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    let parts = parts.filter(|(_, part)| !part.is_empty());
    parts
        .map(|(index, part)| {
            if index % 2 == 1 {
                bold(part)
            } else {
                roman(part)
            }
        })
        .collect()
}
