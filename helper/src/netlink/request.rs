//! Requests to rtnetlink: one at a time over a socket of its own, blocking.
//!
//! Blocking on purpose: the kernel carries a request out inside `sendmsg`, under
//! its RTNL lock, which a driver may hold for seconds. So requests belong on a
//! thread where waiting harms nobody (`tokio::task::spawn_blocking`).

use std::io;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NetlinkSerializable,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::message::{NLMSG_DONE, NLMSG_ERROR, messages};
use super::{attribute, text_of};

/// `NLMSGERR_ATTR_MSG`, `include/uapi/linux/netlink.h`, 6.12.
const NLMSGERR_ATTR_MSG: u16 = 1;
const HEADER_BYTES: usize = 16;
/// The kernel fills at most 32 KiB of a dump into one datagram (`netlink_dump`,
/// `net/netlink/af_netlink.c`, 6.12).
const BUFFER_BYTES: usize = 64 * 1024;
/// Longest wait for all answers to one request.
const LIMIT: Duration = Duration::from_secs(4);
/// A dump that changes interrupt is repeated until it was made this often.
const DUMP_ATTEMPTS: u32 = 8;

/// A request that brought nothing about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The kernel refused it.
    #[error("{message} (errno {errno})")]
    Refused {
        /// The error number, positive.
        errno: i32,
        /// The kernel's own words if it gave any, else the error number's.
        message: String,
    },
    /// The socket failed.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    /// The kernel gave no answer in time.
    #[error("the kernel did not answer within {} s", LIMIT.as_secs())]
    TimedOut,
    /// Each attempt of a dump was interrupted by a change.
    #[error("the kernel's tables changed during each of {DUMP_ATTEMPTS} readings")]
    Unsteady,
}

impl RequestError {
    /// The error number, positive; 0 if there is none.
    pub(crate) fn errno(&self) -> i32 {
        match self {
            Self::Refused { errno, .. } => *errno,
            Self::Socket(error) => error.raw_os_error().unwrap_or(0),
            Self::TimedOut | Self::Unsteady => 0,
        }
    }

    /// The reason without the error number, for those who tell that by themselves.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Refused { message, .. } => message.clone(),
            Self::Socket(error) => format!("netlink: {}", io_reason(error)),
            Self::TimedOut | Self::Unsteady => self.to_string(),
        }
    }

    /// What it was about is not there: device, address, route or nexthop.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(
            self.errno(),
            libc::ENODEV | libc::ENXIO | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL
        )
    }
}

/// An error's reason without its number, which the standard library appends.
pub(crate) fn io_reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

/// A socket for requests.
pub(crate) struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, RequestError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        // Lets the kernel filter dumps by link, and by a route's device.
        socket.set_netlink_get_strict_chk(true)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(LIMIT)).map_err(io::Error::from)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        })
    }

    /// Sends a change and waits for its acknowledgement.
    pub(crate) fn change(
        &mut self,
        message: &RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), RequestError> {
        self.change_raw(message.message_type(), flags, &payload_of(message))
    }

    /// As [`Requests::change`], for messages that the library does not know.
    pub(crate) fn change_raw(
        &mut self,
        message_type: u16,
        flags: u16,
        payload: &[u8],
    ) -> Result<(), RequestError> {
        self.send(message_type, NLM_F_ACK | flags, payload)?;
        self.receive(|_| ()).map(|_| ())
    }

    /// Asks for one object; `None` if it is not there, or `decode` makes nothing of it.
    pub(crate) fn get<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        mut decode: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, RequestError> {
        self.send(message.message_type(), NLM_F_ACK, &payload_of(message))?;
        let mut found = None;
        match self.receive(|payload| found = decode(payload)) {
            Ok(_) => Ok(found),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for all objects of a kind and keeps what `decode` makes of them; one
    /// that it makes nothing of does not spoil the others.
    pub(crate) fn dump<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        decode: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, RequestError> {
        self.dump_raw(message.message_type(), &payload_of(message), decode)
    }

    /// As [`Requests::dump`], of IPv4 and IPv6.
    pub(crate) fn dump_both<T>(
        &mut self,
        mut decode: impl FnMut(&[u8]) -> Option<T>,
        message: impl Fn(AddressFamily) -> RouteNetlinkMessage,
    ) -> Result<Vec<T>, RequestError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            match self.dump(&message(family), &mut decode) {
                Ok(some) => found.extend(some),
                // A dump of a link that is gone, or that has no IPv6.
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// As [`Requests::dump`], for messages that the library does not know.
    pub(crate) fn dump_raw<T>(
        &mut self,
        message_type: u16,
        payload: &[u8],
        mut decode: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, RequestError> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(message_type, NLM_F_DUMP, payload)?;
            let mut found = Vec::new();
            let interrupted = self.receive(|payload| found.extend(decode(payload)))?;
            if !interrupted {
                return Ok(found);
            }
        }
        Err(RequestError::Unsteady)
    }

    fn send(&mut self, message_type: u16, flags: u16, payload: &[u8]) -> Result<(), RequestError> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER_BYTES + payload.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(message_type.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(payload);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Passes on each answer to the last request, up to its end; true if a dump
    /// was interrupted by a change.
    fn receive(&mut self, mut each: impl FnMut(&[u8])) -> Result<bool, RequestError> {
        let deadline = Instant::now() + LIMIT;
        let mut interrupted = false;
        while Instant::now() < deadline {
            self.buffer.clear();
            let received = match self.socket.recv(&mut self.buffer, libc::MSG_TRUNC) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if received > self.buffer.len() {
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE).into());
            }
            for message in messages(&self.buffer) {
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.message_type {
                    NLMSG_ERROR | NLMSG_DONE => {
                        refusal(message.message_type, message.flags, message.payload)?;
                        return Ok(interrupted);
                    }
                    _ => each(message.payload),
                }
            }
        }
        Err(RequestError::TimedOut)
    }
}

fn payload_of(message: &RouteNetlinkMessage) -> Vec<u8> {
    let mut payload = vec![0; message.buffer_len()];
    message.serialize(&mut payload);
    payload
}

/// Reads the error number, and the extended ACK's text if there is one.
pub(crate) fn refusal(message_type: u16, flags: u16, payload: &[u8]) -> Result<(), RequestError> {
    let number = payload.get(..4).and_then(super::u32_of).unwrap_or(0);
    let errno = number.cast_signed().wrapping_neg();
    if errno <= 0 {
        return Ok(());
    }
    // `NLMSG_ERROR` repeats the request's header, and all of the request unless capped.
    let repeated = match message_type {
        NLMSG_ERROR if flags & NLM_F_CAPPED == 0 => payload
            .get(4..8)
            .and_then(super::u32_of)
            .map_or(0, |length| (length as usize).next_multiple_of(4)),
        NLMSG_ERROR => HEADER_BYTES,
        _ => 0,
    };
    let words = (flags & NLM_F_ACK_TLVS != 0)
        .then(|| payload.get(4 + repeated..))
        .flatten()
        .and_then(|attributes| attribute(attributes, NLMSGERR_ATTR_MSG))
        .and_then(text_of);
    let message = match words {
        Some(words) => words.to_owned(),
        None => io_reason(&io::Error::from_raw_os_error(errno)),
    };
    Err(RequestError::Refused { errno, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 6.12 sends it for a bond option that ports forbid: capped, with a text.
    fn refused_bytes(flags: u16, repeated: &[u8]) -> Vec<u8> {
        let mut bytes = (-libc::ENOTEMPTY).to_ne_bytes().to_vec();
        bytes.extend(repeated);
        if flags & NLM_F_ACK_TLVS != 0 {
            let text = b"unable to set option because the bond device has slaves\0";
            bytes.extend(u16::try_from(text.len() + 4).unwrap().to_ne_bytes());
            bytes.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
            bytes.extend(text);
        }
        bytes
    }

    #[test]
    fn keeps_the_error_number_and_the_kernels_words() {
        let mut header = 32_u32.to_ne_bytes().to_vec();
        header.extend([0; 12]);
        let mut whole = header.clone();
        whole.extend([7; 16]);
        for (flags, repeated) in [
            (NLM_F_ACK_TLVS | NLM_F_CAPPED, &header),
            (NLM_F_ACK_TLVS, &whole),
        ] {
            let bytes = refused_bytes(flags, repeated);
            let error = refusal(NLMSG_ERROR, flags, &bytes).unwrap_err();
            assert_eq!(error.errno(), libc::ENOTEMPTY);
            let words = "unable to set option because the bond device has slaves";
            assert_eq!(error.reason(), words);
            assert_eq!(error.to_string(), format!("{words} (errno 39)"));
        }
        let error = refusal(NLMSG_ERROR, 0, &refused_bytes(0, &header)).unwrap_err();
        assert_eq!(error.errno(), libc::ENOTEMPTY);
        assert_eq!(error.reason(), "Directory not empty");
        assert!(refusal(NLMSG_ERROR, NLM_F_CAPPED, &[0; 20]).is_ok());
        assert!(refusal(NLMSG_DONE, 0, &[]).is_ok());
    }

    #[test]
    fn an_absent_link_is_no_error() {
        use netlink_packet_route::link::LinkMessage;
        let mut message = LinkMessage::default();
        message.header.index = u32::from(u16::MAX) * 1000;
        let found = Requests::open()
            .and_then(|mut requests| {
                requests.get(&RouteNetlinkMessage::GetLink(message), |_| Some(()))
            })
            .unwrap();
        assert_eq!(found, None);
    }
}
