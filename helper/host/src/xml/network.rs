//! Reads the XML of libvirt's networks, as far as a VF comes out of one.

use super::domain::open;

/// Whole devices that a network gives to guests, one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool {
    /// Those that it has.
    pub(crate) devices: usize,
    /// NICs of guests that are connected to it.
    pub(crate) connections: usize,
}

impl Pool {
    /// Of a network that is active; `None` of one that shares its devices, or does not tell them.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let document = open(text).ok()?;
        let root = document.root_element();
        let mut forwards = root.children().filter(|node| node.has_tag_name("forward"));
        let forward = forwards.next().filter(|_| root.has_tag_name("network"))?;
        if !matches!(forward.attribute("mode"), Some("hostdev" | "passthrough")) {
            return None;
        }
        let is_device = |name: &str| matches!(name, "address" | "interface");
        let devices = forward.children();
        let devices = devices
            .filter(|node| is_device(node.tag_name().name()))
            .count();
        let connections = root.attribute("connections");
        Some(Self {
            devices,
            connections: connections.and_then(|text| text.parse().ok()).unwrap_or(0),
        })
        .filter(|pool| pool.devices > 0)
    }

    /// Devices that no guest has.
    pub(crate) fn free(self) -> usize {
        self.devices.saturating_sub(self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `virsh net-dumpxml` prints an active network over a PF (`virNetworkDefFormatBuf`,
    /// `src/conf/network_conf.c`, libvirt 11.3).
    fn network(mode: &str, connections: &str) -> String {
        format!(
            "<network{connections}><name>vfs</name><forward mode='{mode}' managed='yes'><pf dev='eth0'/>\
             <address type='pci' domain='0' bus='0x3b' slot='2' function='1'/>\
             <address type='pci' domain='0' bus='0x3b' slot='2' function='2'/></forward></network>"
        )
    }

    #[test]
    fn a_pool_has_those_devices_left_that_no_guest_has() {
        let free =
            |mode: &str, connections: &str| Pool::of(&network(mode, connections)).map(Pool::free);
        assert_eq!(free("hostdev", ""), Some(2));
        assert_eq!(free("hostdev", " connections='1'"), Some(1));
        assert_eq!(free("hostdev", " connections='2'"), Some(0));
        assert_eq!(free("hostdev", " connections='3'"), Some(0));
        assert_eq!(free("hostdev", " connections='x'"), Some(2));
        assert_eq!(free("bridge", " connections='2'"), None);
        // Before its first guest it may not know them.
        assert_eq!(
            Pool::of("<network><forward mode='hostdev'><pf dev='e'/></forward></network>"),
            None
        );
        assert_eq!(Pool::of("<network/>"), None);
        assert_eq!(Pool::of("no XML"), None);
    }
}
