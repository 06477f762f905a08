//! A small reader of the kernel's type information (BTF): where a structure's
//! member lies in the running kernel.
//!
//! Format: Documentation/bpf/btf.rst and include/uapi/linux/btf.h, kernel 7.3.
//! The bytes are not trusted: every offset is checked, every walk has a bound.

use std::{fs::File, io::Read, path::Path};

use thiserror::Error;

/// Where the kernel shows its own type information (`CONFIG_DEBUG_INFO_BTF`).
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// No kernel comes near this; Debian's have 5 to 8 MiB.
const MAX_BYTES: u64 = 64 << 20;
/// Typedefs and qualifiers on top of each other in one type.
const MAX_QUALIFIERS: usize = 32;
/// Anonymous structures inside each other.
const MAX_NESTING: usize = 16;
/// Members looked at for one path.
const MAX_MEMBERS: usize = 100_000;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
const TYPE_LEN: usize = 12;
const MEMBER_LEN: usize = 12;
const PARAMETER_LEN: usize = 8;

/// Kinds of types, `BTF_KIND_*`.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why the type information gives no answer.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The kernel offers none, or it cannot be read.
    #[error(
        "cannot read the kernel's type information {KERNEL_BTF}: {0}; the kernel needs CONFIG_DEBUG_INFO_BTF"
    )]
    Unreadable(#[from] std::io::Error),
    /// The bytes are not BTF as this reader knows it.
    #[error("the kernel's type information is damaged or of an unknown format: {0}")]
    Malformed(&'static str),
    /// The kernel has no such function, or it was inlined everywhere.
    #[error("this kernel has no function `{0}`")]
    NoFunction(String),
    /// The function has no such argument that points to a structure.
    #[error("argument {index} of the kernel's `{function}` is no pointer to a structure")]
    NoArgument {
        /// The function's name.
        function: String,
        /// The argument's number, from 0.
        index: usize,
    },
    /// The kernel has no such structure.
    #[error("this kernel has no structure `{0}`")]
    NoStructure(String),
    /// The structure has no such member at a whole byte.
    #[error("this kernel's structure `{structure}` has no member `{path}`")]
    NoMember {
        /// The structure's name.
        structure: String,
        /// The path of member names, separated by dots.
        path: String,
    },
}

/// A type of a [`Btf`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeId(u32);

/// A member that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Offset in bytes from the start of the structure that was asked.
    pub offset: u32,
    /// The member's type.
    pub type_id: TypeId,
}

/// Type information that was checked to be readable from end to end.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    strings: std::ops::Range<usize>,
    /// Where each type starts in `bytes`; the first has id 1, id 0 is `void`.
    starts: Vec<u32>,
}

/// The fixed part of a type.
struct Type {
    name: usize,
    kind: u32,
    count: usize,
    /// Whether members carry a bit-field size in their offset.
    flag: bool,
    /// The type referred to, or the size.
    value: u32,
    /// Where the variable part starts.
    rest: usize,
}

impl Btf {
    /// Reads the running kernel's.
    pub fn from_kernel() -> Result<Self, BtfError> {
        Self::from_file(Path::new(KERNEL_BTF))
    }

    /// Reads a file with raw BTF.
    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        let mut bytes = Vec::new();
        let read = File::open(path)?
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)?;
        if read as u64 > MAX_BYTES {
            return Err(BtfError::Malformed("it is larger than 64 MiB"));
        }
        Self::parse(bytes)
    }

    /// Checks the header and finds every type.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let word = |at: usize| word_at(&bytes, at);
        let truncated = BtfError::Malformed("its header is cut off");
        let Some(magic) = bytes.get(0..2) else {
            return Err(truncated);
        };
        if u16::from_le_bytes([magic[0], magic[1]]) != MAGIC {
            return Err(BtfError::Malformed("wrong magic number or byte order"));
        }
        let (Some(header), Some(type_at), Some(type_len), Some(string_at), Some(string_len)) =
            (word(4), word(8), word(12), word(16), word(20))
        else {
            return Err(truncated);
        };
        if header < HEADER_LEN {
            return Err(BtfError::Malformed("its header is too short"));
        }
        let types = section(&bytes, header, type_at, type_len)?;
        let strings = section(&bytes, header, string_at, string_len)?;

        let mut starts = Vec::new();
        let mut at = types.start;
        while at < types.end {
            let start = u32::try_from(at).map_err(|_| BtfError::Malformed("it is too large"))?;
            starts.push(start);
            let found = type_at_offset(&bytes[..types.end], at)?;
            let Some(rest_len) = rest_len(&found) else {
                return Err(BtfError::Malformed("a type of an unknown kind"));
            };
            at = found.rest + rest_len;
        }
        if at != types.end {
            return Err(BtfError::Malformed("its last type is cut off"));
        }
        Ok(Self {
            bytes,
            strings,
            starts,
        })
    }

    /// The structure that an argument of a function points to.
    ///
    /// Taken from the function and not by name, as some structure names (such as
    /// `controller`) occur more than once in a kernel.
    pub fn argument(&self, function: &str, index: usize) -> Result<TypeId, BtfError> {
        let found = self
            .find(kind::FUNC, function)
            .and_then(|id| self.get(id))
            .ok_or_else(|| BtfError::NoFunction(function.to_owned()))?;
        self.get(TypeId(found.value))
            .filter(|prototype| prototype.kind == kind::FUNC_PROTO && index < prototype.count)
            .and_then(|prototype| word_at(&self.bytes, prototype.rest + index * PARAMETER_LEN + 4))
            .and_then(|id| self.pointee(TypeId(u32::try_from(id).ok()?)))
            .ok_or_else(|| BtfError::NoArgument {
                function: function.to_owned(),
                index,
            })
    }

    /// Whether the kernel has the function.
    pub fn has_function(&self, function: &str) -> bool {
        self.find(kind::FUNC, function).is_some()
    }

    /// The structure of this name.
    pub fn structure(&self, name: &str) -> Result<TypeId, BtfError> {
        self.find(kind::STRUCT, name)
            .ok_or_else(|| BtfError::NoStructure(name.to_owned()))
    }

    /// A member by its path (`nd_net.net`), also inside anonymous structures and unions.
    pub fn member(&self, structure: TypeId, path: &str) -> Result<Member, BtfError> {
        self.walk(structure, path)
            .ok_or_else(|| BtfError::NoMember {
                structure: self.name(structure).unwrap_or("?").to_owned(),
                path: path.to_owned(),
            })
    }

    /// The structure that a member of pointer type points to.
    pub fn target(&self, structure: TypeId, path: &str) -> Result<TypeId, BtfError> {
        let member = self.member(structure, path)?;
        self.pointee(member.type_id)
            .ok_or_else(|| BtfError::NoMember {
                structure: self.name(structure).unwrap_or("?").to_owned(),
                path: format!("{path} that points to a structure"),
            })
    }

    fn walk(&self, structure: TypeId, path: &str) -> Option<Member> {
        let mut budget = MAX_MEMBERS;
        let mut bits = 0u32;
        let mut type_id = structure;
        for name in path.split('.') {
            let (offset, inner) = self.find_member(type_id, name, MAX_NESTING, &mut budget)?;
            bits = bits.checked_add(offset)?;
            type_id = inner;
        }
        bits.is_multiple_of(8).then_some(Member {
            offset: bits / 8,
            type_id,
        })
    }

    /// Offset in bits and type of a direct member, or of one inside anonymous members.
    fn find_member(
        &self,
        type_id: TypeId,
        name: &str,
        nesting: usize,
        budget: &mut usize,
    ) -> Option<(u32, TypeId)> {
        let composite = self.unqualified(type_id)?;
        if name.is_empty() || !matches!(composite.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        for index in 0..composite.count {
            *budget = budget.checked_sub(1)?;
            let at = composite.rest + index * MEMBER_LEN;
            let member_name = self.string(word_at(&self.bytes, at)?)?;
            let member_type = TypeId(u32::try_from(word_at(&self.bytes, at + 4)?).ok()?);
            let raw_offset = u32::try_from(word_at(&self.bytes, at + 8)?).ok()?;
            // With the flag set: 8 bits of bit-field size, 24 bits of offset.
            let (bitfield, offset) = if composite.flag {
                (raw_offset >> 24 != 0, raw_offset & 0x00ff_ffff)
            } else {
                (false, raw_offset)
            };
            if member_name == name.as_bytes() {
                return (!bitfield).then_some((offset, member_type));
            }
            if member_name.is_empty() && nesting > 0 {
                let inner = self.find_member(member_type, name, nesting - 1, budget);
                if let Some((inner_offset, found)) = inner {
                    return Some((offset.checked_add(inner_offset)?, found));
                }
            }
        }
        None
    }

    /// The structure behind a pointer.
    fn pointee(&self, pointer: TypeId) -> Option<TypeId> {
        let found = self.unqualified(pointer)?;
        if found.kind != kind::PTR {
            return None;
        }
        let mut id = TypeId(found.value);
        for _ in 0..MAX_QUALIFIERS {
            let target = self.get(id)?;
            match target.kind {
                kind::STRUCT => return Some(id),
                _ if is_qualifier(target.kind) => id = TypeId(target.value),
                _ => return None,
            }
        }
        None
    }

    /// The type without typedefs, qualifiers and tags.
    fn unqualified(&self, mut id: TypeId) -> Option<Type> {
        for _ in 0..MAX_QUALIFIERS {
            let found = self.get(id)?;
            if !is_qualifier(found.kind) {
                return Some(found);
            }
            id = TypeId(found.value);
        }
        None
    }

    fn find(&self, kind: u32, name: &str) -> Option<TypeId> {
        (1u32..)
            .zip(&self.starts)
            .find(|(_, start)| {
                type_at_offset(&self.bytes, **start as usize).is_ok_and(|found| {
                    found.kind == kind && self.string(found.name) == Some(name.as_bytes())
                })
            })
            .map(|(id, _)| TypeId(id))
    }

    fn get(&self, id: TypeId) -> Option<Type> {
        let index = usize::try_from(id.0).ok()?.checked_sub(1)?;
        type_at_offset(&self.bytes, *self.starts.get(index)? as usize).ok()
    }

    fn name(&self, id: TypeId) -> Option<&str> {
        std::str::from_utf8(self.string(self.get(id)?.name)?).ok()
    }

    /// The string at an offset into the string section, without its NUL.
    fn string(&self, offset: usize) -> Option<&[u8]> {
        let tail = self.bytes.get(self.strings.clone())?.get(offset..)?;
        tail.split(|byte| *byte == 0).next()
    }
}

fn is_qualifier(kind: u32) -> bool {
    matches!(
        kind,
        kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG
    )
}

fn word_at(bytes: &[u8], at: usize) -> Option<usize> {
    let word: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(word)).ok()
}

fn section(
    bytes: &[u8],
    header: usize,
    offset: usize,
    len: usize,
) -> Result<std::ops::Range<usize>, BtfError> {
    header
        .checked_add(offset)
        .and_then(|start| Some(start..start.checked_add(len)?))
        .filter(|range| range.end <= bytes.len())
        .ok_or(BtfError::Malformed("a section lies outside the data"))
}

/// The type at `at`; also checks that its variable part lies inside `bytes`.
fn type_at_offset(bytes: &[u8], at: usize) -> Result<Type, BtfError> {
    let cut = BtfError::Malformed("a type is cut off");
    let (Some(name), Some(info), Some(value)) = (
        word_at(bytes, at),
        word_at(bytes, at + 4),
        word_at(bytes, at + 8),
    ) else {
        return Err(cut);
    };
    let found = Type {
        name,
        kind: (info as u32 >> 24) & 0x1f,
        count: info & 0xffff,
        flag: info & 0x8000_0000 != 0,
        value: value as u32,
        rest: at + TYPE_LEN,
    };
    match rest_len(&found) {
        Some(len) if found.rest + len > bytes.len() => Err(cut),
        _ => Ok(found),
    }
}

/// Length in bytes of what follows a type's fixed part; `None` for an unknown kind.
fn rest_len(found: &Type) -> Option<usize> {
    let count = found.count;
    Some(match found.kind {
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => 0,
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION => count * MEMBER_LEN,
        kind::ENUM | kind::FUNC_PROTO => count * PARAMETER_LEN,
        kind::DATASEC | kind::ENUM64 => count * 12,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "btf_tests.rs"]
mod tests;
