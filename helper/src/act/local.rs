//! Waits until IPv6 addresses are in effect.
//!
//! Adding an IPv6 address only queues it: a worker makes its route in the local
//! table later, even where duplicate address detection is off
//! (`addrconf_dad_work`, `net/ipv6/addrconf.c`, 6.12). Until then packets to it find
//! nobody, so its predecessor on another link has to stay that long.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use tandem_core::types::Ifindex;

use super::error::ActError;
use crate::netlink::link;
use crate::netlink::request::{RequestError, Requests};
use crate::netlink::route;

/// Longest wait; the worker needs the RTNL lock, which a driver may hold.
const LIMIT: Duration = Duration::from_secs(2);
/// `RTMGRP_IPV6_IFADDR`, `include/uapi/linux/rtnetlink.h`, 6.12.
const ADDRESS_GROUP: u32 = 0x100;

/// Hears of addresses from its creation on.
pub(super) struct Listener {
    socket: Socket,
}

impl Listener {
    pub(super) fn open() -> Result<Self, ActError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, ADDRESS_GROUP))?;
            Ok(Self { socket })
        };
        open().map_err(|error: io::Error| {
            ActError::at("listen to addresses")(RequestError::Socket(error))
        })
    }

    /// Waits until all these addresses are local through a link.
    pub(super) fn wait(
        &self,
        requests: &mut Requests,
        link: Ifindex,
        addresses: &[Ipv6Addr],
    ) -> Result<(), ActError> {
        let step = || format!("wait until the addresses of link {link} are in effect");
        let deadline = Instant::now() + LIMIT;
        loop {
            // The notification is sent just before the route is made, both under the
            // lock that this takes.
            link::get(requests, link).map_err(ActError::at(step()))?;
            let local =
                route::dump(requests, link, route::local_ip).map_err(ActError::at(step()))?;
            if addresses
                .iter()
                .all(|address| local.contains(&IpAddr::V6(*address)))
            {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ActError::at(step())(RequestError::TimedOut));
            }
            self.next(left)
                .map_err(|error| ActError::at(step())(RequestError::Socket(error)))?;
        }
    }

    /// Waits for the next notification, whatever it says, but not longer than `limit`.
    fn next(&self, limit: Duration) -> io::Result<()> {
        // A timeout of zero would mean none.
        let limit = limit.max(Duration::from_millis(1));
        set_socket_timeout(&self.socket, Timeout::Recv, Some(limit))?;
        let mut buffer = Vec::with_capacity(4096);
        match self.socket.recv(&mut buffer, 0) {
            Err(error)
                if error.kind() != io::ErrorKind::WouldBlock
                    && error.kind() != io::ErrorKind::Interrupted
                    && error.raw_os_error() != Some(libc::ENOBUFS) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}
