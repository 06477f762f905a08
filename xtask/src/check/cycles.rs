//! The same as `acyclic`, by a public tool (crates.io, cargo-cycles): stricter, as it counts `mod child;` and a name that
//! is passed on as imports too; and looser, as it reads `use` alone. It takes 40 s to build, so CI leaves it out.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tandem_lab::artifacts::cache;
use tandem_lab::command;

use super::acyclic::SOURCES;
use crate::cargo_tool::CargoTool;
use crate::project;

const TOOL: CargoTool = CargoTool {
    name: "cargo-cycles",
    version: "0.2.0",
    options: &[],
    wheel: None,
};
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn check() -> Result<()> {
    let program = TOOL.program()?;
    let folder = cache::target_folder().join("cycles");
    lay_out(&folder)?;
    let (is_acyclic, found) = cycles(&program, &folder)?;
    print!("{found}");
    ensure!(is_acyclic, "files import each other in a circle");
    // A tool that finds nothing anywhere would pass as well.
    let file = folder.join("core/src/world/mod.rs");
    let text = std::fs::read_to_string(&file).context("core has no world")?;
    std::fs::write(&file, text + "use crate::bond::Turn;\n").context("cannot write a circle")?;
    let (is_acyclic, found) = cycles(&program, &folder)?;
    ensure!(
        !is_acyclic && found.contains("core::world"),
        "{} does not find a circle that is there:\n{found}",
        TOOL.name
    );
    Ok(())
}

/// It takes a folder's name for a crate's, and all below it for its files: each package gets a folder of its own. Tests may
/// import all.
fn lay_out(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).context("cannot empty the folder of an earlier check")?;
    }
    let mut members = Vec::new();
    for source in SOURCES {
        let package = Path::new(source).parent().context("a package's folder")?;
        let name = package.file_name().context("a package's name")?;
        let is_test = |file: &Path| {
            file.iter()
                .any(|part| part == "tests" || part == "tests.rs")
        };
        let files = project::texts(|file| {
            let is_rust = file.extension().is_some_and(|extension| extension == "rs");
            file.starts_with(source) && is_rust && !is_test(file)
        })?;
        let manifest = project::texts(|file| file == package.join("Cargo.toml"))?;
        for (file, text) in files.into_iter().chain(manifest) {
            let inner = file.strip_prefix(package).context("a package's file")?;
            let to = folder.join(name).join(inner);
            std::fs::create_dir_all(to.parent().context("a file's folder")?)
                .and_then(|()| std::fs::write(&to, text))
                .with_context(|| format!("cannot write {}", to.display()))?;
        }
        members.push(format!("{name:?}"));
    }
    let workspace = format!("[workspace]\nmembers = [{}]\n", members.join(", "));
    std::fs::write(folder.join("Cargo.toml"), workspace).context("cannot write a workspace")
}

/// Whether there are none, and what it says.
fn cycles(program: &Path, folder: &Path) -> Result<(bool, String)> {
    let mut cycles = std::process::Command::new(program);
    let said = command::run_any(cycles.current_dir(folder), LIMIT)?;
    Ok((said.status.success(), said.stdout + &said.stderr))
}
