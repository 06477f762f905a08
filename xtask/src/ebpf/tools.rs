//! What building the programs takes beyond Rust itself: the source of `core`, and bpf-linker.
//!
//! Whatever is missing is fetched and kept in the lab's cache; the machine's apt stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tandem_lab::artifacts::apt::PrivateApt;
use tandem_lab::artifacts::{Cache, Suite};

use super::{command, project, run_shown};

const BPF_LINKER_VERSION: &str = "0.13.0";
const QUERY_LIMIT: Duration = Duration::from_secs(60);
const FETCH_LIMIT: Duration = Duration::from_secs(600);
/// About a minute on two idle cores.
const INSTALL_LIMIT: Duration = Duration::from_secs(1800);

/// Where the tools are.
pub(super) struct Tools {
    /// The source of Rust's own libraries.
    pub(super) library: PathBuf,
    /// The linker.
    pub(super) bpf_linker: PathBuf,
}

impl Tools {
    /// Finds the tools, fetching what is missing.
    pub(super) fn prepare() -> Result<Self> {
        let rustc = Rustc::ask()?;
        rustc.is_the_projects()?;
        let cache = Cache::open()?;
        Ok(Self {
            library: library(&rustc, &cache)?,
            bpf_linker: bpf_linker(&rustc, &cache)?,
        })
    }
}

/// The compiler in use.
struct Rustc {
    /// Such as `1.95.0`.
    release: String,
    /// Such as `22`.
    llvm_major: String,
    sysroot: PathBuf,
}

impl Rustc {
    fn ask() -> Result<Self> {
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        let ask = |arguments: &[&str]| {
            let asked = command::run(project::command(&rustc).args(arguments), QUERY_LIMIT)?;
            Ok::<_, anyhow::Error>(asked.stdout)
        };
        let version = ask(&["-vV"])?;
        let (release, llvm) = parse_version(&version)
            .with_context(|| format!("`{rustc} -vV` said something else:\n{version}"))?;
        Ok(Self {
            llvm_major: llvm.split('.').next().unwrap_or(llvm).to_owned(),
            release: release.to_owned(),
            sysroot: ask(&["--print", "sysroot"])?.trim_end().into(),
        })
    }

    /// Another compiler gives another object.
    fn is_the_projects(&self) -> Result<()> {
        let file = project::text(Path::new("rust-toolchain.toml"))?
            .context("rust-toolchain.toml is not text")?;
        let channel = parse_channel(&file).context("rust-toolchain.toml names no channel")?;
        ensure!(
            channel == self.release,
            "the eBPF object is built with Rust {channel} (rust-toolchain.toml), but `rustc` is {}; \
             use rustup, or set RUSTC",
            self.release
        );
        Ok(())
    }

    /// The compiler's own LLVM.
    fn llvm_library(&self) -> Result<PathBuf> {
        let folder = self.sysroot.join("lib");
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("libLLVM.so"))
            })
            .with_context(|| {
                format!(
                    "Rust's own LLVM is not in {}; bpf-linker needs a Rust toolchain of rustup",
                    folder.display()
                )
            })
    }
}

fn parse_version(text: &str) -> Option<(&str, &str)> {
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
    Some((field("release: ")?, field("LLVM version: ")?))
}

fn parse_channel(text: &str) -> Option<&str> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("channel"))?;
    line.split('"').nth(1)
}

/// The source of Rust's libraries: the toolchain's own, or Debian's of the same version.
fn library(rustc: &Rustc, cache: &Cache) -> Result<PathBuf> {
    let own = rustc.sysroot.join("lib/rustlib/src/rust/library");
    if is_library(&own) {
        return Ok(own);
    }
    let name = format!("rust-src-{}", rustc.release);
    let debian = cache.root().join(&name).join("library");
    if is_library(&debian) {
        return Ok(debian);
    }
    let mut add = project::command("rustup");
    add.args(["component", "add", "rust-src"]);
    let by_rustup = command::step("fetching the source of Rust's libraries", None, || {
        command::run(&mut add, FETCH_LIMIT)
    });
    if is_library(&own) {
        return Ok(own);
    }
    let rustup_said = match by_rustup {
        Ok(_) => "it put them elsewhere".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    cache
        .folder(&name, |folder| debian_library(rustc, cache, folder))
        .with_context(|| {
            format!(
                "the source of Rust's libraries is missing. By rustup: {}. From Debian",
                rustup_said.trim_end()
            )
        })?;
    ensure!(
        is_library(&debian),
        "Debian's rust-src {} holds no library",
        rustc.release
    );
    Ok(debian)
}

fn is_library(folder: &Path) -> bool {
    folder.join("Cargo.lock").is_file() && folder.join("core/Cargo.toml").is_file()
}

/// Debian's package has the whole compiler; only `library` is kept.
fn debian_library(rustc: &Rustc, cache: &Cache, folder: &Path) -> Result<()> {
    let release = &rustc.release;
    let apt = PrivateApt::of_suite(cache, Suite::TrixieBackports)?;
    let archives = apt.download(&[format!("rust-src={release}+*")], &folder.join("debs"))?;
    let unpacked = folder.join("unpacked");
    for archive in &archives {
        command::run(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(archive)
                .arg(&unpacked),
            FETCH_LIMIT,
        )?;
    }
    let library = unpacked.join(format!("usr/src/rustc-{release}/library"));
    fs::rename(&library, folder.join("library")).context("cannot move the library")?;
    for rest in ["debs", "unpacked"] {
        fs::remove_dir_all(folder.join(rest)).context("cannot remove the rest of the package")?;
    }
    Ok(())
}

/// bpf-linker, linked with the compiler's own LLVM: another one could not read the compiler's bitcode,
/// and would give another object.
fn bpf_linker(rustc: &Rustc, cache: &Cache) -> Result<PathBuf> {
    let name = format!("bpf-linker-{BPF_LINKER_VERSION}-rust-{}", rustc.release);
    let folder = cache.folder(&name, |folder| install_bpf_linker(rustc, folder))?;
    let program = folder.join("bin/bpf-linker");
    let version = command::run(Command::new(&program).arg("--version"), QUERY_LIMIT);
    match version {
        Ok(said) if said.stdout.contains(BPF_LINKER_VERSION) => Ok(program),
        Ok(said) => bail!(
            "{} says it is `{}`; remove {} and run this again",
            program.display(),
            said.stdout.trim_end(),
            folder.display()
        ),
        Err(error) => Err(error).with_context(|| {
            format!(
                "bpf-linker does not run; if the Rust toolchain moved, remove {} and run this again",
                folder.display()
            )
        }),
    }
}

fn install_bpf_linker(rustc: &Rustc, folder: &Path) -> Result<()> {
    let llvm = rustc.llvm_library()?;
    let prefix = folder.join("llvm");
    fs::create_dir_all(prefix.join("lib")).context("cannot create LLVM's folder")?;
    std::os::unix::fs::symlink(&llvm, prefix.join("lib/libLLVM.so"))
        .context("cannot link to Rust's LLVM")?;
    let mut rpath = std::ffi::OsString::from("-Clink-arg=-Wl,-rpath,");
    rpath.push(rustc.sysroot.join("lib"));
    let build = folder.join("build");
    let mut install = project::cargo();
    install
        .args(["install", "bpf-linker", "--locked", "--no-default-features"])
        .args(["--version", BPF_LINKER_VERSION])
        .arg(format!("--features=llvm-{}", rustc.llvm_major))
        .arg("--root")
        .arg(folder)
        .arg("--target-dir")
        .arg(&build)
        // The work is LLVM's, which is linked as it is.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("LLVM_PREFIX", &prefix)
        .env("CARGO_ENCODED_RUSTFLAGS", rpath);
    command::step(
        "building bpf-linker (once, a minute or two)",
        Some(&build),
        || run_shown(&mut install, INSTALL_LIMIT),
    )?;
    fs::remove_dir_all(&build).context("cannot remove bpf-linker's build folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_version_is_read() {
        let text = "rustc 1.95.0 (x)\nhost: x86_64\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        assert_eq!(parse_version(text), Some(("1.95.0", "22.1.2")));
        assert_eq!(parse_version("rustc 1.95.0\n"), None);
    }

    #[test]
    fn the_projects_channel_is_read() {
        let text = "[toolchain]\nchannel = \"1.95.0\"\ncomponents = [\"clippy\"]\n";
        assert_eq!(parse_channel(text), Some("1.95.0"));
        assert_eq!(parse_channel("[toolchain]\n"), None);
    }
}
