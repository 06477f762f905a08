//! Copies of the descriptors through which a guest's process reads its tap: what it leaves in the tap's queues when it
//! stands still can be read here, and the tap stays for as long as a copy does, with its place in the bridge: what is written here
//! goes to the network as if the guest sent it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::fstat;
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tandem_carry::{Frame, HEADER_BYTES, MAX_FRAME_BYTES, Mac};

use crate::error::KernelError;
use crate::sys;

/// Of a tap's queues (`MAX_TAP_QUEUES` of drivers/net/tun.c, 6.12).
const MOST_QUEUES: usize = 256;

/// Frames that a tap's queues have at most, for all that they are emptied for (`txqueuelen` of a tap is 1,000 unless it is raised).
const MOST_FRAMES: usize = 1_000_000;

/// A tap is no file with places in it (`preadv2(2)`).
const NO_OFFSET: u64 = u64::MAX;

/// All queues of one guest's tap.
#[derive(Debug)]
pub struct TapCopy {
    queues: Vec<File>,
    holders: Vec<i32>,
    /// Before each frame, as the guest's process has asked for.
    header_bytes: usize,
    buffer: Vec<u8>,
}

impl TapCopy {
    /// Of the tap of this name in this thread's network namespace, from the process that has it open. Takes what it takes to
    /// trace that process (`CAP_SYS_PTRACE`, if it is another user's).
    ///
    /// # Errors
    /// If nobody has it, or the kernel does not let it be copied.
    pub fn of(device: &str) -> Result<Self, KernelError> {
        let refused = |reason: String| KernelError::Copy {
            device: device.to_owned(),
            reason,
        };
        let mut queues = Vec::new();
        let mut holders = Vec::new();
        let mut header_bytes = 0;
        let mut last_error = None;
        for (pid, fd) in holders_of(device) {
            if queues.len() == MOST_QUEUES {
                break;
            }
            match copy(device, pid, fd) {
                Ok(Some((queue, bytes))) => {
                    queues.push(queue);
                    holders.push(pid);
                    header_bytes = bytes;
                }
                // It has the same name and is in another network namespace.
                Ok(None) => {}
                Err(error) => last_error = Some(format!("process {pid}: {error}")),
            }
        }
        match (queues.is_empty(), last_error) {
            // Some of the queues would be no more than some of the frames.
            (_, Some(error)) => Err(refused(error)),
            (true, None) => Err(refused(
                "no process that can be looked into has it open".to_owned(),
            )),
            (false, None) => Ok(Self {
                queues,
                holders,
                header_bytes,
                buffer: vec![0; MAX_FRAME_BYTES + 1 + header_bytes],
            }),
        }
    }

    /// How many queues it has.
    pub fn queues(&self) -> u64 {
        self.queues.len() as u64
    }

    /// The next frame that is left in a queue; `None` if there is none. Only while the guest's process reads none: each frame
    /// goes to one reader.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn read(&mut self) -> io::Result<Option<Frame>> {
        // Where the process has no header, zeroes are one.
        let before = HEADER_BYTES.saturating_sub(self.header_bytes);
        let start = self.header_bytes.saturating_sub(HEADER_BYTES);
        let mut queues = self.queues.iter();
        let mut next = queues.next();
        while let Some(queue) = next {
            match read_now(queue, &mut self.buffer[before..]) {
                Ok(0) => next = queues.next(),
                Ok(bytes) => {
                    if start > 0 {
                        self.buffer.copy_within(..HEADER_BYTES, start);
                    }
                    let end = before + bytes;
                    if let Some(frame) = self.buffer.get(start..end).and_then(Frame::new) {
                        return Ok(Some(frame));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => next = queues.next(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Takes out all that is in the queues, in order, of so many bytes at most. Nothing may come in meanwhile.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn take_all(&mut self, most_bytes: usize) -> io::Result<VecDeque<Frame>> {
        let mut frames = VecDeque::new();
        let mut bytes = 0;
        while frames.len() < MOST_FRAMES
            && bytes < most_bytes
            && let Some(frame) = self.read()?
        {
            bytes += frame.bytes().len();
            frames.push_back(frame);
        }
        Ok(frames)
    }

    /// The processes that have the tap open.
    pub fn holders(&self) -> &[i32] {
        &self.holders
    }
}

/// What became of a frame that was given to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarded {
    Done,
    /// The same once more, later.
    Busy,
    /// The tap does not take it, and never will.
    Refused,
}

impl TapCopy {
    /// Gives a frame to the network in the guest's place, with this source MAC: with the true one, the network would believe that
    /// whoever sent it is here.
    pub(crate) fn forward(&mut self, frame: &Frame, source: Mac) -> Forwarded {
        let Some(queue) = self.queues.first() else {
            return Forwarded::Refused;
        };
        let (header, ethernet) = frame.bytes().split_at(HEADER_BYTES);
        let is_whole = header.iter().all(|byte| *byte == 0);
        if self.header_bytes < HEADER_BYTES && !is_whole {
            // Its checksum or its segments can't be told.
            return Forwarded::Refused;
        }
        let (to, rest) = ethernet.split_at(6);
        self.buffer.clear();
        self.buffer
            .extend_from_slice(&header[..self.header_bytes.min(HEADER_BYTES)]);
        self.buffer.resize(self.header_bytes, 0);
        for part in [to, &source, &rest[6..]] {
            self.buffer.extend_from_slice(part);
        }
        let written = write_now(queue, &self.buffer);
        self.buffer
            .resize(MAX_FRAME_BYTES + 1 + self.header_bytes, 0);
        match written {
            Ok(_) => Forwarded::Done,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Forwarded::Busy,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Forwarded::Busy,
            Err(_) => Forwarded::Refused,
        }
    }
}

/// Who has a tap of this name open, by which descriptor. A process that ends meanwhile, or may not be looked into, is none.
fn holders_of(device: &str) -> Vec<(i32, i32)> {
    let line = format!("iff:\t{device}");
    let number = |name: &OsStr| name.to_str()?.parse::<i32>().ok();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = number(&process.file_name()) else {
            continue;
        };
        let folder = process.path();
        for entry in fs::read_dir(folder.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            // libvirt may have opened it in a mount namespace of its own.
            let is_tun = fs::read_link(entry.path())
                .is_ok_and(|target| target.ends_with(Path::new("net/tun")));
            let name = entry.file_name();
            let Some(fd) = number(&name).filter(|_| is_tun) else {
                continue;
            };
            let told = fs::read_to_string(folder.join("fdinfo").join(&name));
            // `tun_chr_show_fdinfo` of drivers/net/tun.c, 6.12.
            if told.is_ok_and(|told| told.lines().any(|one| one == line)) {
                found.push((pid, fd));
            }
        }
    }
    found
}

/// A copy of that descriptor with the length of its header, if it is that tap.
fn copy(device: &str, pid: i32, fd: i32) -> io::Result<Option<(File, usize)>> {
    let process = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let tap = pidfd_open(process, PidfdFlags::empty())
        .and_then(|process| pidfd_getfd(process, fd, PidfdGetfdFlags::empty()));
    let tap = match tap {
        Ok(tap) => tap,
        // It has just ended, or closed it.
        Err(Errno::SRCH | Errno::BADF) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut request = sys::no_request();
    // The number may be another process's, or file's, by now.
    if sys::ask(&tap, libc::TUNGETIFF, &mut request).is_err()
        || sys::name_of(&request) != device
        || !is_here(&tap)?
    {
        return Ok(None);
    }
    let flags = sys::flags_of(&request);
    if flags & libc::IFF_TAP == 0 || flags & libc::IFF_NO_PI == 0 {
        return Err(io::Error::other("it is read in another way than a guest's"));
    }
    let header_bytes = if flags & libc::IFF_VNET_HDR == 0 {
        0
    } else {
        usize::try_from(sys::number(&tap, libc::TUNGETVNETHDRSZ)?).map_err(io::Error::other)?
    };
    Ok(Some((File::from(tap), header_bytes)))
}

/// Never waits: libvirt opens a tap so that a reader does, until QEMU says otherwise, and the flag is that process's own file's too, so
/// it is not for us to change.
fn read_now(queue: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut buffers = [IoSliceMut::new(buffer)];
    Ok(preadv2(
        queue,
        &mut buffers,
        NO_OFFSET,
        ReadWriteFlags::NOWAIT,
    )?)
}

/// Never waits either.
fn write_now(queue: &File, bytes: &[u8]) -> io::Result<usize> {
    let buffers = [IoSlice::new(bytes)];
    Ok(pwritev2(
        queue,
        &buffers,
        NO_OFFSET,
        ReadWriteFlags::NOWAIT,
    )?)
}

/// True if the tap is in this thread's network namespace.
fn is_here(tap: impl AsFd) -> io::Result<bool> {
    let there = fstat(sys::network_of(tap)?)?;
    let here = fstat(File::open("/proc/thread-self/ns/net")?)?;
    Ok((there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
}
