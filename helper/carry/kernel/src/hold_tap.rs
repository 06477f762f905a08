//! The tap that frames are held in.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::net::{AddressFamily, SocketType, socket};
use tandem_carry::{Frame, MAX_FRAME_BYTES, Mac};

use crate::error::KernelError;
use crate::offloads::Offloads;
use crate::sys;

/// The kernel puts a number in place of `%d`.
const NAME: &str = "tdm%d";
/// Frames that it takes until they are read. Each is a pointer in the kernel's ring.
const QUEUE_FRAMES: libc::c_int = 10_000;
/// What may stay in one piece.
const OFFLOADS: libc::c_uint =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
/// Since Linux 6.2.
const UDP_OFFLOADS: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// A tap that is read and never written. It goes when this is dropped.
#[derive(Debug)]
pub struct HoldTap {
    tap: File,
    name: String,
    ifindex: libc::c_int,
    own: Mac,
    buffer: Vec<u8>,
}

impl HoldTap {
    /// Makes one in this thread's network namespace.
    ///
    /// # Errors
    /// If the kernel refuses a part of it; nothing is left then.
    pub fn new() -> Result<Self, KernelError> {
        let call = |what| KernelError::call(what, "/dev/net/tun");
        let tap = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(call("opening"))?;
        let mut request = sys::request_for(NAME).map_err(call("naming"))?;
        request.ifr_ifru.ifru_flags =
            (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        sys::ask(&tap, libc::TUNSETIFF, &mut request).map_err(call("making a tap"))?;
        let name = sys::name_of(&request);
        let call = |what| KernelError::call(what, &name);
        // What may be held whole need not be cut into segments.
        set_offloads(&tap, OFFLOADS | UDP_OFFLOADS).map_err(call("turning on the offloads"))?;
        let control = socket(AddressFamily::INET, SocketType::DGRAM, None)
            .map_err(|error| call("a control socket")(error.into()))?;
        let (own, ifindex) = bring_up(&control, &name)?;
        Ok(Self {
            tap,
            name,
            ifindex,
            own,
            buffer: vec![0; MAX_FRAME_BYTES + 1],
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Only what a tap with these takes in one piece is held in one.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub(crate) fn follow(&self, offloads: Offloads) -> io::Result<()> {
        set_offloads(&self.tap, offloads.flags())
    }

    /// Its MAC, which the kernel has drawn.
    pub(crate) const fn own_mac(&self) -> Mac {
        self.own
    }

    /// Its ifindex.
    pub(crate) fn ifindex(&self) -> u64 {
        u64::from(self.ifindex.unsigned_abs())
    }

    /// The next frame that is held; `None` if there is none for now. What the kernel itself sends to this tap, such as
    /// IPv6's announcements, is passed over.
    ///
    /// # Errors
    /// If the tap is gone.
    pub fn read(&mut self) -> io::Result<Option<Frame>> {
        loop {
            match self.tap.read(&mut self.buffer) {
                Ok(bytes) => match Frame::new(&self.buffer[..bytes]) {
                    Some(frame) if frame.source() != self.own => return Ok(Some(frame)),
                    _ => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for HoldTap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}

fn set_offloads(tap: &File, offloads: libc::c_uint) -> io::Result<()> {
    sys::tell(tap, libc::TUNSETOFFLOAD, offloads)
        .or_else(|_| sys::tell(tap, libc::TUNSETOFFLOAD, offloads & OFFLOADS))
}

/// Its queue gets its length while nothing uses it. Its MAC and ifindex.
fn bring_up(control: &OwnedFd, name: &str) -> Result<(Mac, libc::c_int), KernelError> {
    let ask = |what, code, fill: &dyn Fn(&mut libc::ifreq)| {
        let mut request = sys::request_for(name).map_err(KernelError::call("naming", name))?;
        fill(&mut request);
        sys::ask(control, code, &mut request).map_err(KernelError::call(what, name))?;
        Ok(request)
    };
    ask(
        "setting the queue's length",
        libc::SIOCSIFTXQLEN,
        &|request| {
            request.ifr_ifru.ifru_metric = QUEUE_FRAMES;
        },
    )?;
    ask("bringing up", libc::SIOCSIFFLAGS, &|request| {
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_NOARP) as libc::c_short;
    })?;
    let mac = ask("asking for the MAC", libc::SIOCGIFHWADDR, &|_| {})?;
    let index = ask("asking for the ifindex", libc::SIOCGIFINDEX, &|_| {})?;
    #[expect(unsafe_code, reason = "ifreq is a union")]
    // SAFETY: the kernel has filled in the member of each request.
    let (mac, ifindex) = unsafe {
        (
            mac.ifr_ifru.ifru_hwaddr.sa_data,
            index.ifr_ifru.ifru_ifindex,
        )
    };
    let [a, b, c, d, e, f, ..] = mac.map(|byte| byte.cast_unsigned());
    Ok(([a, b, c, d, e, f], ifindex))
}
