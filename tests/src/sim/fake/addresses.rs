//! Addresses and routes, as far as closing, moving and flushing interfaces matters.

use tandem_core::Ifindex;
use tandem_core::link::{Address, Route};

use super::{FakeKernel, Refusal};

impl FakeKernel {
    /// Gives an interface an address, as a network manager may.
    pub fn give_address(&mut self, link: Ifindex, address: Address) {
        if let Some(device) = self.devices.get_mut(&link)
            && !device.addresses.contains(&address)
        {
            device.addresses.push(address);
        }
    }

    /// Gives an interface a route, as a network manager may; only an open one takes it.
    pub fn give_route(&mut self, link: Ifindex, route: Route) {
        if let Some(device) = self.devices.get_mut(&link)
            && device.admin_up
            && !device.routes.contains(&route)
        {
            device.routes.push(route);
        }
    }

    pub(super) fn move_addressing(&mut self, from: Ifindex, to: Ifindex) -> Result<(), Refusal> {
        let source = self.devices.get(&from).ok_or(Refusal::NO_DEVICE)?;
        let target = self.devices.get(&to).ok_or(Refusal::NO_DEVICE)?;
        if from == to {
            return Ok(());
        }
        if !target.admin_up {
            return Err(Refusal::NET_DOWN);
        }
        let moved: Vec<Address> = source
            .addresses
            .iter()
            .filter(|address| !address.is_link_local())
            .copied()
            .collect();
        let routes = source.routes.clone();
        self.add_addressing(to, &moved, &routes)?;
        self.flush_addressing(from);
        Ok(())
    }

    pub(super) fn add_addressing(
        &mut self,
        link: Ifindex,
        addresses: &[Address],
        routes: &[Route],
    ) -> Result<(), Refusal> {
        let device = self.devices.get(&link).ok_or(Refusal::NO_DEVICE)?;
        let is_open = device.admin_up;
        for address in addresses {
            self.give_address(link, *address);
        }
        // An on-link route is refused as such, a gateway is out of reach
        // (`fib_check_nh`, `net/ipv4/fib_semantics.c`, 6.12).
        let refused = routes.iter().find(|_| !is_open);
        match refused.map(|route| route.gateway) {
            None => {}
            Some(None) => return Err(Refusal::NET_DOWN),
            Some(Some(_)) => return Err(Refusal::NET_UNREACHABLE),
        }
        for route in routes {
            self.give_route(link, *route);
        }
        Ok(())
    }

    pub(super) fn flush_addressing(&mut self, link: Ifindex) {
        if let Some(device) = self.devices.get_mut(&link) {
            device.addresses.retain(Address::is_link_local);
            device.routes.clear();
        }
    }
}
