//! A host each of whose calls takes long, and what an evacuation asks of one.

use crate::Hosts;

/// What one evacuation cost.
#[derive(Debug)]
struct Cost {
    /// Times that `virsh` was started, those for events left out.
    processes: usize,
    /// Commands that it was given.
    commands: usize,
    /// Those of them that change something, and so are processes of their own.
    changes: usize,
}

const CHANGES: [&str; 4] = ["metadata", "detach-device", "attach-device", "migrate"];

fn cost(environment: &[(&str, &str)]) -> Cost {
    let hosts = Hosts::new(1, &[]);
    let ended = hosts.migrate(1, &[], environment);
    assert_eq!(ended.code, Some(0), "{:#}", ended.report);
    assert_eq!(ended.report["verdict"], "done", "{:#}", ended.report);
    assert!(hosts.path("there/state").exists() && !hosts.path("here/state").exists());
    assert_eq!(hosts.names("there/devices"), ["net0", "ua-vf0"]);
    // Neither record nor claim is left.
    assert_eq!(hosts.names("there/metadata"), ["bonds"]);
    let processes = hosts.lines("processes");
    let commands = hosts.lines("commands");
    let changes = commands
        .iter()
        .filter(|one| CHANGES.contains(&one.as_str()));
    let cost = Cost {
        processes: processes
            .iter()
            .filter(|one| !one.contains("event"))
            .count(),
        commands: commands.len(),
        changes: changes.count(),
    };
    println!("{cost:?}");
    cost
}

/// As over `qemu+ssh` to a host that is busy. With each question a process of its own, and a claim that had to
/// be written within 2 s of a look, a domain on a host with more than 0.4 s a call could not be evacuated.
#[test]
fn a_source_with_one_second_a_call_is_evacuated() {
    let cost = cost(&[("DELAY", "1")]);
    assert!(cost.processes <= cost.changes + 4, "{cost:?}");
}

/// So many processes and commands an evacuation takes where nothing disturbs it. With a process for each command
/// it took 58.
#[test]
fn an_evacuation_takes_few_calls() {
    let over_sessions = cost(&[]);
    let few = over_sessions.processes <= 14 && over_sessions.commands <= 55;
    assert!(few, "{over_sessions:?}");
    let alone = cost(&[("NO_SESSION", "1")]);
    let twice = over_sessions.processes * 2;
    assert!(alone.processes > twice, "{over_sessions:?} {alone:?}");
}
