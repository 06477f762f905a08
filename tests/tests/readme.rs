//! What README.md and the pages of `docs/` show works: their commands run in a guest, their configuration
//! files are taken.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tandem_core::status::BondState;
use tandem_lab::agent::proto::Exit;
use tandem_lab::tandem::{Guest, Setup};
use tandem_lab::{Lab, readme};

/// `tandem status --watch` goes on until somebody ends it.
const WATCH_LIMIT: Duration = Duration::from_secs(5);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// Exit status of `tandem check` where something is missing that Tandem can do without.
const DEGRADED: Exit = Exit::Status(5);

#[test]
fn commands_and_configurations_of_the_pages() {
    let Some(lab) = Lab::for_test("readme") else {
        return;
    };
    let host = lab.host("a").unwrap();
    let guest = Setup::new().unwrap().boot(&lab, &host).unwrap();
    let mut channel = guest.channel().unwrap();
    guest
        .await_state(&mut channel, BondState::Accelerated)
        .unwrap();

    let pages = readme::pages().unwrap();
    let mut ran = 0;
    for page in &pages {
        for command in readme::commands(&page.text) {
            if command.starts_with("tandem ") {
                run(&guest, &command);
                ran += 1;
            }
        }
        guest
            .await_state(&mut channel, BondState::Accelerated)
            .unwrap();
    }
    assert!(ran > 10, "the pages show {ran} commands of the guest");
    guest.check().unwrap();

    let files: Vec<_> = pages
        .iter()
        .flat_map(|page| readme::blocks(&page.text, "toml"))
        .collect();
    assert!(files.len() > 1, "a smallest file and a whole one are shown");
    for file in files {
        take(&guest, &file).unwrap();
    }
}

/// `tandem check` finds nothing wrong with a configuration file.
fn take(guest: &Guest, file: &str) -> Result<()> {
    let path = "/tmp/readme/tandem.toml";
    guest.vm.write_file(path, file.as_bytes(), false)?;
    let said = guest.tandem(&["check", "--json", "--config", path])?;
    let report: serde_json::Value = serde_json::from_str(&said.text())?;
    let findings = report["findings"].as_array().context("no findings")?;
    let configuration = findings
        .iter()
        .find(|finding| finding["name"] == "configuration")
        .context("the configuration was not looked at")?;
    ensure!(configuration["level"] == "ok", "{file}\n{configuration:#}");
    Ok(())
}

fn run(guest: &Guest, command: &str) {
    let mut words: Vec<&str> = command.split_whitespace().collect();
    if words.contains(&"--write") {
        // This guest has its file already.
        words.extend(["--config", "/tmp/readme/new/tandem.toml"]);
    }
    let (limit, expected) = if words.contains(&"--watch") {
        (WATCH_LIMIT, vec![Exit::TimedOut])
    } else if words[1] == "check" {
        (COMMAND_LIMIT, vec![Exit::Status(0), DEGRADED])
    } else {
        (COMMAND_LIMIT, vec![Exit::Status(0)])
    };
    let output = guest
        .vm
        .run(&words, limit)
        .expect("the lab's agent runs the command");
    let (text, errors) = (output.text(), output.error_text());
    assert!(
        expected.contains(&output.exit),
        "`{command}` ended with {:?}:\n{text}\n{errors}",
        output.exit
    );
    assert!(!text.is_empty(), "`{command}` said nothing");
}
