//! Gives frames to a tap behind its hold.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use tandem_carry::Frame;

use crate::error::KernelError;
use crate::offloads::{Offloads, is_joined};
use crate::sys;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// It is in the tap's queue.
    Done,
    /// The queue is full: the same frame once more, later.
    Full,
    /// The tap does not take it, and never will: it is too long, its header is none, or the guest takes no such segments in one.
    Refused,
}

/// A packet socket that goes past a tap's programs and queueing discipline, and tells when the tap's own queue is full.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
    device: String,
}

impl Injector {
    /// For the tap of this name.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn new(device: &str) -> Result<Self, KernelError> {
        let call = |what| KernelError::call(what, device);
        let ifindex = rustix::net::netdevice::name_to_index(
            rustix::net::socket(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::DGRAM,
                None,
            )
            .map_err(|error| call("a control socket")(error.into()))?,
            device,
        )
        .map_err(|error| call("looking up")(error.into()))?;
        let socket = sys::packet_socket(ifindex.cast_signed()).map_err(call("a packet socket"))?;
        sys::turn_on(&socket, sys::PACKET_VNET_HDR).map_err(call("PACKET_VNET_HDR"))?;
        sys::turn_on(&socket, sys::PACKET_QDISC_BYPASS).map_err(call("PACKET_QDISC_BYPASS"))?;
        Ok(Self {
            socket,
            device: device.to_owned(),
        })
    }

    /// Gives one frame.
    ///
    /// # Errors
    /// If the tap is gone or down.
    pub fn inject(&self, frame: &Frame) -> io::Result<Injected> {
        match send(&self.socket, frame.bytes(), SendFlags::DONTWAIT) {
            Ok(_) => Ok(Injected::Done),
            Err(Errno::NOBUFS) if is_joined(frame) && !self.offloads().take(frame) => {
                Ok(Injected::Refused)
            }
            Err(Errno::NOBUFS | Errno::AGAIN) => Ok(Injected::Full),
            // `packet_snd` of net/packet/af_packet.c, 6.12.
            Err(Errno::INVAL | Errno::MSGSIZE) => Ok(Injected::Refused),
            Err(error) => Err(error.into()),
        }
    }

    /// What the tap takes in one piece, now.
    pub(crate) fn offloads(&self) -> Offloads {
        Offloads::of(&self.device)
    }
}
