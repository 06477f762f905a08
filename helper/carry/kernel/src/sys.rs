//! Calls that no crate in use has: a device's requests by its name, and options of packet sockets.

#![expect(unsafe_code, reason = "ioctl, bind and setsockopt by pointer")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// The frame's header goes before it (`if_packet.h` of include/uapi/linux, 6.12).
pub(crate) const PACKET_VNET_HDR: libc::c_int = 15;
/// Past queueing discipline and programs, to the device's own queue; a full one is told (the same).
pub(crate) const PACKET_QDISC_BYPASS: libc::c_int = 20;

/// `struct ifreq` for a device of this name.
pub(crate) fn request_for(name: &str) -> io::Result<libc::ifreq> {
    let mut request = no_request();
    let bytes = name.as_bytes();
    // The last byte stays zero.
    if bytes.is_empty() || bytes.len() >= request.ifr_name.len() || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    Ok(request)
}

/// `struct ifreq` to be filled in by the kernel.
pub(crate) const fn no_request() -> libc::ifreq {
    // SAFETY: all zeroes are a valid ifreq.
    unsafe { std::mem::zeroed() }
}

/// The flags that the kernel has put into a request.
pub(crate) fn flags_of(request: &libc::ifreq) -> libc::c_int {
    // SAFETY: every member is plain numbers.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    libc::c_int::from(flags.cast_unsigned())
}

/// The name that the kernel has put into a request.
pub(crate) fn name_of(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.iter().take_while(|byte| **byte != 0);
    let bytes: Vec<u8> = bytes.map(|byte| byte.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A request about a device.
pub(crate) fn ask(fd: impl AsFd, code: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the codes used here read and write one ifreq.
    checked(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), code, &raw mut *request) })
}

/// A request with a number.
pub(crate) fn tell(fd: impl AsFd, code: libc::Ioctl, value: libc::c_uint) -> io::Result<()> {
    // SAFETY: the codes used here take the number itself.
    checked(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), code, libc::c_ulong::from(value)) })
}

/// A command of ethtool about a device; `data` is the command and what belongs to it, as long as the kernel reads and writes it.
pub(crate) fn ethtool(fd: impl AsFd, device: &str, data: &mut [u8]) -> io::Result<()> {
    /// `SIOCETHTOOL` (include/uapi/linux/sockios.h, 6.12).
    const ETHTOOL: libc::Ioctl = 0x8946;
    let mut request = request_for(device)?;
    request.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
    ask(fd, ETHTOOL, &mut request)
}

/// A number that is asked for.
pub(crate) fn number(fd: impl AsFd, code: libc::Ioctl) -> io::Result<libc::c_int> {
    let mut number: libc::c_int = 0;
    // SAFETY: the codes used here write one number.
    checked(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), code, &raw mut number) })?;
    Ok(number)
}

/// The network namespace of a tap.
pub(crate) fn network_of(tap: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: it takes no argument.
    let fd = unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNGETDEVNETNS) };
    checked(fd)?;
    // SAFETY: the kernel has just made it for this process alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A packet socket that sends to this device and receives nothing.
pub(crate) fn packet_socket(ifindex: libc::c_int) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: ifindex,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a complete sockaddr_ll of the length given, and bind only reads it.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    checked(result).map(|()| socket)
}

/// Turns an option of a packet socket on.
pub(crate) fn turn_on(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: setsockopt only reads the number of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    checked(result)
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
