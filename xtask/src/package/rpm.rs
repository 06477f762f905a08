//! The .rpm: cargo-generate-rpm builds it, Debian's rpm looks at it. None was installed on a Fedora.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tandem_lab::artifacts::cache;
use tandem_lab::command;

use super::contents::{self, Asset};
use super::{Build, Package, only, remove_older};
use crate::cargo_tool::CargoTool;
use crate::project;

const TOOL: CargoTool = CargoTool {
    name: "cargo-generate-rpm",
    version: "0.21.1",
    options: &[],
    wheel: None,
};
const LIMIT: Duration = Duration::from_secs(300);
/// Where the scripts are that rpm runs: `NAME.post` and so on.
const SCRIPTS: &str = "packaging/rpm";
/// Their file names' ends, and the headings of `rpm --scripts`.
const SCRIPT_KINDS: [(&str, &str); 3] = [
    ("post", "postinstall scriptlet (using /bin/sh):"),
    ("preun", "preuninstall scriptlet (using /bin/sh):"),
    ("postun", "postuninstall scriptlet (using /bin/sh):"),
];

pub(super) fn build(build: &Build, built: &Path, folder: &Path) -> Result<PathBuf> {
    let is_ours = |file: &str| is_package(file, build.package);
    remove_older(folder, is_ours)?;
    let list = built
        .join("packaging")
        .join(format!("{}-rpm.toml", build.package.name()));
    let text = toml(&files(build.package, built)?)?;
    fs::write(&list, text).with_context(|| format!("cannot write {}", list.display()))?;
    let metadata = project::metadata()?;
    let packages = metadata["packages"].as_array();
    let manifest = packages
        .into_iter()
        .flatten()
        .find(|one| one["name"] == build.package.crate_name())
        .and_then(|one| one["manifest_path"].as_str())
        .with_context(|| format!("there is no {}", build.package.crate_name()))?;
    let top = cache::workspace_folder();
    let manifest = Path::new(manifest);
    let package = manifest.parent().context("a manifest without a folder")?;
    let mut pack = project::command(&TOOL.program()?.to_string_lossy());
    pack.args(["--auto-req", "builtin"])
        .arg("--package")
        .arg(package.strip_prefix(&top).unwrap_or(package))
        .arg("--metadata-overwrite")
        .arg(&list)
        .arg("--output")
        .arg(folder);
    command::run(&mut pack, LIMIT)?;
    only(folder, is_ours)
}

/// `tandem-0.1.0-1.x86_64.rpm` is not one of tandem-host, nor the other way round.
fn is_package(file: &str, package: Package) -> bool {
    let rest = file
        .strip_prefix(package.name())
        .and_then(|rest| rest.strip_prefix('-'));
    file.ends_with(".rpm")
        && rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// What the .deb has, where Fedora looks for it.
fn files(package: Package, built: &Path) -> Result<Vec<Asset>> {
    let name = package.name();
    let top = cache::workspace_folder();
    let more = |source: &str, target: String| Asset {
        source: top.join(source),
        target,
        mode: "644".to_owned(),
    };
    let mut files: Vec<Asset> = contents::assets(package, built)?
        .into_iter()
        .filter(|asset| {
            let is_debians = ["usr/share/lintian/", "usr/share/initramfs-tools/"];
            !is_debians
                .iter()
                .any(|folder| asset.target.starts_with(folder))
                && !asset.target.ends_with("/copyright")
        })
        .map(|asset| Asset {
            target: asset
                .target
                .replace("zsh/vendor-completions", "zsh/site-functions"),
            ..asset
        })
        .collect();
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        files.push(more(
            licence,
            format!("usr/share/licenses/{name}/{licence}"),
        ));
    }
    if package == Package::Tandem {
        let preset = "usr/lib/systemd/system-preset/80-tandem.preset";
        files.push(more("packaging/rpm/80-tandem.preset", preset.to_owned()));
    }
    Ok(files)
}

fn toml(files: &[Asset]) -> Result<String> {
    let mut text = String::from("assets = [\n");
    for file in files {
        let source = file.source.to_str().context("a path that is not UTF-8")?;
        let kind = if file.target.starts_with("etc/") {
            ", config = \"noreplace\""
        } else if file.target.starts_with("usr/share/doc/") {
            ", doc = true"
        } else {
            ""
        };
        let (target, mode) = (&file.target, &file.mode);
        writeln!(
            text,
            "    {{ source = {source:?}, dest = \"/{target}\", mode = \"{mode}\"{kind} }},"
        )?;
    }
    text += "]\n";
    Ok(text)
}

/// File list, dependencies and scriptlets, as rpm itself tells them.
pub(super) fn check(build: &Build, built: &Path, file: &Path) -> Result<()> {
    ask(file, &["--checksig", "--nosignature"])?;
    let listed = ask(
        file,
        &[
            "--query",
            "--queryformat",
            "[%{FILEMODES:octal} %{FILENAMES}\n]",
            "--package",
        ],
    )?;
    let listed: BTreeSet<_> = listed.lines().map(str::to_owned).collect();
    let wanted = files(build.package, built)?;
    let wanted: BTreeSet<_> = wanted
        .iter()
        .map(|file| format!("100{} /{}", file.mode, file.target))
        .collect();
    ensure!(
        listed == wanted,
        "{} has {listed:#?}, which should be {wanted:#?}",
        file.display()
    );

    let requires = ask(file, &["--query", "--requires", "--package"])?;
    let mut needed = vec!["/bin/sh", "libc.so.6", "systemd"];
    if build.package == Package::Tandem {
        needed.extend(["libudev.so.1", "systemd-udev"]);
    }
    for name in needed {
        let is_named = |line: &str| line.split(['(', ' ']).next() == Some(name);
        ensure!(
            requires.lines().any(is_named),
            "it does not require {name}:\n{requires}"
        );
    }

    let scripts = ask(file, &["--query", "--scripts", "--package"])?;
    for (end, heading) in SCRIPT_KINDS {
        let path = format!("{SCRIPTS}/{}.{end}", build.package.name());
        let text = project::text(path.as_ref())?.with_context(|| format!("{path} is not text"))?;
        // A path that leads nowhere would be taken for the script itself.
        let whole = format!("{heading}\n{}", text.trim_end());
        ensure!(scripts.contains(&whole), "{path} is not in it:\n{scripts}");
        let mut parse = project::command("sh");
        parse.args(["-n", &path]);
        command::run(&mut parse, LIMIT)?;
    }
    println!("rpm finds the files, dependencies and scripts that should be in it");
    Ok(())
}

fn ask(file: &Path, question: &[&str]) -> Result<String> {
    let mut rpm = Command::new("rpm");
    rpm.args(question).arg(file).stdin(Stdio::null());
    let said = command::run_any(&mut rpm, LIMIT)?;
    if !said.status.success() {
        bail!(
            "rpm does not take {}: {}{}",
            file.display(),
            said.stdout,
            said.stderr
        );
    }
    Ok(said.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_files_are_told_apart() {
        let of = |file| Package::value_variants_of(file);
        assert_eq!(of("tandem-0.1.0-1.x86_64.rpm"), [Package::Tandem]);
        assert_eq!(of("tandem-host-0.1.0-1.x86_64.rpm"), [Package::TandemHost]);
        assert_eq!(of("tandem-0.1.0-1.x86_64.deb"), []);
    }

    impl Package {
        fn value_variants_of(file: &str) -> Vec<Self> {
            let all = [Self::Tandem, Self::TandemHost];
            all.into_iter()
                .filter(|one| is_package(file, *one))
                .collect()
        }
    }

    #[test]
    fn files_are_where_fedora_looks_for_them() {
        let files = files(Package::Tandem, Path::new("/built")).unwrap();
        let has = |target: &str| files.iter().any(|file| file.target == target);
        assert!(has("usr/share/zsh/site-functions/_tandem"));
        assert!(has("usr/share/licenses/tandem/LICENSE-MIT"));
        assert!(!has("usr/share/lintian/overrides/tandem"));
        let host = super::files(Package::TandemHost, Path::new("/built")).unwrap();
        let text = toml(&host).unwrap();
        assert!(text.contains(
            "dest = \"/etc/default/tandem-host\", mode = \"644\", config = \"noreplace\""
        ));
    }
}
