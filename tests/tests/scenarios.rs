//! Golden scenarios: each folder of `scenarios/` has a script and the transcript
//! that it has to give. `UPDATE=1` writes the transcripts anew.

use std::path::{Path, PathBuf};

use tandem_lab::sim::story;

#[test]
fn every_scenario_gives_its_transcript() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut played = 0;
    for folder in folders() {
        let script = read(&folder.join("input.jsonl"));
        let path = folder.join("expected.txt");
        let transcript = match story::play(&script) {
            Ok(transcript) => transcript,
            Err(error) => panic!("{}: {error:#}", folder.display()),
        };
        if update {
            std::fs::write(&path, &transcript).expect("writing a transcript");
        }
        let expected = read(&path);
        assert!(
            transcript == expected,
            "{}: the transcript differs; `UPDATE=1 cargo test -p tandem-lab --test scenarios` writes it anew\n{}",
            folder.display(),
            difference(&expected, &transcript)
        );
        played += 1;
    }
    assert!(played >= 12, "only {played} scenarios were found");
}

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = std::fs::read_dir(&root).expect("the folder of scenarios");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

fn read(path: &Path) -> String {
    match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

/// The first line that differs, with both versions.
fn difference(expected: &str, found: &str) -> String {
    let lines = expected.lines().zip(found.lines()).enumerate();
    let first = lines.into_iter().find(|(_, (old, new))| old != new);
    match first {
        Some((number, (old, new))) => format!("line {}:\n- {old}\n+ {new}", number + 1),
        None => format!(
            "{} lines expected, {} found",
            expected.lines().count(),
            found.lines().count()
        ),
    }
}
