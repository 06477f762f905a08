//! What a change on a running guest interrupts: a connection and a steady flow from outside, DNS queries, and what a
//! network manager tells its dispatcher's scripts.

mod downs;
mod queries;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use self::downs::{AFTER_THE_BOND, Downs};
use self::queries::{Answers, Queries};
use super::Machine;
use crate::command;
use crate::full_guest::Manager;
use crate::probe::{Count, FrameOptions};
use crate::tandem::{BOND, Guest, STEP_LIMIT};

/// Of an emulated guest, without taking it the time for what is watched.
const FRAMES: FrameOptions = FrameOptions {
    rate_hz: 50,
    payload_bytes: 64,
};

/// So many frames from outside may be lost while a NIC becomes a port: a second's. networkd takes it down for that.
const MAX_LOST: u64 = 50;

/// What was seen while a guest was changed.
struct Seen {
    from_outside: Count,
    longest_stall_ms: u64,
    answers: Answers,
    downs: Vec<String>,
}

impl Machine<'_> {
    /// Changes the guest, which has its network at this address before and after, and holds that no connection from
    /// outside breaks, few frames from there are lost, no DNS query fails and no dispatcher is told of an interface that is
    /// down, but for those of the ports that networkd and NetworkManager can't but tell.
    pub fn is_uninterrupted(
        &self,
        guest: &Guest,
        address: &str,
        what: &str,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let address: IpAddr = address.parse().context(address.to_owned())?;
        // A bond has its MAC too.
        let standby = guest.vm.wait_interface(self.setup.standby, STEP_LIMIT)?;
        let downs = Downs::watch(self.manager, guest)?;
        let queries = Queries::start(self.manager, guest)?;
        let stream = self.lab.probe_stream(&guest.vm, address)?;
        let frames = self.lab.probe_frames(&guest.vm, address, FRAMES)?;
        change()?;
        stream.wait_progress(STEP_LIMIT)?;
        let ports = guest
            .vm
            .sh(&format!("cat /sys/class/net/{BOND}/bonding/slaves"))?;
        let ports: BTreeSet<_> = ports.split_whitespace().collect();
        let seen = Seen {
            longest_stall_ms: stream.finish()?.longest_stall_ms(),
            from_outside: frames.finish()?.to_guest.total,
            answers: queries.finish(guest)?,
            downs: downs.finish(guest)?,
        };
        command::progress(&format!("{:?}, {what}: {seen}", self.manager));
        ensure!(
            seen.answers.failed.is_empty() && seen.answers.count > 0,
            "DNS queries failed: {seen}; {}",
            seen.answers.failed.join("; ")
        );
        ensure!(
            seen.from_outside.sent > MAX_LOST && seen.from_outside.lost <= MAX_LOST,
            "frames from outside lost: {seen}"
        );
        // A NIC that is up is taken into no bond (`bond_enslave`, drivers/net/bonding/bond_main.c, 6.12), and networkd
        // tells what the kernel tells it. NetworkManager tells what leaves its profile (`_set_state_full`,
        // src/core/devices/nm-device.c, 1.52), as a NIC does that becomes a port; the standby only with the bond up.
        let is_told_of_ports = |down: &String| {
            let name = down.split(' ').next().unwrap_or_default();
            ports.contains(name)
                && match self.manager {
                    Manager::Networkd => true,
                    Manager::NetworkManager => name != standby || down.ends_with(AFTER_THE_BOND),
                    Manager::Ifupdown | Manager::Dhcpcd => false,
                }
        };
        ensure!(
            seen.downs.iter().all(is_told_of_ports),
            "a dispatcher was told: {seen}"
        );
        Ok(())
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from_outside: frames,
            longest_stall_ms,
            answers,
            downs,
        } = self;
        let downs = match downs.is_empty() {
            true => "none".to_owned(),
            false => downs.join(", "),
        };
        write!(
            f,
            "{} of {} frames from outside lost, longest gap {} ms; the connection lives, longest stall {longest_stall_ms} \
             ms; {} of {} DNS queries failed, slowest {} ms; told as down: {downs}",
            frames.lost,
            frames.sent,
            frames.longest_gap_ms,
            answers.failed.len(),
            answers.count,
            answers.slowest_ms
        )
    }
}
