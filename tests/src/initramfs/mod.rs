//! Builds a guest's initramfs: files, programs with their shared libraries, kernel modules.

mod cpio;
mod modinfo;
mod modules;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::artifacts::KernelFiles;
use crate::command;
use cpio::Entry;
pub(crate) use modules::ModuleTree;

const LDD_LIMIT: Duration = Duration::from_secs(30);

/// An initramfs in the making. Paths in the guest are absolute.
#[derive(Debug, Clone, Default)]
pub struct Initramfs {
    entries: BTreeMap<String, Entry>,
}

impl Initramfs {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder and its parents.
    pub fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            self.entries
                .entry(path[..end].to_owned())
                .or_insert(Entry::Folder);
        }
        if !path.is_empty() {
            self.entries.entry(path.to_owned()).or_insert(Entry::Folder);
        }
    }

    /// Adds a regular file with the given bytes.
    pub fn file(&mut self, path: &str, data: impl Into<Vec<u8>>) {
        self.insert(
            path,
            Entry::File {
                data: data.into(),
                executable: false,
            },
        );
    }

    /// Adds an executable file with the given bytes, a script for example.
    pub fn executable(&mut self, path: &str, data: impl Into<Vec<u8>>) {
        self.insert(
            path,
            Entry::File {
                data: data.into(),
                executable: true,
            },
        );
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.insert(path, Entry::Link(target.to_owned()));
    }

    /// Adds a program of this machine and, if it is dynamically linked, its loader and libraries.
    pub fn program(&mut self, host_path: &Path, path: &str) -> Result<()> {
        self.executable(path, read(host_path)?);
        for library in shared_libraries(host_path)? {
            let target = library.to_string_lossy().into_owned();
            if !self.entries.contains_key(target.trim_start_matches('/')) {
                self.executable(&target, read(&library)?);
            }
        }
        Ok(())
    }

    /// Adds the named modules and all they depend on under `/lib/modules`, with the indexes modprobe
    /// reads. Gives the module names in an order in which they can be loaded.
    pub fn modules(&mut self, kernel: &KernelFiles, names: &[String]) -> Result<Vec<String>> {
        let tree = ModuleTree::open(kernel)?;
        let modules = tree.resolve(names)?;
        let root = format!("/lib/modules/{}", kernel.release);
        let (dep, alias) = modules::index_files(&modules);
        self.file(&format!("{root}/modules.dep"), dep);
        self.file(&format!("{root}/modules.alias"), alias);
        self.file(&format!("{root}/modules.builtin"), tree.builtin_list());
        let mut order = Vec::new();
        for module in modules {
            self.file(&format!("{root}/{}", module.path), module.data);
            order.push(module.name);
        }
        Ok(order)
    }

    /// Writes the image, uncompressed: unpacking it in an emulated guest would cost more than reading it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(fs::File::create(path)?);
            cpio::write(&self.entries, &mut out)?;
            out.flush()
        };
        write().with_context(|| format!("cannot write the initramfs {}", path.display()))
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
        self.entries
            .insert(path.trim_matches('/').to_owned(), entry);
    }
}

/// The loader and libraries a program of this machine needs: none if it is statically linked.
pub fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let shown = command::run_any(Command::new("ldd").arg(program), LDD_LIMIT)?;
    if !shown.status.success() {
        let text = format!("{}{}", shown.stdout, shown.stderr);
        if text.contains("not a dynamic executable") || text.contains("statically linked") {
            return Ok(Vec::new());
        }
        bail!("`ldd {}` failed: {text}", program.display());
    }
    parse_ldd(&shown.stdout).with_context(|| format!("of {}", program.display()))
}

fn parse_ldd(text: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in text.lines() {
        if line.contains("not found") {
            bail!("a shared library is missing: {}", line.trim());
        }
        let name = line.split("=>").last().unwrap_or(line);
        let path = name.split_whitespace().next().unwrap_or("");
        if path.starts_with('/') {
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_read() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let libraries = parse_ldd(text).unwrap();
        assert_eq!(
            libraries,
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(parse_ldd("\tliblost.so.1 => not found\n").is_err());
    }

    #[test]
    fn parents_come_by_themselves() {
        let mut image = Initramfs::new();
        image.executable("/usr/bin/x", "y");
        let names: Vec<_> = image.entries.keys().map(String::as_str).collect();
        assert_eq!(names, ["usr", "usr/bin", "usr/bin/x"]);
    }
}
