//! Somebody's filter of a `clsact` on a device's way out, as `tc filter add dev DEVICE egress bpf` makes it.

use anyhow::{Context, Result, ensure};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::last_word;

// `include/uapi/linux/{rtnetlink,netlink,pkt_sched,pkt_cls}.h`, 6.12.
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const REQUEST_ACK: u16 = 0x1 | 0x4;
const CREATE_EXCLUSIVELY: u16 = 0x400 | 0x200;
/// Handle of an ingress queueing discipline, and of a `clsact`.
const HANDLE: u32 = 0xffff_0000;
const TC_H_CLSACT: u32 = 0xffff_fff1;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`.
const EGRESS: u32 = 0xffff_fff3;
/// Priority 1; `ETH_P_ALL` in the network's order.
const EACH_FRAME: u32 = 1 << 16 | (3_u16.to_be() as u32);
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// `TCA_BPF_FLAG_ACT_DIRECT`: what the program gives back is the verdict.
const DIRECT: u32 = 1;

pub(crate) fn add(device: &str) -> Result<()> {
    let ifindex = last_word::ifindex(device)?;
    let mut discipline = header(ifindex, HANDLE, TC_H_CLSACT, 0);
    attribute(&mut discipline, TCA_KIND, b"clsact\0");
    request(RTM_NEWQDISC, CREATE_EXCLUSIVELY, &discipline).context("no `clsact`")?;
    let program = last_word::load_go_on()?;
    let mut options = Vec::new();
    attribute(&mut options, TCA_BPF_FD, &program.to_ne_bytes());
    attribute(&mut options, TCA_BPF_NAME, b"somebody\0");
    attribute(&mut options, TCA_BPF_FLAGS, &DIRECT.to_ne_bytes());
    let mut filter = header(ifindex, 0, EGRESS, EACH_FRAME);
    attribute(&mut filter, TCA_KIND, b"bpf\0");
    attribute(&mut filter, TCA_OPTIONS, &options);
    request(RTM_NEWTFILTER, CREATE_EXCLUSIVELY, &filter).context("no filter")
}

/// Takes the `clsact` off, with all filters.
pub(crate) fn remove(device: &str) -> Result<()> {
    let ifindex = last_word::ifindex(device)?;
    let discipline = header(ifindex, HANDLE, TC_H_CLSACT, 0);
    request(RTM_DELQDISC, 0, &discipline)
}

/// `struct tcmsg`.
fn header(ifindex: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let words = [0, ifindex, handle, parent, info];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn request(kind: u16, flags: u16, payload: &[u8]) -> Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = Vec::new();
    message.extend((16 + payload.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST_ACK | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(payload);
    socket.send(&message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    // After the header of the answer: the error number, 0 if there is none.
    let error = answer.get(16..20).context("half an answer")?;
    let error = i32::from_ne_bytes(error.try_into()?);
    ensure!(error == 0, std::io::Error::from_raw_os_error(-error));
    Ok(())
}
