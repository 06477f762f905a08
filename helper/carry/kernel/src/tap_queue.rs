//! Whether a tap's queue is empty, which the kernel tells nobody: what went in against what came out.

use std::fs;
use std::io;

use crate::error::KernelError;

/// Of the network namespace that this thread is in.
const STATISTICS: &str = "/proc/thread-self/net/dev";
/// Columns after the device's name (`dev_seq_printf_stats` of net/core/net-procfs.c, 6.12).
const TX_PACKETS: usize = 9;
const TX_DROPPED: usize = 11;

/// Counts of one tap's queue.
#[derive(Debug)]
pub(crate) struct TapQueue {
    device: String,
    /// What had left it before anything was counted that went in.
    before: u64,
    /// The least that was ever seen in it: so much more was in it at the start than is counted as gone in.
    least: i64,
    /// Frames that found no room, until it was last seen empty.
    dropped: u64,
}

/// What has left a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Frames that were read, or found no room.
    pub(crate) all: u64,
    /// Those that found no room.
    dropped: u64,
}

impl TapQueue {
    pub(crate) fn new(device: &str) -> Result<Self, KernelError> {
        let mut queue = Self {
            device: device.to_owned(),
            before: 0,
            least: i64::MAX,
            dropped: 0,
        };
        let gone = queue
            .gone()
            .map_err(KernelError::call("reading the statistics", device))?;
        queue.before = gone.all;
        queue.dropped = gone.dropped;
        Ok(queue)
    }

    /// What has left the queue since the start. A tap counts a frame when it is read (`tun_put_user` of
    /// drivers/net/tun.c, 6.12) or finds no room.
    pub(crate) fn gone(&self) -> io::Result<Gone> {
        let text = fs::read_to_string(STATISTICS)?;
        let gone = gone_of(&text, &self.device);
        let gone = gone.ok_or_else(|| io::Error::other("the tap is gone"))?;
        let all = gone.all.saturating_sub(self.before);
        Ok(Gone { all, ..gone })
    }

    /// How many are in it, with so many frames gone in. `gone` was asked before.
    pub(crate) fn holds(&mut self, passed: u64, gone: Gone) -> u64 {
        let inside = passed.wrapping_sub(gone.all).cast_signed();
        self.least = self.least.min(inside);
        let holds = inside.abs_diff(self.least);
        if holds == 0 {
            self.dropped = gone.dropped;
        }
        holds
    }

    /// How many frames found no room since it was last seen empty.
    pub(crate) fn overflown(&self) -> u64 {
        let dropped = self.gone().map_or(0, |gone| gone.dropped);
        dropped.saturating_sub(self.dropped)
    }
}

fn gone_of(text: &str, device: &str) -> Option<Gone> {
    let of = |line: &str| {
        let (name, columns) = line.trim_start().split_once(':')?;
        let columns: Vec<u64> = columns
            .split_whitespace()
            .map_while(|column| column.parse().ok())
            .collect();
        let dropped = *columns.get(TX_DROPPED)?;
        let all = columns.get(TX_PACKETS)?.wrapping_add(dropped);
        (name == device).then_some(Gone { all, dropped })
    };
    text.lines().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       1       2    0    0    0     0          0         0        3       4    0    0    0     0       0          0
  tap1:       5       6    0    0    0     0          0         0        7       80    0    9    0     0       0          0
";

    #[test]
    fn what_left_the_queue_is_what_was_sent_or_dropped() {
        let gone = |all, dropped| Some(Gone { all, dropped });
        assert_eq!(gone_of(TEXT, "tap1"), gone(89, 9));
        assert_eq!(gone_of(TEXT, "lo"), gone(4, 0));
        assert_eq!(gone_of(TEXT, "tap"), None);
    }

    #[test]
    fn what_was_in_it_at_the_start_does_not_hide_what_is_in_it() {
        let mut queue = TapQueue {
            device: String::new(),
            before: 0,
            least: i64::MAX,
            dropped: 0,
        };
        let gone = |all, dropped| Gone { all, dropped };
        // Two were in it, and are read before the first that is counted.
        queue.holds(0, gone(2, 0));
        assert_eq!(queue.holds(3, gone(3, 1)), 2);
        assert_eq!(queue.dropped, 0);
        assert_eq!(queue.holds(3, gone(5, 1)), 0);
        assert_eq!(queue.dropped, 1);
    }
}
