//! Kernel modules for a guest: the wanted ones and all they depend on, in loading order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::modinfo::{self, ModInfo};
use crate::artifacts::KernelFiles;

/// One module, ready to be put into a guest.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    /// Its name with underscores.
    pub(crate) name: String,
    /// Its path below `/lib/modules/RELEASE`, ending in `.ko`.
    pub(crate) path: String,
    /// The uncompressed file.
    pub(crate) data: Vec<u8>,
    /// What it says of itself.
    pub(crate) info: ModInfo,
}

/// The modules of one kernel.
#[derive(Debug)]
pub(crate) struct ModuleTree {
    files: BTreeMap<String, PathBuf>,
    root: PathBuf,
    builtin: BTreeSet<String>,
    builtin_list: String,
}

impl ModuleTree {
    /// Lists the modules of a kernel by name.
    pub(crate) fn open(kernel: &KernelFiles) -> Result<Self> {
        let root = kernel.modules.clone();
        let mut files = BTreeMap::new();
        let mut open = vec![root.clone()];
        while let Some(folder) = open.pop() {
            let entries = fs::read_dir(&folder)
                .with_context(|| format!("cannot list {}", folder.display()))?;
            for entry in entries {
                let entry = entry.context("cannot list a folder of modules")?;
                let path = entry.path();
                if entry
                    .file_type()
                    .context("cannot look at a module")?
                    .is_dir()
                {
                    open.push(path);
                } else if let Some(name) = module_name(&path) {
                    files.insert(name, path);
                }
            }
        }
        if files.is_empty() {
            bail!("there are no kernel modules under {}", root.display());
        }
        let builtin_list = fs::read_to_string(root.join("modules.builtin")).unwrap_or_default();
        let builtin = builtin_list
            .lines()
            .filter_map(|line| module_name(Path::new(line)))
            .collect();
        Ok(Self {
            files,
            root,
            builtin,
            builtin_list,
        })
    }

    /// The kernel's own list of what is built in (`modules.builtin`); empty if it has none.
    pub(crate) fn builtin_list(&self) -> &str {
        &self.builtin_list
    }

    /// The wanted modules and what they need, each after everything it depends on.
    /// What is built into the kernel is left out.
    pub(crate) fn resolve(&self, wanted: &[String]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            self.visit(&modinfo::normal_name(name), &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<Module>,
    ) -> Result<()> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let file = self.files.get(name).with_context(|| {
            format!(
                "the kernel under {} has no module `{name}`",
                self.root.display()
            )
        })?;
        let data = uncompressed(file)?;
        let info = modinfo::read(&data).with_context(|| format!("in {}", file.display()))?;
        for needed in &info.depends {
            self.visit(needed, seen, order)?;
        }
        for helpful in &info.soft_depends {
            // `crypto-crc32c` is an algorithm: any of its modules will do, and the generic one needs no such CPU.
            let algorithm = helpful.strip_prefix("crypto_");
            let name = algorithm.map_or_else(|| helpful.clone(), |name| format!("{name}_generic"));
            if self.files.contains_key(&name) {
                self.visit(&name, seen, order)?;
            }
        }
        let below = file
            .strip_prefix(&self.root)
            .unwrap_or(file)
            .with_extension("");
        let mut path = below.to_string_lossy().into_owned();
        if !path.ends_with(".ko") {
            path.push_str(".ko");
        }
        order.push(Module {
            name: name.to_owned(),
            path,
            data,
            info,
        });
        Ok(())
    }
}

fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| modinfo::normal_name(name))
}

fn uncompressed(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    // Bytes, not text, so not through `command::run`; the input is a local file and the program ends with it.
    let output = Command::new(program)
        .arg("-dc")
        .arg(file)
        .output()
        .with_context(|| format!("cannot start `{program}`, which unpacks {}", file.display()))?;
    if !output.status.success() {
        bail!(
            "`{program} -dc {}` failed: {}",
            file.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}

/// `modules.dep` and `modules.alias` for these modules, as modprobe reads them.
pub(crate) fn index_files(modules: &[Module]) -> (String, String) {
    let paths: BTreeMap<&str, &str> = modules
        .iter()
        .map(|module| (module.name.as_str(), module.path.as_str()))
        .collect();
    let mut dep = String::new();
    let mut alias = String::new();
    for module in modules {
        // modprobe wants the whole closure on the line, the nearest first.
        let mut closure: Vec<&str> = Vec::new();
        let mut open: Vec<&String> = module.info.depends.iter().collect();
        while let Some(name) = open.pop() {
            let Some(path) = paths.get(name.as_str()) else {
                continue;
            };
            closure.retain(|known| known != path);
            closure.push(path);
            if let Some(next) = modules.iter().find(|other| other.name == *name) {
                open.extend(&next.info.depends);
            }
        }
        dep.push_str(&format!("{}: {}\n", module.path, closure.join(" ")));
        for pattern in &module.info.aliases {
            alias.push_str(&format!("alias {pattern} {}\n", module.name));
        }
    }
    (dep, alias)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_compressed_modules() {
        assert_eq!(
            module_name(Path::new("a/virtio-net.ko.xz")).as_deref(),
            Some("virtio_net")
        );
        assert_eq!(
            module_name(Path::new("a/bonding.ko")).as_deref(),
            Some("bonding")
        );
        assert_eq!(module_name(Path::new("a/modules.dep")), None);
    }

    #[test]
    fn indexes_name_the_whole_closure() {
        let module = |name: &str, depends: &[&str]| Module {
            name: name.to_owned(),
            path: format!("kernel/{name}.ko"),
            data: Vec::new(),
            info: ModInfo {
                depends: depends.iter().map(|name| (*name).to_owned()).collect(),
                aliases: vec![format!("alias-of-{name}")],
                ..ModInfo::default()
            },
        };
        let modules = [module("c", &[]), module("b", &["c"]), module("a", &["b"])];
        let (dep, alias) = index_files(&modules);
        assert!(
            dep.contains("kernel/a.ko: kernel/b.ko kernel/c.ko\n"),
            "{dep}"
        );
        assert!(dep.contains("kernel/c.ko: \n"), "{dep}");
        assert!(alias.contains("alias alias-of-b b\n"), "{alias}");
    }
}
