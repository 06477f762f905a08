//! A system in a folder.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tandem_core::policy::BondPolicy;
use tempfile::TempDir;

use crate::config;
use crate::system_files::SystemFiles;

/// The kernel that the system runs.
pub(crate) const RELEASE: &str = "6.12.0-test";

/// A system in a folder, gone with it.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// With nothing in it.
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With all that the service needs to start.
    pub(crate) fn complete() -> Self {
        let folder = Self::new();
        folder.write("/run/systemd/system/a.unit", "");
        folder.write("/usr/lib/systemd/system/tandem.service", "[Unit]\n");
        folder.write(
            "/etc/systemd/system/multi-user.target.wants/tandem.service",
            "",
        );
        folder.write(
            "/etc/passwd",
            "root:x:0:0::/:/bin/sh\ntandem:x:990:990::/:/bin/false\n",
        );
        folder.write(
            "/lib/modules/6.12.0-test/modules.dep",
            "kernel/drivers/net/bonding/bonding.ko.xz: \n",
        );
        folder.write(
            "/etc/tandem/tandem.toml",
            "[[bond]]\nname = \"bond0\"\nstandby = { mac = \"52:54:00:00:00:01\" }\n\
             vfs = [{ mac = \"52:54:00:00:00:02\" }]\n",
        );
        folder
    }

    pub(crate) fn files(&self) -> SystemFiles {
        SystemFiles {
            root: self.0.path().to_path_buf(),
            kernel_release: RELEASE.to_owned(),
        }
    }

    /// The bond that the configuration describes.
    pub(crate) fn bond(&self) -> BondPolicy {
        let config = config::load(&self.path("/etc/tandem/tandem.toml")).unwrap();
        config.policy.bonds[0].clone()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn link(&self, target: &str, path: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        std::fs::remove_file(self.path(path)).unwrap();
    }

    pub(crate) fn remove_folder(&self, path: &str) {
        std::fs::remove_dir_all(self.path(path)).unwrap();
    }
}
