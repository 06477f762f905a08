//! Writes the cpio archive an initramfs is: the "newc" format, as the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst (6.12) defines it.

use std::collections::BTreeMap;
use std::io::{self, Write};

/// What one path of the archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A folder.
    Folder,
    /// A regular file.
    File {
        /// Its bytes.
        data: Vec<u8>,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link to the path given.
    Link(String),
}

impl Entry {
    fn mode(&self) -> u32 {
        match self {
            Self::Folder => 0o040_755,
            Self::File {
                executable: true, ..
            } => 0o100_755,
            Self::File {
                executable: false, ..
            } => 0o100_644,
            Self::Link(_) => 0o120_777,
        }
    }

    fn data(&self) -> &[u8] {
        match self {
            Self::Folder => &[],
            Self::File { data, .. } => data,
            Self::Link(target) => target.as_bytes(),
        }
    }
}

/// Writes all entries, parents before children (the order of a `BTreeMap`), and the trailer.
/// Paths have no leading slash.
pub(crate) fn write(entries: &BTreeMap<String, Entry>, out: &mut impl Write) -> io::Result<()> {
    for (inode, (path, entry)) in (1..).zip(entries) {
        write_entry(out, path, inode, entry.mode(), entry.data())?;
    }
    write_entry(out, "TRAILER!!!", 0, 0, &[])
}

fn write_entry(
    out: &mut impl Write,
    path: &str,
    inode: u32,
    mode: u32,
    data: &[u8],
) -> io::Result<()> {
    let too_long = |_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "an initramfs entry is too long",
        )
    };
    let size = u32::try_from(data.len()).map_err(too_long)?;
    let name_size = u32::try_from(path.len() + 1).map_err(too_long)?;
    let links: u32 = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    out.write_all(b"070701")?;
    // inode, mode, uid, gid, links, mtime, size, device major and minor (twice), name size, checksum
    for field in [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0] {
        write!(out, "{field:08x}")?;
    }
    out.write_all(path.as_bytes())?;
    const HEADER_BYTES: usize = 110;
    out.write_all(padding(HEADER_BYTES + path.len() + 1, 1))?;
    out.write_all(data)?;
    out.write_all(padding(data.len(), 0))
}

/// Zeros up to the next multiple of four after `length`, and `extra` before that (a name's terminator).
fn padding(length: usize, extra: usize) -> &'static [u8] {
    const ZEROS: [u8; 4] = [0; 4];
    &ZEROS[..extra + (4 - length % 4) % 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_aligned_entries_and_a_trailer() {
        let entries = BTreeMap::from([
            ("bin".to_owned(), Entry::Folder),
            (
                "bin/sh".to_owned(),
                Entry::File {
                    data: b"abc".to_vec(),
                    executable: true,
                },
            ),
            ("sbin".to_owned(), Entry::Link("bin".to_owned())),
        ]);
        let mut bytes = Vec::new();
        write(&entries, &mut bytes).unwrap();

        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            assert_eq!(at % 4, 0);
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                let text = std::str::from_utf8(&bytes[start..start + 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (size, name_size) = (field(6), field(11));
            let name = &bytes[at + 110..at + 110 + name_size - 1];
            names.push(String::from_utf8(name.to_vec()).unwrap());
            at = (at + 110 + name_size).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        assert_eq!(names, ["bin", "bin/sh", "sbin", "TRAILER!!!"]);
    }
}
