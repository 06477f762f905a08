//! Crafted and random bytes for the BTF reader, and the machine's own kernel.

use aya::{Btf as AyaBtf, Endianness};
use proptest::prelude::*;

use super::*;

/// Builds BTF type by type.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    fn new() -> Self {
        Self {
            strings: vec![0],
            ..Self::default()
        }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(text.bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, info: u32, value: u32, rest: &[u32]) -> u32 {
        let name = self.string(name);
        for word in [name, info, value].iter().chain(rest) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    fn int(&mut self) -> u32 {
        self.add("int", kind::INT << 24, 4, &[32])
    }

    fn pointer(&mut self, to: u32) -> u32 {
        self.add("", kind::PTR << 24, to, &[])
    }

    /// Members as (name, type, offset in bits or with the flag bit-field size too).
    fn composite(
        &mut self,
        kind: u32,
        flag: bool,
        name: &str,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        let mut rest = Vec::new();
        for (name, id, offset) in members {
            rest.extend([self.string(name), *id, *offset]);
        }
        let info = kind << 24 | members.len() as u32 | u32::from(flag) << 31;
        self.add(name, info, 64, &rest)
    }

    fn function(&mut self, name: &str, arguments: &[u32]) -> u32 {
        let rest: Vec<u32> = arguments.iter().flat_map(|id| [0, *id]).collect();
        let proto = self.add(
            "",
            kind::FUNC_PROTO << 24 | arguments.len() as u32,
            0,
            &rest,
        );
        self.add(name, kind::FUNC << 24 | 1, proto, &[])
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        let types = self.types.len() as u32;
        for word in [24, 0, types, types, self.strings.len() as u32] {
            bytes.extend(u32::to_le_bytes(word));
        }
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}

/// `struct inner { int a; int b; }`,
/// `struct outer { int x:3; union { struct { int c; struct inner in; }; }; struct inner *next; }`,
/// `f(int, const struct outer *)`.
fn sample() -> Vec<u8> {
    let mut b = Builder::new();
    let int = b.int();
    let inner = b.composite(
        kind::STRUCT,
        false,
        "inner",
        &[("a", int, 0), ("b", int, 32)],
    );
    let anonymous = b.composite(kind::STRUCT, false, "", &[("c", int, 0), ("in", inner, 32)]);
    let union = b.composite(kind::UNION, false, "", &[("", anonymous, 0)]);
    let tagged = b.add("rcu", kind::TYPE_TAG << 24, inner, &[]);
    let pointer = b.pointer(tagged);
    let outer = b.composite(
        kind::STRUCT,
        true,
        "outer",
        &[("x", int, 3 << 24), ("", union, 64), ("next", pointer, 256)],
    );
    let constant = b.add("", kind::CONST << 24, outer, &[]);
    let argument = b.pointer(constant);
    b.function("f", &[int, argument]);
    b.bytes()
}

#[test]
fn members_are_found_by_path_and_through_anonymous_ones() {
    let btf = Btf::parse(sample()).unwrap();
    let outer = btf.argument("f", 1).unwrap();
    assert_eq!(outer, btf.structure("outer").unwrap());
    assert_eq!(btf.member(outer, "c").unwrap().offset, 8);
    assert_eq!(btf.member(outer, "in.b").unwrap().offset, 16);
    let next = btf.target(outer, "next").unwrap();
    assert_eq!(next, btf.structure("inner").unwrap());
    assert_eq!(btf.member(next, "b").unwrap().offset, 4);
}

#[test]
fn what_is_missing_is_named() {
    let btf = Btf::parse(sample()).unwrap();
    let outer = btf.structure("outer").unwrap();
    for path in ["x", "none", "c.a", "next.a", "in.c", ""] {
        let error = btf.member(outer, path).unwrap_err().to_string();
        assert!(error.contains("`outer`") && error.contains(path), "{error}");
    }
    assert!(matches!(
        btf.argument("f", 0),
        Err(BtfError::NoArgument { .. })
    ));
    assert!(matches!(
        btf.argument("f", 2),
        Err(BtfError::NoArgument { .. })
    ));
    assert!(matches!(btf.argument("g", 0), Err(BtfError::NoFunction(_))));
    assert!(matches!(btf.structure("f"), Err(BtfError::NoStructure(_))));
    assert!(btf.target(outer, "c").is_err());
}

#[test]
fn cut_off_bytes_are_an_error() {
    let bytes = sample();
    for len in 0..bytes.len() {
        assert!(
            matches!(
                Btf::parse(bytes[..len].to_vec()),
                Err(BtfError::Malformed(_))
            ),
            "accepted {len} of {} bytes",
            bytes.len()
        );
    }
}

#[test]
fn cycles_end() {
    let mut b = Builder::new();
    // A typedef of itself, and an anonymous structure that holds itself twice.
    b.add("loop", kind::TYPEDEF << 24, 1, &[]);
    b.composite(kind::STRUCT, false, "", &[("", 2, 0), ("", 2, 0)]);
    let named = b.composite(
        kind::STRUCT,
        false,
        "s",
        &[("", 2, 0), ("l", 1, 0), ("z", 1, 8)],
    );
    let btf = Btf::parse(b.bytes()).unwrap();
    assert!(btf.member(TypeId(named), "absent").is_err());
    assert!(btf.member(TypeId(named), "l.x").is_err());
}

#[test]
fn an_unknown_kind_is_an_error() {
    let mut b = Builder::new();
    b.add("future", 31 << 24, 0, &[]);
    assert!(matches!(Btf::parse(b.bytes()), Err(BtfError::Malformed(_))));
}

#[test]
fn functions_alone_keep_their_numbers() {
    let mut b = Builder::new();
    b.int();
    for name in ["f", "g", "h"] {
        b.add(name, kind::FUNC << 24, 0, &[]);
        b.int();
    }
    let all = Btf::parse(b.bytes()).unwrap();
    let some = all.only_functions(["h", "f", "absent", "h"]);
    assert!(AyaBtf::parse(&some, Endianness::default()).is_ok());
    let some = Btf::parse(some).unwrap();
    for name in ["f", "h"] {
        let id = all.find(kind::FUNC, name);
        assert!(id.is_some() && some.find(kind::FUNC, name) == id, "{name}");
    }
    assert!(!some.has_function("g") && !some.has_function("absent"));
    assert!(Btf::parse(all.only_functions([])).is_ok());
}

#[test]
fn this_machines_kernel_is_read_if_it_shows_its_types() {
    let path = Path::new(KERNEL_BTF);
    if !path.exists() {
        assert!(matches!(Btf::from_kernel(), Err(BtfError::Unreadable(_))));
        return;
    }
    let btf = Btf::from_kernel().unwrap();
    let device = btf.argument("register_netdevice", 0).unwrap();
    assert_eq!(device, btf.structure("net_device").unwrap());
    let net = btf.target(device, "nd_net.net").unwrap();
    assert!(btf.member(net, "ns.inum").is_ok());
}

fn ask_everything(btf: &Btf) {
    for index in 0..3 {
        let _ = btf.argument("f", index);
    }
    for id in 0..20 {
        for path in ["c", "in.b", "x", "next", "absent.a"] {
            let _ = btf.member(TypeId(id), path);
            let _ = btf.target(TypeId(id), path);
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = bytes;
        if let Some(magic) = bytes.get_mut(0..2) {
            magic.copy_from_slice(&[0x9f, 0xeb]);
        }
        if let Ok(btf) = Btf::parse(bytes) {
            ask_everything(&btf);
        }
    }

    #[test]
    fn flipped_bytes_never_panic(at in 0usize..400, value in any::<u8>()) {
        let mut bytes = sample();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(btf) = Btf::parse(bytes) {
            ask_everything(&btf);
        }
    }
}
