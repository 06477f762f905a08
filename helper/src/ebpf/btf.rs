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
/// Bytes of a name that tell it from others; with a bound, hostile names cost no more than others.
const MAX_NAME: usize = 512;
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
    /// Hash of the name and id of each function and structure, in order: some 30 are looked for among a hundred thousand.
    named: Vec<(u32, u32)>,
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

        let (mut starts, mut named) = (Vec::new(), Vec::new());
        let texts = &bytes[strings.clone()];
        let mut at = types.start;
        while at < types.end {
            let start = u32::try_from(at).map_err(|_| BtfError::Malformed("it is too large"))?;
            starts.push(start);
            let found = type_at_offset(&bytes[..types.end], at)?;
            let Some(rest_len) = rest_len(&found) else {
                return Err(BtfError::Malformed("a type of an unknown kind"));
            };
            if matches!(found.kind, kind::FUNC | kind::STRUCT) {
                let name = texts.get(found.name..).unwrap_or_default();
                // A type takes 12 bytes at least, so their number fits as well as `start` did.
                named.push((hash(name), starts.len() as u32));
            }
            at = found.rest + rest_len;
        }
        named.sort_unstable();
        if at != types.end {
            return Err(BtfError::Malformed("its last type is cut off"));
        }
        Ok(Self {
            bytes,
            strings,
            starts,
            named,
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

    /// Type information in which each of these functions has the number that it has here, and there is nothing else:
    /// who merely looks such numbers up reads it in a hundredth of the time. Unknown functions are left out.
    pub fn only_functions<'a>(&self, functions: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
        let named = functions
            .into_iter()
            .map(|name| (self.find(kind::FUNC, name), name));
        let mut named: Vec<_> = named.filter_map(|(id, name)| Some((id?.0, name))).collect();
        named.sort_unstable();
        named.dedup();
        let (mut types, mut strings) = (Vec::new(), vec![0]);
        // What stands for all others: a declaration without a name.
        let mut add = |name: usize, kind: u32| {
            for word in [name as u32, kind << 24, 0] {
                types.extend(word.to_le_bytes());
            }
        };
        let mut next = 1;
        for (id, name) in named {
            (next..id).for_each(|_| add(0, kind::FWD));
            add(strings.len(), kind::FUNC);
            strings.extend(name.bytes().chain([0]));
            next = id + 1;
        }
        let header = [HEADER_LEN, 0, types.len(), types.len(), strings.len()];
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        // Version 1, no flags.
        bytes.extend([1, 0]);
        bytes.extend(
            header
                .into_iter()
                .flat_map(|word| (word as u32).to_le_bytes()),
        );
        bytes.extend(types);
        bytes.extend(strings);
        bytes
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

    /// The first function or structure of that name.
    fn find(&self, kind: u32, name: &str) -> Option<TypeId> {
        let hash = hash(name.as_bytes());
        let first = self.named.partition_point(|(other, _)| *other < hash);
        let alike = self.named[first..].iter();
        alike
            .take_while(|(other, _)| *other == hash)
            .map(|(_, id)| TypeId(*id))
            .find(|id| {
                self.get(*id)
                    .is_some_and(|found| found.kind == kind && self.is_string(found.name, name))
            })
    }

    /// The text at this place is exactly that one.
    fn is_string(&self, at: usize, text: &str) -> bool {
        let strings = self.bytes.get(self.strings.clone());
        let rest = strings.and_then(|strings| strings.get(at..));
        let after = rest.and_then(|rest| rest.strip_prefix(text.as_bytes()));
        after.is_some_and(|after| after.first() == Some(&0))
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

/// FNV-1a of the bytes up to the first NUL, of at most as many as the kernel's names have (`KSYM_NAME_LEN`, kernel 7.3).
fn hash(text: &[u8]) -> u32 {
    let text = text.iter().take(MAX_NAME).take_while(|byte| **byte != 0);
    text.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
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
