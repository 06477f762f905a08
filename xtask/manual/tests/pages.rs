//! The program writes what packages install.

use std::process::Command;

#[test]
fn pages_and_completions_are_written_for_both_programs() {
    let folder = tempfile::tempdir().unwrap();
    let mut man = Command::new(env!("CARGO_BIN_EXE_tandem-manual"));
    let said = man.arg("man").arg(folder.path()).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let named = String::from_utf8(said.stdout).unwrap();
    for name in ["tandem", "tandem-host"] {
        let files = [
            format!("man/{name}.8"),
            format!("bash/{name}"),
            format!("zsh/_{name}"),
            format!("fish/{name}.fish"),
        ];
        for file in files {
            let path = folder.path().join(&file);
            assert!(named.contains(&*path.to_string_lossy()), "{named}");
            assert!(std::fs::metadata(&path).unwrap().len() > 0, "{file}");
        }
        let completion = folder.path().join(format!("bash/{name}"));
        let parsed = Command::new("bash").arg("-n").arg(completion).status();
        assert!(parsed.unwrap().success(), "bash does not take {name}'s");
    }
    assert!(folder.path().join("man/tandem.toml.5").is_file());
}
