//! Who may read a copy: those who may read its source.
//!
//! Where only networkd's group may, the copy has an access list that names it: to give a file to another group takes
//! `CAP_CHOWN`, which the units that write it lack. Its bytes are those of `include/uapi/linux/posix_acl_xattr.h`,
//! Linux 6.12.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::{XattrFlags, fsetxattr, getxattr};
use rustix::io::Errno;

const NAME: &str = "system.posix_acl_access";
const VERSION: u32 = 2;
/// `ACL_USER_OBJ`, `ACL_GROUP_OBJ`, `ACL_GROUP`, `ACL_MASK`, `ACL_OTHER` (`include/uapi/linux/posix_acl.h`, 6.12).
const OWNER: u16 = 0x01;
const OWN_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// Of an entry that names nobody.
const NOBODY: u32 = u32::MAX;
/// A version and five entries.
const BYTES: usize = 4 + 5 * 8;
/// Nobody but the owner writes a copy, and nobody runs one.
const RIGHTS: u32 = 0o644;

/// Those who may read a file of this mode and group may read this one, which is this process's own.
pub(super) fn let_read(file: &File, mode: u32, group: u32) -> io::Result<()> {
    let mode = mode & RIGHTS;
    // Whatever this process's umask is: networkd is another user.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    if !depends_on_group(mode) || file.metadata()?.gid() == group {
        return Ok(());
    }
    match fsetxattr(file, NAME, &list(mode, group), XattrFlags::empty()) {
        Err(Errno::NOTSUP) => fchown(file, None, Some(group)),
        set => Ok(set?),
    }
}

/// Whether those may read it who may read the source.
pub(super) fn are_the_same(copy: &Path, source: &Path) -> bool {
    let of = |path: &Path| {
        fs::metadata(path)
            .ok()
            .map(|it| (it.mode() & RIGHTS, it.gid()))
    };
    let (Some((mode, own)), Some((wanted, group))) = (of(copy), of(source)) else {
        return false;
    };
    let may_group = || {
        let mut bytes = [0; BYTES];
        let length = getxattr(copy, NAME, &mut bytes);
        length == Ok(BYTES) && bytes == list(wanted, group)
    };
    mode == wanted && (!depends_on_group(wanted) || own == group || may_group())
}

fn depends_on_group(mode: u32) -> bool {
    mode & 0o044 == 0o040
}

/// The access list with the rights of this mode, its group's for that one alone.
fn list(mode: u32, group: u32) -> [u8; BYTES] {
    let of_group = mode >> 3 & 7;
    let entries = [
        (OWNER, mode >> 6 & 7, NOBODY),
        (OWN_GROUP, 0, NOBODY),
        (GROUP, of_group, group),
        (MASK, of_group, NOBODY),
        (OTHER, mode & 7, NOBODY),
    ];
    let mut bytes = [0; BYTES];
    let (version, rest) = bytes.split_at_mut(4);
    version.copy_from_slice(&VERSION.to_le_bytes());
    for (place, (tag, rights, id)) in rest.chunks_exact_mut(8).zip(entries) {
        let rights = u16::try_from(rights).unwrap_or(0);
        place[..2].copy_from_slice(&tag.to_le_bytes());
        place[2..4].copy_from_slice(&rights.to_le_bytes());
        place[4..].copy_from_slice(&id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_reads_the_copy_and_the_copy_stays_this_processs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        let file = File::create(&path).unwrap();
        let before = file.metadata().unwrap().gid();
        let group = before + 1;
        let_read(&file, 0o100_640, group).unwrap();
        let after = file.metadata().unwrap();
        assert_eq!((after.gid(), after.mode() & 0o777), (before, 0o640));
        let mut bytes = [0; BYTES];
        assert_eq!(getxattr(&path, NAME, &mut bytes), Ok(BYTES));
        assert_eq!(bytes, list(0o640, group));

        // All may read it, or nobody: no group is named.
        for mode in [0o644, 0o600] {
            let path = folder.path().join(format!("{mode:o}"));
            let file = File::create(&path).unwrap();
            let_read(&file, mode, group).unwrap();
            assert_eq!(file.metadata().unwrap().mode() & 0o777, mode);
            assert!(getxattr(&path, NAME, &mut bytes).is_err());
        }
    }

    #[test]
    fn a_copy_that_others_may_read_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32, group: u32| {
            let path = folder.path().join(name);
            let_read(&File::create(&path).unwrap(), mode, group).unwrap();
            path
        };
        let source = make("source", 0o640, 0);
        let own = fs::metadata(&source).unwrap().gid();
        let source = make("source", 0o640, own);
        assert!(are_the_same(&make("same", 0o640, own), &source));
        assert!(!are_the_same(&make("wider", 0o644, own), &source));
        assert!(!are_the_same(&folder.path().join("none"), &source));
        assert!(are_the_same(
            &make("private", 0o600, own + 1),
            &make("too", 0o600, own)
        ));
    }
}
