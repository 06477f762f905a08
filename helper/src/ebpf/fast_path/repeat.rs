//! Announces again, on a thread of its own, while the fast path's thread may wait for RTNL.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use tandem_ebpf::MAX_BONDS;

use super::thread::{Armed, find};

/// When all announcements are sent again: a fabric may have missed one, or a queue was full.
/// The second time is about when a removal has closed the VF's link.
const REPEATS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];

/// The announcements of a bond are to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Again {
    pub(super) bond: u32,
    pub(super) standby: u32,
}

impl Again {
    /// Asks for nothing; no link has the index 0.
    pub(super) const REHEARSAL: Self = Self {
        bond: 0,
        standby: 0,
    };
}

/// Sends the announcements of each armed VF again, as long as it stays armed: the machine
/// disarms it once the bond has followed, and announces itself then.
pub(super) fn repeat_announcements(wanted: &Receiver<Again>, armed: &Armed) {
    let mut due: Vec<(Instant, Again)> = Vec::with_capacity(REPEATS.len() * MAX_BONDS as usize);
    loop {
        let now = Instant::now();
        for (_, again) in due.extract_if(.., |(at, _)| *at <= now) {
            let found = find(armed, again.bond);
            if let Some(ready) = found.filter(|ready| ready.standby == again.standby) {
                ready.announce(&ready.announcements);
            }
        }
        let next = due.iter().map(|(at, _)| *at).min();
        let received = match next {
            Some(at) => wanted.recv_timeout(at.saturating_duration_since(now)),
            None => wanted.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(Again::REHEARSAL) | Err(RecvTimeoutError::Timeout) => {}
            Ok(again) => {
                due.retain(|(_, other)| *other != again);
                let now = Instant::now();
                due.extend(REPEATS.map(|after| (now + after, again)));
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, mpsc::sync_channel},
    };

    use super::*;
    use crate::ebpf::fast_path::{lock, ready::Ready};

    #[test]
    fn announcements_are_sent_again_until_the_fast_path_is_disarmed() {
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        theirs
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let ready = Ready {
            standby: 2,
            socket: Some(ours.into()),
            announcements: vec![vec![1], vec![2]],
            switchover: Vec::new(),
        };
        let armed = Armed::default();
        lock(&armed).push((7, Arc::new(ready)));
        let (repeat, wanted) = sync_channel(4);
        let known = armed.clone();
        let thread = std::thread::spawn(move || repeat_announcements(&wanted, &known));
        let again = |bond, standby| repeat.send(Again { bond, standby }).unwrap();
        repeat.send(Again::REHEARSAL).unwrap();
        let begun = Instant::now();
        // Armed for another standby by now, or not at all.
        again(7, 3);
        again(8, 2);
        again(7, 2);
        let mut frame = [0; 8];
        for wanted in [1, 2, 1, 2] {
            assert_eq!(theirs.recv(&mut frame).unwrap(), 1);
            assert_eq!(frame[0], wanted);
        }
        assert!(begun.elapsed() >= REPEATS[1]);
        again(7, 2);
        lock(&armed).clear();
        drop(repeat);
        thread.join().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let nothing = theirs.recv(&mut frame).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }
}
