//! A guest's tap, of one queue or of several, as the guest's process has it open.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use tandem_carry::{Frame, MAX_FRAME_BYTES};

use crate::network::ip;

/// The kernel puts a number in place of `%d`.
const NAME: &str = "guest%d";
const OFFLOADS: libc::c_uint =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;

pub(crate) struct GuestTap {
    queues: Vec<File>,
    name: String,
    /// The queue that is read next.
    next: usize,
    buffer: Vec<u8>,
}

impl GuestTap {
    /// In this thread's network namespace.
    pub(crate) fn new(queues: usize) -> Self {
        let mut name = NAME.to_owned();
        let queues: Vec<_> = (0..queues)
            .map(|_| {
                let queue = File::options()
                    .read(true)
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open("/dev/net/tun")
                    .expect("taps can be made");
                name = attach(&queue, &name, queues > 1);
                queue
            })
            .collect();
        let tap = Self {
            queues,
            name,
            next: 0,
            buffer: vec![0; MAX_FRAME_BYTES + 1],
        };
        set_offloads(&tap, OFFLOADS);
        ip(&format!("link set {} txqueuelen 10000", tap.name));
        ip(&format!("link set {} arp off up", tap.name));
        tap
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A frame of the queue whose turn it is, or of another one if that has none; and which one that was.
    pub(crate) fn read(&mut self) -> Option<(usize, Frame)> {
        for _ in 0..self.queues.len() {
            let at = self.next;
            self.next = (at + 1) % self.queues.len();
            match self.queues[at].read(&mut self.buffer) {
                Ok(bytes) => return Some((at, Frame::new(&self.buffer[..bytes])?)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{}: {error}", self.name),
            }
        }
        None
    }

    /// The guest sends a frame by that queue.
    pub(crate) fn write(&mut self, queue: usize, frame: &Frame) {
        self.queues[queue]
            .write_all(frame.bytes())
            .expect("the guest sends");
    }
}

impl AsFd for GuestTap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queues[0].as_fd()
    }
}

/// Makes the tap of that name, or opens another queue of it. Its name.
fn attach(queue: &File, name: &str, has_several: bool) -> String {
    let flags = libc::IFF_TAP
        | libc::IFF_NO_PI
        | libc::IFF_VNET_HDR
        | if has_several {
            libc::IFF_MULTI_QUEUE
        } else {
            0
        };
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: flags as libc::c_short,
        },
    };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    #[expect(unsafe_code, reason = "no crate in use has it as a safe call")]
    // SAFETY: it reads and writes one request.
    let result = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert_eq!(result, 0, "a tap takes root");
    let bytes = request.ifr_name.iter().take_while(|byte| **byte != 0);
    bytes.map(|byte| char::from(byte.cast_unsigned())).collect()
}

/// As a guest leaves its tap whose driver takes every segment by itself.
pub(crate) fn without_offloads(tap: &GuestTap) {
    set_offloads(tap, 0);
}

fn set_offloads(tap: &GuestTap, offloads: libc::c_uint) {
    #[expect(unsafe_code, reason = "no crate in use has it as a safe call")]
    // SAFETY: it takes the number itself.
    let result = unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, offloads) };
    assert_eq!(result, 0, "a tap's offloads can be set");
}
