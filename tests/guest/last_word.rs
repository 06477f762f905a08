//! Somebody's program that has the last word about the frames of a device: all others of its chain come after it (tcx), or it
//! sees them before all chains (XDP).

use std::os::fd::RawFd;

use anyhow::{Context, Result};

// Commands, types and flags of include/uapi/linux/bpf.h, 6.12.
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const SCHED_CLS: u32 = 3;
const XDP: u32 = 6;
const XDP_LINK: u32 = 37;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
const BEFORE: u32 = 1 << 3;
/// `XDP_FLAGS_SKB_MODE`: whatever the driver can do.
const GENERIC: u32 = 1 << 1;
/// Instructions of two words: code, registers and offset, then a constant.
type Program = &'static [[u32; 2]];
/// `r0 = 0 (TC_ACT_OK); exit`: the frame goes on, and no other program sees it.
const GO_ON: Program = &[[0xb7, 0], [0x95, 0]];
/// `TCX_DROP` for a frame with a VLAN's tag, `TCX_NEXT` for all others.
const NO_VLANS: Program = &[
    [0x0014_1261, 0],    // r2 = the frame has a tag
    [0xb7, 0xffff_ffff], // r0 = TCX_NEXT
    [0x0001_0215, 0],    // if it has none: exit
    [0xb7, 2],           // r0 = TCX_DROP
    [0x95, 0],           // exit
];
/// The same with `XDP_PASS`.
const PASS: Program = &[[0xb7, 2], [0x95, 0]];
/// `XDP_PASS` for IPv4, ARP and IPv6, `XDP_DROP` for everything else.
const PASS_IP: Program = &[
    [0x1261, 0],           // r2 = data
    [0x0004_1361, 0],      // r3 = data_end
    [0xb7, 2],             // r0 = XDP_PASS
    [0x24bf, 0],           // r4 = r2
    [0x0407, 14],          // r4 += 14
    [0x0005_342d, 0],      // if r4 > r3: exit
    [0x000c_2569, 0],      // r5 = the frame's type
    [0x0003_0515, 0x0008], // if it is IPv4: exit
    [0x0002_0515, 0x0608], // if it is ARP: exit
    [0x0001_0515, 0xdd86], // if it is IPv6: exit
    [0xb7, 1],             // r0 = XDP_DROP
    [0x95, 0],             // exit
];

/// The parts of `union bpf_attr` that both commands read, in words.
type Attributes = [u32; 32];

/// Attaches it before all others, and stays until somebody ends this process.
pub(crate) fn have(device: &str, place: &str) -> Result<()> {
    let ifindex = ifindex(device)?;
    let (kind, program, place, flags) = match place {
        "in" => (SCHED_CLS, GO_ON, TCX_INGRESS, BEFORE),
        "out" => (SCHED_CLS, GO_ON, TCX_EGRESS, BEFORE),
        "no-vlans-in" => (SCHED_CLS, NO_VLANS, TCX_INGRESS, BEFORE),
        "no-vlans-out" => (SCHED_CLS, NO_VLANS, TCX_EGRESS, BEFORE),
        "xdp" => (XDP, PASS, XDP_LINK, GENERIC),
        "xdp-strict" => (XDP, PASS_IP, XDP_LINK, GENERIC),
        _ => anyhow::bail!(
            "`{place}` is none of in, out, no-vlans-in, no-vlans-out, xdp and xdp-strict"
        ),
    };
    let program = load(kind, program)?;
    let mut create: Attributes = [0; 32];
    create[..4].copy_from_slice(&[program.cast_unsigned(), ifindex, place, flags]);
    // The descriptors are open, and the program attached, as long as the process lives.
    bpf(LINK_CREATE, &create).context("the program is not attached")?;
    loop {
        std::thread::park();
    }
}

pub(crate) fn ifindex(device: &str) -> Result<u32> {
    let path = format!("/sys/class/net/{device}/ifindex");
    let ifindex = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(ifindex.trim().parse()?)
}

/// Loads a tc program after which no other sees a frame, which goes on.
pub(crate) fn load_go_on() -> Result<RawFd> {
    load(SCHED_CLS, GO_ON)
}

fn load(kind: u32, program: Program) -> Result<RawFd> {
    let mut load: Attributes = [0; 32];
    (load[0], load[1]) = (kind, program.len() as u32);
    point(&mut load, 2, program.as_ptr().addr());
    point(&mut load, 4, c"GPL".as_ptr().addr());
    bpf(PROG_LOAD, &load).context("the program is refused")
}

fn point(attributes: &mut Attributes, word: usize, address: usize) {
    let bytes = (address as u64).to_ne_bytes();
    for (place, part) in attributes[word..].iter_mut().zip(bytes.chunks_exact(4)) {
        *place = part.try_into().map_or(0, u32::from_ne_bytes);
    }
}

#[expect(unsafe_code, reason = "no crate in use attaches programs by hand")]
fn bpf(command: libc::c_long, attributes: &Attributes) -> Result<RawFd> {
    // SAFETY: the attributes are as long as said, and what they point to is static. The kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of::<Attributes>(),
        )
    };
    if result < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(RawFd::try_from(result)?)
}
