//! What keeps a thread ready to run within microseconds: a real-time priority, and its
//! program and stack in memory.

use std::{fs, io};

use crate::socket_option::checked;

/// Bytes of its stack that a thread of the fast path uses at most, and some more.
const STACK_BYTES: usize = 32 * 1024;
const PAGE_BYTES: usize = 4096;

/// How soon a thread runs once it is woken. Lower than the threads of the kernel's own
/// interrupts (50, `sched_set_fifo`, kernel/sched/syscalls.c, 6.12), which bring it work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// Before everything that is not real time.
    Normal,
    /// And before [`Priority::Normal`].
    High,
}

impl Priority {
    /// Within `LimitRTPRIO=` of the service's unit.
    fn number(self) -> i32 {
        match self {
            Self::Normal => 1,
            Self::High => 2,
        }
    }
}

/// Has the calling thread run with a real-time priority.
///
/// # Errors
/// The kernel refused: it takes `CAP_SYS_NICE`, or `RLIMIT_RTPRIO` (sched(7)).
#[expect(unsafe_code, reason = "no crate in use sets a scheduling policy")]
pub(super) fn run_first(priority: Priority) -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: priority.number(),
    };
    // SAFETY: `parameters` is complete, and the call only reads it. 0 is this thread.
    checked(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) })
}

/// Touches and locks the upper part of the calling thread's stack, and locks what is in
/// memory of the program, now and later: code that was read once is not given up again.
/// What is never run is never read, so that this costs next to nothing.
///
/// # Errors
/// The kernel refused: it takes `CAP_IPC_LOCK`, or `RLIMIT_MEMLOCK` (mlock(2)).
pub(super) fn stay_in_memory() -> io::Result<()> {
    lock_stack()?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    for (start, bytes) in maps.lines().filter_map(code) {
        lock(start, bytes)?;
    }
    Ok(())
}

fn lock_stack() -> io::Result<()> {
    let mut used = [0u8; STACK_BYTES];
    for byte in used.iter_mut().step_by(PAGE_BYTES) {
        // Written to, so that the page is there.
        *std::hint::black_box(byte) = 1;
    }
    lock(used.as_ptr().addr(), used.len())
}

/// Address and length of a mapping of a file's code, of a line of `/proc/self/maps`
/// (`show_map_vma`, `fs/proc/task_mmu.c`, 6.12).
fn code(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_code = words.next()?.starts_with("r-x");
    let is_file = words.nth(3)?.starts_with('/');
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    (is_code && is_file).then_some((start, end.checked_sub(start)?))
}

/// Keeps pages in memory, each from the moment it is first there.
#[expect(
    unsafe_code,
    reason = "no crate in use locks pages as they are touched"
)]
fn lock(start: usize, bytes: usize) -> io::Result<()> {
    // SAFETY: the kernel takes any range, and changes only whether its pages may be given up.
    checked(unsafe {
        libc::mlock2(
            std::ptr::without_provenance(start),
            bytes,
            libc::MLOCK_ONFAULT,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_kept() {
        let line = |rest: &str| code(&format!("55d0c000-55d0d000 {rest}"));
        assert_eq!(
            line("r-xp 00002000 08:01 123   /usr/bin/tandem"),
            Some((0x55d0_c000, 0x1000))
        );
        assert_eq!(line("r--p 00002000 08:01 123   /usr/bin/tandem"), None);
        assert_eq!(line("rw-p 00000000 00:00 0 "), None);
        assert_eq!(line("r-xp 00000000 00:00 0     [vdso]"), None);
        assert_eq!(code("rubbish"), None);
    }

    #[test]
    fn a_thread_stays_in_memory_where_its_limit_allows() {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
        let text = fs::read_to_string("/proc/self/maps").unwrap();
        let needed: usize = text.lines().filter_map(code).map(|(_, bytes)| bytes).sum();
        assert!(needed > 0, "{text}");
        if limit.is_none_or(|limit| limit > (needed + STACK_BYTES) as u64 * 2) {
            std::thread::spawn(stay_in_memory).join().unwrap().unwrap();
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let locked = status.lines().find(|line| line.starts_with("VmLck:"));
            assert_ne!(locked, Some("VmLck:\t       0 kB"));
        }
    }
}
