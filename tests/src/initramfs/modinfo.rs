//! What a kernel module says of itself: the `.modinfo` section of its ELF file, a list of
//! `name=value` strings (include/linux/moduleparam.h and scripts/mod/modpost.c, Linux 6.12).

use anyhow::{Context, Result, bail};

/// The parts of `.modinfo` that matter for loading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ModInfo {
    /// Names of the modules this one cannot load without, and of those it asks to be loaded before.
    pub(crate) depends: Vec<String>,
    /// Names of modules that are loaded before this one if they exist.
    pub(crate) soft_depends: Vec<String>,
    /// Patterns under which the kernel asks for this module.
    pub(crate) aliases: Vec<String>,
}

/// Reads `.modinfo` of an uncompressed module.
pub(crate) fn read(module: &[u8]) -> Result<ModInfo> {
    let section = section(module, b".modinfo")?;
    let mut info = ModInfo::default();
    for text in section.split(|byte| *byte == 0) {
        let text = String::from_utf8_lossy(text);
        let Some((key, value)) = text.split_once('=') else {
            continue;
        };
        match key {
            "depends" => {
                info.depends.extend(
                    value
                        .split(',')
                        .filter(|name| !name.is_empty())
                        .map(normal_name),
                );
            }
            "alias" => info.aliases.push(value.to_owned()),
            "softdep" => {
                let Some(names) = value.strip_prefix("pre:") else {
                    continue;
                };
                let before = names.split("post:").next().unwrap_or(names);
                info.soft_depends
                    .extend(before.split_whitespace().map(normal_name));
            }
            _ => {}
        }
    }
    Ok(info)
}

/// A module's name as the kernel spells it: with underscores.
pub(crate) fn normal_name(name: &str) -> String {
    name.replace('-', "_")
}

/// The bytes of one section of a 64-bit little-endian ELF file.
fn section<'a>(elf: &'a [u8], wanted: &[u8]) -> Result<&'a [u8]> {
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF file");
    }
    let headers_at = number(elf, 0x28, 8)?;
    let header_size = number(elf, 0x3a, 2)?;
    let count = number(elf, 0x3c, 2)?;
    let names_index = number(elf, 0x3e, 2)?;
    if headers_at > elf.len() {
        bail!("the ELF file ends before its section headers");
    }
    // Both factors are 16 bits wide and the start lies in the file: this cannot overflow.
    let header_at = |index: usize| headers_at + index * header_size;
    let body = |index: usize| -> Result<&'a [u8]> {
        let header = header_at(index);
        let (offset, size) = (
            number(elf, header + 0x18, 8)?,
            number(elf, header + 0x20, 8)?,
        );
        offset
            .checked_add(size)
            .and_then(|end| elf.get(offset..end))
            .context("an ELF section reaches past the end of the file")
    };
    let names = body(names_index)?;
    for index in 0..count {
        let name_at = number(elf, header_at(index), 4)?;
        let name = names
            .get(name_at..)
            .unwrap_or(&[])
            .split(|byte| *byte == 0)
            .next();
        if name == Some(wanted) {
            return body(index);
        }
    }
    bail!(
        "the ELF file has no section {}",
        String::from_utf8_lossy(wanted)
    )
}

fn number(elf: &[u8], at: usize, bytes: usize) -> Result<usize> {
    let slice = at
        .checked_add(bytes)
        .and_then(|end| elf.get(at..end))
        .context("the ELF file ends too early")?;
    let value = slice
        .iter()
        .rev()
        .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    usize::try_from(value).context("an ELF field is out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        assert!(read(b"").is_err());
        assert!(read(b"\x7fELF\x02\x01").is_err());
        let mut huge = vec![0xff; 64];
        huge[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert!(read(&huge).is_err());
    }

    #[test]
    fn the_test_program_has_sections_but_no_modinfo() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!section(&own, b".text").unwrap().is_empty());
        let error = read(&own).unwrap_err().to_string();
        assert!(error.contains(".modinfo"), "{error}");
    }
}
