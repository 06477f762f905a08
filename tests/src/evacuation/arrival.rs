//! When a VF appeared in the guest and when it could carry the traffic, by the guest's own clock: from what
//! `ip -ts -o -d monitor link` prints, one line a notification.

use anyhow::Result;

use crate::agent::Background;
use crate::vm::Vm;

const LOG: &str = "/tmp/links.log";
const SIGTERM: i32 = 15;

/// A monitor of the guest's interfaces, running in it.
#[derive(Debug)]
pub(super) struct LinkMonitor {
    program: Background,
    known: Vec<u32>,
}

impl LinkMonitor {
    /// Begins; interfaces that are there now are not new.
    pub(super) fn start(vm: &Vm) -> Result<Self> {
        let program = vm.spawn(&["ip", "-ts", "-o", "-d", "monitor", "link"], &[], LOG)?;
        let known = vm.sh("cat /sys/class/net/*/ifindex")?;
        Ok(Self {
            program,
            known: known.lines().filter_map(|line| line.parse().ok()).collect(),
        })
    }

    /// Ends; gives the time from a new interface's registration until it was in use, in ms.
    pub(super) fn finish(self, vm: &Vm) -> Result<Option<f64>> {
        vm.signal(self.program, SIGTERM)?;
        vm.wait(self.program, crate::agent::COMMAND_LIMIT)?;
        let log = vm.read_file(LOG)?;
        Ok(ready_ms(&String::from_utf8_lossy(&log), &self.known))
    }
}

/// One notification.
struct Line<'text> {
    at_us: u64,
    ifindex: u32,
    text: &'text str,
}

/// From the first word of an interface not in `known` until it is a bond's active port, or, under a device that
/// is no bond, has a carrier.
fn ready_ms(log: &str, known: &[u32]) -> Option<f64> {
    let lines: Vec<_> = log.lines().filter_map(parse).collect();
    let first = lines.iter().find(|line| !known.contains(&line.ifindex))?;
    let in_use = |line: &&Line| {
        let is_port = line.text.contains(" master ");
        let active = match line.text.contains("bond_slave ") {
            true => line.text.contains("state ACTIVE"),
            false => true,
        };
        line.ifindex == first.ifindex && is_port && active && line.text.contains("LOWER_UP")
    };
    let ready = lines.iter().find(in_use)?;
    Some(ready.at_us.saturating_sub(first.at_us) as f64 / 1e3)
}

/// Such as `[2026-01-02T03:04:05.678901] 7: eth2: <BROADCAST,UP,LOWER_UP> mtu 1500 … master bond0 …`.
fn parse(line: &str) -> Option<Line<'_>> {
    let (stamp, text) = line.strip_prefix('[')?.split_once("] ")?;
    let (date, time) = stamp.split_once('T')?;
    let day: u64 = date.rsplit('-').next()?.parse().ok()?;
    let mut parts = time.split([':', '.']);
    let mut next = || parts.next()?.parse::<u64>().ok();
    let (hour, minute, second, micros) = (next()?, next()?, next()?, next()?);
    let seconds = ((day * 24 + hour) * 60 + minute) * 60 + second;
    let ifindex = text.split_once(": ")?.0.parse().ok()?;
    Some(Line {
        at_us: seconds * 1_000_000 + micros,
        ifindex,
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
[2026-01-02T03:04:05.000100] Deleted 3: eth1: <BROADCAST> mtu 1500 qdisc noop
[2026-01-02T03:04:05.500000] 4: bond0: <BROADCAST,MASTER,UP,LOWER_UP> mtu 1500
[2026-01-02T03:04:05.900000] 7: eth1: <BROADCAST,MULTICAST> mtu 1500 qdisc noop state DOWN
[2026-01-02T03:04:06.000000] 7: eth1: <BROADCAST,SLAVE,UP> mtu 1500 master bond0 state DOWN \\ bond_slave state BACKUP mii_status DOWN
[2026-01-02T03:04:06.100000] 7: eth1: <BROADCAST,SLAVE,UP,LOWER_UP> mtu 1500 master bond0 state UP \\ bond_slave state BACKUP mii_status UP
[2026-01-02T03:04:06.150500] 7: eth1: <BROADCAST,SLAVE,UP,LOWER_UP> mtu 1500 master bond0 state UP \\ bond_slave state ACTIVE mii_status UP
";

    #[test]
    fn a_bonds_port_is_in_use_once_it_is_active() {
        assert_eq!(ready_ms(LOG, &[1, 2, 3, 4]), Some(250.5));
        assert_eq!(ready_ms(LOG, &[1, 2, 3, 4, 7]), None);
    }

    #[test]
    fn elsewhere_a_port_is_in_use_once_it_has_a_carrier() {
        let log = "\
[2026-01-02T23:59:59.900000] 7: eth1: <BROADCAST,MULTICAST> mtu 1500 qdisc noop state DOWN
[2026-01-02T23:59:59.950000] 7: eth1: <BROADCAST,SLAVE,UP> mtu 1500 master eth0 state DOWN
[2026-01-03T00:00:00.100000] 7: eth1: <BROADCAST,SLAVE,UP,LOWER_UP> mtu 1500 master eth0 state UP
";
        assert_eq!(ready_ms(log, &[1, 2]), Some(200.0));
    }
}
