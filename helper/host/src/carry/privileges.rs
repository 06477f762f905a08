//! What the process of a half may do: little while it opens its tap, next to nothing once it reads another host's bytes.
//!
//! Capabilities are each thread's own: whoever starts one decides what it inherits.

use rustix::io::{self, Errno};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// To make a tap, load and attach programs, open a packet socket, and find and copy a QEMU's descriptors: that QEMU may be
/// another user's, whose `/proc/PID/fd` nobody else lists (`proc_fd_permission` of fs/proc/fd.c, Linux 6.12).
const TO_OPEN: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::DAC_OVERRIDE);

/// For this thread and those that it starts: nothing but what it takes to open the tap, and no program that is started gains
/// more. To be called before there is another thread.
///
/// # Errors
/// The kernel refused.
pub(super) fn keep_few() -> io::Result<()> {
    set_no_new_privs(true)?;
    for one in CapabilitySet::all().difference(TO_OPEN).iter() {
        match remove_capability_from_bounding_set(one) {
            // An older kernel does not know it, or it is not for this user to change, who gains nothing either.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    keep(TO_OPEN)
}

/// For this thread: nothing, as all is open. A plain QEMU's control socket may be another user's, and has to be found again when
/// `migrate` is dead.
///
/// # Errors
/// The kernel refused.
pub(super) fn drop_rest(uri: &str) -> io::Result<()> {
    keep(if uri.starts_with("qmp:") {
        CapabilitySet::DAC_OVERRIDE
    } else {
        CapabilitySet::empty()
    })
}

/// For this thread, which only moves bytes.
///
/// # Errors
/// The kernel refused.
pub(super) fn drop_all() -> io::Result<()> {
    keep(CapabilitySet::empty())
}

fn keep(few: CapabilitySet) -> io::Result<()> {
    let has = capabilities(None)?;
    let permitted = has.permitted & few;
    let sets = CapabilitySets {
        effective: has.effective & permitted,
        permitted,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::thread::no_new_privs;

    use super::*;

    fn has() -> CapabilitySet {
        let has = capabilities(None).unwrap();
        has.permitted | has.effective | has.inheritable
    }

    #[test]
    fn a_thread_keeps_what_it_needs_and_its_children_no_more() {
        let before = has();
        thread::scope(|scope| {
            scope.spawn(|| {
                keep_few().unwrap();
                assert!(no_new_privs().unwrap());
                assert_eq!(has(), before & TO_OPEN);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        drop_all().unwrap();
                        assert_eq!(has(), CapabilitySet::empty());
                    });
                });
                drop_rest("qmp:/run/a.qmp").unwrap();
                assert_eq!(has(), before & CapabilitySet::DAC_OVERRIDE);
                drop_rest("qemu:///system").unwrap();
                assert_eq!(has(), CapabilitySet::empty());
            });
        });
        assert_eq!(has(), before, "another thread's are its own");
    }
}
