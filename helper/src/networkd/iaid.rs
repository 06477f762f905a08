//! The number by which networkd tells its interfaces apart to a DHCP server (IAID, RFC 4361 and RFC 9915).

use siphasher::sip::SipHasher24;

use super::nic::Nic;

/// `HASH_KEY` of `dhcp_identifier_set_iaid` (systemd, src/libsystemd-network/dhcp-identifier.c, 257).
const KEY: [u8; 16] = [
    0x80, 0x11, 0x8c, 0xc2, 0xfe, 0x4a, 0x03, 0xee, 0x3e, 0xd6, 0x0c, 0x6f, 0x36, 0x39, 0x14, 0x09,
];
/// Where it finds a name that stays (`net_get_persistent_name`, src/shared/netif-util.c, 257).
const NAMES: [&str; 4] = [
    "ID_NET_NAME_ONBOARD",
    "ID_NET_NAME_SLOT",
    "ID_NET_NAME_PATH",
    "ID_NET_NAME_MAC",
];

/// The IAID that networkd derives for a NIC, as `IAID=` takes it: from the first of its names that stay,
/// else from its MAC. Nothing without either.
pub(super) fn of(nic: &Nic) -> Option<u32> {
    let name = NAMES.iter().find_map(|key| nic.properties.get(*key));
    Some(match name {
        Some(name) => of_bytes(name.as_bytes()),
        None => of_bytes(&nic.mac?.0),
    })
}

/// The number that systemd derives from a name or a MAC, and NetworkManager in the same way.
pub(crate) fn of_bytes(bytes: &[u8]) -> u32 {
    let hash = SipHasher24::new_with_key(&KEY).hash(bytes);
    let (low, high) = (hash as u32, (hash >> 32) as u32);
    let iaid = low ^ high;
    // The bytes on the wire are those of the number in memory on a little-endian machine, swapped twice; what
    // `IAID=` gives is sent in network order.
    if cfg!(target_endian = "little") {
        iaid
    } else {
        iaid.swap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Client identifiers that networkd sent, as DHCP servers saw them (systemd 257).
    #[test]
    fn a_nic_has_the_number_that_networkd_gives_it() {
        let mut nic = Nic {
            mac: Some("52:54:00:00:00:01".parse().unwrap()),
            ..Nic::named("eth0")
        };
        let by_mac = of(&nic);
        for (name, iaid) in [("enp0s4", 0xc272_f609), ("ens3", 0xb55e_67ff)] {
            nic.properties
                .insert("ID_NET_NAME_PATH".to_owned(), name.to_owned());
            assert_eq!(of(&nic), Some(iaid), "{name}");
        }
        assert_ne!(of(&nic), by_mac);
        // The slot's name comes before the path's.
        nic.properties
            .insert("ID_NET_NAME_SLOT".to_owned(), "enp0s4".to_owned());
        assert_eq!(of(&nic), Some(0xc272_f609));
    }
}
