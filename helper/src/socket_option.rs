//! Options of sockets that no crate in use has, and what system calls of libc return.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets an option to a value; what the value points to has to live as long as the call.
#[expect(unsafe_code, reason = "no crate in use has the options that are set")]
pub(crate) fn set<T>(
    socket: impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: setsockopt only reads the value, of the length given, and what the value points to.
    checked(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
}

/// Has the kernel run a classic BPF program on what arrives; replaces the one before.
pub(crate) fn attach_filter(
    socket: impl AsFd,
    instructions: &[libc::sock_filter],
) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        // The kernel only reads them.
        filter: instructions.as_ptr().cast_mut(),
    };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Of a call that returns 0 if it worked.
pub(crate) fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
