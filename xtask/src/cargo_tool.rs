//! Programs that cargo installs: the one on `PATH` if it is the wanted version, else one built under `target/tools`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tandem_lab::artifacts::cache;
use tandem_lab::command;

use crate::project;

const VERSION_LIMIT: Duration = Duration::from_secs(10);
const INSTALL_LIMIT: Duration = Duration::from_secs(1200);

/// A program, and how cargo installs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CargoTool {
    /// Of the crate and of the program.
    pub(crate) name: &'static str,
    /// Exactly this one.
    pub(crate) version: &'static str,
    /// More for `cargo install`.
    pub(crate) options: &'static [&'static str],
}

impl CargoTool {
    /// Where it is. It is built if need be, which takes a minute or two.
    ///
    /// # Errors
    /// If it can't be built.
    pub(crate) fn program(&self) -> Result<PathBuf> {
        let root = cache::target_folder().join("tools");
        let own = root.join("bin").join(self.name);
        if let Some(there) = command::find_program(self.name)
            .into_iter()
            .chain([own.clone()])
            .find(|program| self.is_wanted(program))
        {
            return Ok(there);
        }
        println!("installing {} {} (once)", self.name, self.version);
        self.install(&root)?;
        if !self.is_wanted(&own) {
            bail!(
                "cargo installed {} {}, but {} does not say so",
                self.name,
                self.version,
                own.display()
            );
        }
        Ok(own)
    }

    /// Without optimisation, checks and unwinding it is built in a third of the time, and is quick enough.
    fn install(&self, root: &Path) -> Result<()> {
        let build = root.join(format!("build-{}", self.name));
        let mut install = project::cargo();
        install
            .args(["install", "--locked", "--debug", "--quiet"])
            .args([self.name, "--version", self.version])
            .args(self.options)
            .arg("--root")
            .arg(root)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false")
            .env("CARGO_PROFILE_DEV_PANIC", "abort")
            .env("CARGO_TARGET_DIR", &build);
        command::run(&mut install, INSTALL_LIMIT)?;
        std::fs::remove_dir_all(&build)
            .with_context(|| format!("cannot remove what {} was built from", self.name))
    }

    /// Some say their name before the version.
    fn is_wanted(&self, program: &Path) -> bool {
        let mut version = std::process::Command::new(program);
        version.arg("--version");
        command::run(&mut version, VERSION_LIMIT)
            .is_ok_and(|said| said.stdout.split_whitespace().last() == Some(self.version))
    }
}
