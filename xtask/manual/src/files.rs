//! All files that a package installs for readers and shells.

use anyhow::Result;
use clap_complete::{Shell, generate};

use crate::{commands, man};

/// A file in the making, by its path in the folder of all.
#[derive(Debug)]
pub(crate) struct Made {
    /// Such as `man/tandem.8`.
    pub(crate) path: String,
    /// Its bytes.
    pub(crate) data: Vec<u8>,
}

/// Each shell's folder and the names of its files there, `%` for the program's name.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash/%"),
    (Shell::Zsh, "zsh/_%"),
    (Shell::Fish, "fish/%.fish"),
];

/// Manual pages in `man/`, completions in a folder for each shell.
///
/// # Errors
/// If the types say nothing that could be shown.
pub(crate) fn all() -> Result<Vec<Made>> {
    let mut files = man::pages()?;
    for mut command in [commands::guest(), commands::host()] {
        let name = command.get_name().to_owned();
        for (shell, path) in SHELLS {
            let mut data = Vec::new();
            generate(shell, &mut command, &name, &mut data);
            files.push(Made {
                path: path.replace('%', &name),
                data,
            });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// A file of `all()`, as text.
    fn text(path: &str) -> String {
        let mut files = all().expect("they are made").into_iter();
        let made = files.find(|made| made.path == path);
        let made = made.unwrap_or_else(|| panic!("no {path}"));
        String::from_utf8(made.data).expect("text")
    }

    #[test]
    fn every_page_and_completion_is_made() {
        let paths: Vec<String> = all().unwrap().into_iter().map(|made| made.path).collect();
        assert_eq!(
            paths,
            [
                "man/tandem.8",
                "man/tandem-host.8",
                "man/tandem.toml.5",
                "bash/tandem",
                "zsh/_tandem",
                "fish/tandem.fish",
                "bash/tandem-host",
                "zsh/_tandem-host",
                "fish/tandem-host.fish",
            ]
        );
    }

    #[test]
    fn pages_say_what_the_definitions_say() {
        let guest = text("man/tandem.8");
        for words in ["\\-\\-vf", "prepare\\-unplug", "EXIT STATUS", "78"] {
            assert!(guest.contains(words), "no {words}: {guest}");
        }
        let host = text("man/tandem-host.8");
        for words in ["\\-\\-yes\\-degraded", "tandem\\-host xml set", "13"] {
            assert!(host.contains(words), "no {words}: {host}");
        }
        let file = text("man/tandem.toml.5");
        for words in ["host\\-may", "hold\\-ms", "1000", "conf.d"] {
            assert!(file.contains(words), "no {words}: {file}");
        }
    }

    /// groff warns of nothing, and a line that begins with a dot is a request that `man` knows.
    #[test]
    fn groff_takes_the_pages() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["tandem.8", "tandem-host.8", "tandem.toml.5"] {
            let path = folder.path().join(name);
            fs::write(&path, text(&format!("man/{name}"))).unwrap();
            let Some(output) = run("groff", &["-man", "-ww", "-Tutf8", "-rCHECKSTYLE=3"], &path)
            else {
                return;
            };
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{name}: {output:?}"
            );
            assert!(output.stdout.len() > 1000, "{name}: {output:?}");
        }
    }

    #[test]
    fn shells_take_the_completions() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["tandem", "tandem-host"] {
            for (shell, path) in [
                ("bash", format!("bash/{name}")),
                ("zsh", format!("zsh/_{name}")),
                ("fish", format!("fish/{name}.fish")),
            ] {
                let file = folder.path().join("completion");
                let completion = text(&path);
                assert!(completion.contains("socket"), "{path}");
                fs::write(&file, completion).unwrap();
                if let Some(output) = run(shell, &["-n"], &file) {
                    assert!(output.status.success(), "{path}: {output:?}");
                }
            }
        }
    }

    /// The program's output, or nothing if this machine does not have it. CI has groff and bash.
    fn run(program: &str, options: &[&str], file: &Path) -> Option<std::process::Output> {
        match Command::new(program).args(options).arg(file).output() {
            Ok(output) => Some(output),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("{program} is not installed: not looked at");
                None
            }
            Err(error) => panic!("{program}: {error}"),
        }
    }
}
