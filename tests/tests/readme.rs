//! What README.md shows works: its commands run in a guest, its configuration file is taken.

use std::time::Duration;

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
fn commands_and_configuration_of_the_readme() {
    let Some(lab) = Lab::for_test("readme") else {
        return;
    };
    let host = lab.host("a").unwrap();
    let guest = Setup::new().unwrap().boot(&lab, &host).unwrap();
    let mut channel = guest.channel().unwrap();
    guest
        .await_state(&mut channel, BondState::Accelerated)
        .unwrap();

    let markdown = readme::text().unwrap();
    let commands = readme::commands(&markdown);
    let commands: Vec<_> = commands
        .iter()
        .filter(|command| command.starts_with("tandem "))
        .collect();
    assert!(
        !commands.is_empty(),
        "README.md shows no command of the guest"
    );
    for command in commands {
        run(&guest, command);
    }
    guest
        .await_state(&mut channel, BondState::Accelerated)
        .unwrap();
    guest.check().unwrap();

    let files = readme::blocks(&markdown, "toml");
    let [file] = files.as_slice() else {
        panic!(
            "README.md shows {} configuration files, not one",
            files.len()
        );
    };
    guest
        .vm
        .write_file("/tmp/readme/tandem.toml", file.as_bytes(), false)
        .unwrap();
    let said = guest
        .tandem(&["check", "--json", "--config", "/tmp/readme/tandem.toml"])
        .unwrap();
    let report: serde_json::Value = serde_json::from_str(&said.text()).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let configuration = findings
        .iter()
        .find(|finding| finding["name"] == "configuration")
        .unwrap();
    assert_eq!(configuration["level"], "ok", "{configuration:#}");
}

fn run(guest: &Guest, command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
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
