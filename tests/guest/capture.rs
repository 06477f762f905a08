//! Captures the unicast frames of all ports, also of one that comes meanwhile, with the kernel's own times.

use std::io;
use std::mem::{MaybeUninit, size_of, size_of_val};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use tandem_lab::probe::capture::{
    CAPTURE_LIMIT, CAPTURED_BYTES, Capture, CaptureSpec, Captured, number_of,
};

/// Frames are taken from the socket so often: to wake up for each would slow an emulated guest down.
const BATCH: Duration = Duration::from_millis(20);
/// Room for what passes meanwhile, and while this process does not run, in bytes.
const BUFFER_BYTES: usize = 16 << 20;
const CONTROL_BYTES: usize = 64;
/// 1: a frame's time is that at which the driver passed on the batch that it came in. 0: that at which the stack
/// came to this frame (`netif_receive_skb_list_internal` and `__netif_receive_skb_core`, net/core/dev.c, 6.12).
const STAMP_BATCHES: &str = "/proc/sys/net/core/netdev_tstamp_prequeue";

/// The capture under way, if there is one.
#[derive(Default)]
pub(crate) struct Captures {
    running: Mutex<Option<Running>>,
}

struct Running {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Result<Capture>>,
}

impl Captures {
    pub(crate) fn start(&self, spec: CaptureSpec) -> Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() {
            bail!("a capture is already under way");
        }
        // An emulated processor takes some ms for a batch, and programs of the port see each frame in its turn.
        std::fs::write(STAMP_BATCHES, "0")
            .with_context(|| format!("cannot have frames stamped one by one: {STAMP_BATCHES}"))?;
        let socket = open(spec.bond).context("cannot open a packet socket")?;
        let ended = Arc::new(AtomicBool::new(false));
        let is_ended = Arc::clone(&ended);
        let thread = std::thread::spawn(move || take_all(&socket, spec.probe, &is_ended));
        *running = Some(Running { ended, thread });
        Ok(())
    }

    pub(crate) fn end(&self) -> Result<Capture> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Running { ended, thread } = running.take().context("no capture is under way")?;
        ended.store(true, Ordering::Relaxed);
        match thread.join() {
            Ok(capture) => capture,
            Err(_) => bail!("the capture panicked"),
        }
    }
}

fn take_all(socket: &OwnedFd, probe: u32, ended: &AtomicBool) -> Result<Capture> {
    let mut capture = Capture::default();
    loop {
        let last = ended.load(Ordering::Relaxed);
        while let Some(frame) = take(socket, probe).context("cannot read a packet socket")? {
            match capture.frames.len() < CAPTURE_LIMIT {
                true => capture.frames.push(frame),
                false => capture.missed += 1,
            }
        }
        if last {
            capture.missed += dropped(socket).context("cannot ask for the frames missed")?;
            return Ok(capture);
        }
        std::thread::sleep(BATCH);
    }
}

/// A socket for the unicast frames of all interfaces but one.
fn open(except: u32) -> io::Result<OwnedFd> {
    // Protocol 0: nothing is received before the filter is there.
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)?;
    attach(&socket, except)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1_i32)?;
    // packet(7): ifindex 0 is any interface.
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    #[expect(unsafe_code, reason = "rustix binds no AF_PACKET sockets")]
    // SAFETY: `address` is a complete sockaddr_ll of the length given, and bind only reads it.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    done(result).map(|()| socket)
}

/// Has the kernel pass over the frames of one interface and those to more than one station, and keep the heads of
/// all others. A packet socket's filter sees the frame from its target's MAC on (`packet_rcv`,
/// `net/packet/af_packet.c`, 6.12).
fn attach(socket: &OwnedFd, except: u32) -> io::Result<()> {
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let ifindex = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX).cast_unsigned();
    let (load_word, load_byte) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_LD | libc::BPF_B | libc::BPF_ABS,
    );
    let (if_equal, if_set) = (
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K,
    );
    let give = libc::BPF_RET | libc::BPF_K;
    let mut steps = [
        step(load_word, ifindex, 0, 0),
        step(if_equal, except, 3, 0),
        step(load_byte, 0, 0, 0),
        step(if_set, 1, 1, 0),
        step(give, CAPTURED_BYTES as u32, 0, 0),
        step(give, 0, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

fn set<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    #[expect(unsafe_code, reason = "rustix lacks these options")]
    // SAFETY: the value is a complete one of the length given, what it points to lives as long, and setsockopt only
    // reads both.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    done(result)
}

/// Room for control messages, aligned as their heads are.
#[repr(align(8))]
struct Control([u8; CONTROL_BYTES]);

/// The next frame; nothing if there is none now.
fn take(socket: &OwnedFd, probe: u32) -> io::Result<Option<Captured>> {
    let mut bytes = [0_u8; CAPTURED_BYTES];
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let mut sender = MaybeUninit::<libc::sockaddr_ll>::zeroed();
    #[expect(unsafe_code, reason = "rustix knows neither the address nor the time")]
    // SAFETY: all fields of both are numbers or pointers, for which zero is a value; the message's buffers live until
    // recvmsg is back, which fills no more than the lengths given; the control messages are walked as cmsg(3) has it,
    // and a time is read from one that says that it holds one.
    let (length, sender, at) = unsafe {
        let mut message: libc::msghdr = MaybeUninit::zeroed().assume_init();
        message.msg_name = sender.as_mut_ptr().cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        let length = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT);
        let mut at = None;
        let mut head = libc::CMSG_FIRSTHDR(&raw const message);
        while length >= 0 && !head.is_null() {
            if (*head).cmsg_level == libc::SOL_SOCKET && (*head).cmsg_type == libc::SCM_TIMESTAMPNS
            {
                let time = libc::CMSG_DATA(head).cast::<libc::timespec>();
                at = Some(time.read_unaligned());
            }
            head = libc::CMSG_NXTHDR(&raw const message, head);
        }
        (length, sender.assume_init(), at)
    };
    let Ok(length) = usize::try_from(length) else {
        return match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error => Err(error),
        };
    };
    let at = at.ok_or_else(|| io::Error::other("a frame came without its time"))?;
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    Ok(Some(Captured {
        at_us: seconds * 1_000_000 + u64::try_from(at.tv_nsec).unwrap_or(0) / 1000,
        port: sender.sll_ifindex.cast_unsigned(),
        outgoing: sender.sll_pkttype == libc::PACKET_OUTGOING,
        number: number_of(bytes.get(..length).unwrap_or(&bytes), probe),
    }))
}

/// How many frames found no room in the socket's buffer.
fn dropped(socket: &OwnedFd) -> io::Result<u64> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    #[expect(unsafe_code, reason = "rustix lacks this option")]
    // SAFETY: getsockopt writes to the statistics no more than the length given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    done(result).map(|()| u64::from(statistics.tp_drops))
}

fn done(result: i32) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
