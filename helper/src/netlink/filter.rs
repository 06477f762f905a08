//! Socket filters that the kernel runs before it wakes the service: unrelated
//! devices then cost neither a wake-up nor room in the receive buffer.
//!
//! Classic BPF with the kernel's netlink extensions (`SKF_AD_NLATTR`,
//! Documentation/networking/filter.rst, 6.12). Loads from the packet yield
//! big-endian values, netlink's fields have the machine's order; `word` and
//! `half` convert constants. A load beyond the end drops the message.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;

use libc::sock_filter;
use tandem_core::types::{IfName, Ifindex};

use super::link::{IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINKINFO};
use super::message::{RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE};
use super::route::{RT_TABLE_MAIN, RTA_OIF, RTN_UNICAST, UNREPORTED_PROTOCOLS};
use super::traffic_control::SHARED_BLOCK;
use crate::socket_option::attach_filter;

/// Longest program that the kernel takes (`BPF_MAXINSNS`, `include/uapi/linux/bpf_common.h`, 6.12).
const MAX_INSTRUCTIONS: usize = 4096;
/// `SKF_AD_OFF + SKF_AD_NLATTR`, `include/uapi/linux/filter.h`, 6.12.
const NLATTR: u32 = 12_u32.wrapping_sub(0x1000);
/// `SKF_AD_OFF + SKF_AD_NLATTR_NEST`.
const NLATTR_NEST: u32 = 16_u32.wrapping_sub(0x1000);
const PASS: u32 = u32::MAX;
const DROP: u32 = 0;

// Offsets within the datagram: `struct nlmsghdr`, then the message's own header.
const MESSAGE_TYPE: u32 = 4;
const IFI_FAMILY: u32 = 16;
const IFI_TYPE: u32 = 18;
const IFI_INDEX: u32 = 20;
const IFI_ATTRIBUTES: u32 = 32;
const IFA_INDEX: u32 = 20;
const TCM_IFINDEX: u32 = 20;
const RTM_TABLE: u32 = 20;
const RTM_PROTOCOL: u32 = 21;
const RTM_TYPE: u32 = 23;
const RTM_ATTRIBUTES: u32 = 28;
const ATTRIBUTE_HEADER: u32 = 4;
const ARPHRD_ETHER: u16 = 1;

/// A filter, ready to be attached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    instructions: Vec<sock_filter>,
    /// A conditional jump would have to go further than it can.
    jumps_too_far: bool,
}

impl Filter {
    /// Passes changes of links that can matter: Ethernet devices of a driver (those
    /// without `IFLA_INFO_KIND`), bonds, whatever carries one of `names`, the links of
    /// `others`, and the upper devices of `lowers`.
    pub(crate) fn links(names: &BTreeSet<IfName>, others: &[Ifindex], lowers: &[Ifindex]) -> Self {
        let mut kind = Self::default();
        kind.find_attribute(IFI_ATTRIBUTES, IFLA_LINKINFO);
        kind.pass_if_equal(0);
        kind.find_nested(IFLA_INFO_KIND);
        kind.pass_if_equal(0);
        kind.pass_if_text("bond");
        // It does not say by `IFLA_LINK` where it lies.
        kind.pass_if_text("vxlan");

        let mut filter = Self::default();
        filter.drop_unless_change_of(RTM_NEWLINK);
        filter.load(Size::Byte, IFI_FAMILY);
        filter.drop_unless_equal(0);
        filter.load(Size::Word, IFI_INDEX);
        for other in others {
            filter.pass_if_equal(word(other.0));
        }
        filter.load(Size::Half, IFI_TYPE);
        filter.unless_equal_skip(half(ARPHRD_ETHER), &kind);
        filter.append(&kind);
        if !names.is_empty() {
            filter.find_attribute(IFI_ATTRIBUTES, IFLA_IFNAME);
            for name in names {
                filter.pass_if_text(name.as_str());
            }
        }
        if !lowers.is_empty() {
            filter.find_attribute(IFI_ATTRIBUTES, IFLA_LINK);
            filter.drop_if_equal(0);
            filter.push(COPY_TO_INDEX, 0);
            filter.load_indexed(Size::Word, ATTRIBUTE_HEADER);
            for lower in lowers {
                filter.pass_if_equal(word(lower.0));
            }
        }
        filter.finish(DROP).or_pass_all()
    }

    /// Passes changes of addresses and configured routes of `links`.
    pub(crate) fn addressing(links: &[Ifindex]) -> Self {
        let mut of_links = Self::default();
        for link in links {
            of_links.pass_if_equal(word(link.0));
        }
        of_links.push(RETURN, DROP);

        let mut address = Self::default();
        address.load(Size::Word, IFA_INDEX);
        address.append(&of_links);

        let mut filter = Self::default();
        filter.load_change_type();
        // The jump over `address` may be too far for a conditional one.
        filter.jump_if_equal(half(RTM_NEWADDR), 1, 0);
        filter.push(JUMP, length(&address));
        filter.append(&address);
        filter.drop_unless_equal(half(RTM_NEWROUTE));
        filter.load(Size::Byte, RTM_TABLE);
        filter.drop_unless_equal(u32::from(RT_TABLE_MAIN));
        filter.load(Size::Byte, RTM_TYPE);
        filter.drop_unless_equal(u32::from(RTN_UNICAST));
        filter.load(Size::Byte, RTM_PROTOCOL);
        for &protocol in UNREPORTED_PROTOCOLS {
            filter.drop_if_equal(u32::from(protocol));
        }
        filter.find_attribute(RTM_ATTRIBUTES, RTA_OIF);
        // Several next hops: the reader sees which.
        filter.pass_if_equal(0);
        filter.push(COPY_TO_INDEX, 0);
        filter.load_indexed(Size::Word, ATTRIBUTE_HEADER);
        filter.append(&of_links);
        filter.or_pass_all()
    }

    /// Passes changes of queueing disciplines and filters of `links`, and of blocks that they may share.
    pub(crate) fn traffic_control(links: &[Ifindex]) -> Self {
        let mut filter = Self::default();
        filter.load(Size::Word, TCM_IFINDEX);
        for link in links.iter().chain(&[SHARED_BLOCK]) {
            filter.pass_if_equal(word(link.0));
        }
        filter.finish(DROP).or_pass_all()
    }

    /// Passes the kernel's events of devices that are not virtual ones
    /// (`add@/devices/…`, but not `/devices/virtual/…`).
    pub(crate) fn device_events() -> Self {
        let mut filter = Self::default();
        // The action that precedes the `@` has 3 to 7 letters (`kobject_actions`,
        // lib/kobject_uevent.c, 6.12).
        for at in 3..=7 {
            let mut path = Self::default();
            for (offset, text) in [(1, b"/dev"), (5, b"ices")] {
                path.load(Size::Word, at + offset);
                path.drop_unless_equal(u32::from_be_bytes(*text));
            }
            path.load(Size::Word, at + 9);
            path.drop_if_equal(u32::from_be_bytes(*b"/vir"));
            path.push(RETURN, PASS);
            filter.load(Size::Byte, at);
            filter.unless_equal_skip(u32::from(b'@'), &path);
            filter.append(&path);
        }
        filter.finish(DROP).or_pass_all()
    }

    /// No filter, to compare with.
    #[cfg(test)]
    pub(crate) fn pass_all() -> Self {
        Self::default().finish(PASS)
    }

    /// Attaches the filter to a socket; replaces the one before.
    pub(crate) fn attach(&self, socket: impl AsFd) -> io::Result<()> {
        attach_filter(socket, &self.instructions)
    }

    fn finish(mut self, verdict: u32) -> Self {
        self.push(RETURN, verdict);
        self
    }

    /// A filter that is too long for the kernel, or for its own jumps, is better none.
    fn or_pass_all(self) -> Self {
        if self.instructions.len() > MAX_INSTRUCTIONS || self.jumps_too_far {
            return Self::default().finish(PASS);
        }
        self
    }

    fn append(&mut self, other: &Self) {
        self.instructions.extend(&other.instructions);
        self.jumps_too_far |= other.jumps_too_far;
    }

    fn push(&mut self, code: u32, k: u32) {
        self.jump(code, k, 0, 0);
    }

    fn jump(&mut self, code: u32, k: u32, jt: u8, jf: u8) {
        // The codes are below 0x100 by definition.
        let code = code as u16;
        self.instructions.push(sock_filter { code, jt, jf, k });
    }

    fn jump_if_equal(&mut self, k: u32, if_so: u8, if_not: u8) {
        self.jump(JUMP_IF_EQUAL, k, if_so, if_not);
    }

    fn load(&mut self, size: Size, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_ABS | size as u32, offset);
    }

    fn load_indexed(&mut self, size: Size, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_IND | size as u32, offset);
    }

    /// A = the message's type, DEL made equal to NEW: DEL is NEW + 1, and NEW is even.
    fn load_change_type(&mut self) {
        self.load(Size::Half, MESSAGE_TYPE);
        self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, !half(1));
    }

    fn drop_unless_change_of(&mut self, new: u16) {
        self.load_change_type();
        self.drop_unless_equal(half(new));
    }

    fn drop_unless_equal(&mut self, k: u32) {
        self.jump_if_equal(k, 1, 0);
        self.push(RETURN, DROP);
    }

    fn drop_if_equal(&mut self, k: u32) {
        self.jump_if_equal(k, 0, 1);
        self.push(RETURN, DROP);
    }

    fn pass_if_equal(&mut self, k: u32) {
        self.jump_if_equal(k, 0, 1);
        self.push(RETURN, PASS);
    }

    fn unless_equal_skip(&mut self, k: u32, block: &Self) {
        self.unless_equal_jump(k, block.instructions.len());
    }

    fn unless_equal_jump(&mut self, k: u32, instructions: usize) {
        let distance = u8::try_from(instructions);
        self.jumps_too_far |= distance.is_err();
        self.jump_if_equal(k, 0, distance.unwrap_or(0));
    }

    /// A = offset of an attribute of the message, 0 if it has none of the kind.
    fn find_attribute(&mut self, from: u32, kind: u16) {
        self.push(libc::BPF_LD | libc::BPF_IMM, from);
        self.push(libc::BPF_LDX | libc::BPF_IMM, u32::from(kind));
        self.load(Size::Word, NLATTR);
    }

    /// A = offset of an attribute within the one at A, 0 if it has none of the kind.
    fn find_nested(&mut self, kind: u16) {
        self.push(libc::BPF_LDX | libc::BPF_IMM, u32::from(kind));
        self.load(Size::Word, NLATTR_NEST);
    }

    /// Passes if the attribute at A holds this text and its closing zero; A stays.
    fn pass_if_text(&mut self, text: &str) {
        let mut compare = Self::default();
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        let pieces: Vec<&[u8]> = pieces(&bytes).collect();
        let mut offset = ATTRIBUTE_HEADER;
        for (number, piece) in pieces.iter().enumerate() {
            let (size, value) = match **piece {
                [a, b, c, d] => (Size::Word, u32::from_be_bytes([a, b, c, d])),
                [a, b] => (Size::Half, u32::from_be_bytes([0, 0, a, b])),
                [a, ..] => (Size::Byte, u32::from(a)),
                [] => continue,
            };
            compare.load_indexed(size, offset);
            // Past the loads and jumps of the other pieces, and past the return.
            let rest = 2 * (pieces.len() - 1 - number) + 1;
            compare.unless_equal_jump(value, rest);
            offset += size.bytes();
        }
        compare.push(RETURN, PASS);
        self.push(COPY_TO_INDEX, 0);
        self.append(&compare);
        self.push(COPY_FROM_INDEX, 0);
    }
}

const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const COPY_TO_INDEX: u32 = libc::BPF_MISC | libc::BPF_TAX;
const COPY_FROM_INDEX: u32 = libc::BPF_MISC | libc::BPF_TXA;

#[derive(Clone, Copy)]
#[repr(u32)]
enum Size {
    Word = libc::BPF_W,
    Half = libc::BPF_H,
    Byte = libc::BPF_B,
}

impl Size {
    fn bytes(self) -> u32 {
        match self {
            Self::Word => 4,
            Self::Half => 2,
            Self::Byte => 1,
        }
    }
}

/// Cuts bytes into pieces of four, then two, then one.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let size = match bytes.len() {
            0 => return None,
            1 => 1,
            2 | 3 => 2,
            _ => 4,
        };
        let (piece, rest) = bytes.split_at(size);
        bytes = rest;
        Some(piece)
    })
}

fn length(filter: &Filter) -> u32 {
    u32::try_from(filter.instructions.len()).unwrap_or(u32::MAX)
}

fn word(value: u32) -> u32 {
    value.to_be()
}

fn half(value: u16) -> u32 {
    u32::from(value.to_be())
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
