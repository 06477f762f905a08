//! Which of two orders about a bond is the later one. Each is carried out on a thread of its own, and
//! one that waits for the kernel may be overtaken, after its time limit or before.

use std::collections::BTreeMap;

use tandem_ebpf::MAX_BONDS;

/// Bonds that are remembered: more than there can be at a time, since some come and go.
const MAX_REMEMBERED: usize = 4 * MAX_BONDS as usize;

/// The last order about each bond.
#[derive(Debug, Default)]
pub(super) struct Orders {
    latest: BTreeMap<u32, u64>,
}

impl Orders {
    /// Notes an order, unless a later one about the same bond was there before.
    pub(super) fn admit(&mut self, bond: u32, order: u64) -> bool {
        if self.latest.get(&bond).is_some_and(|latest| *latest > order) {
            return false;
        }
        self.latest.insert(bond, order);
        if self.latest.len() > MAX_REMEMBERED {
            let oldest = self.latest.iter().min_by_key(|(_, order)| **order);
            if let Some(bond) = oldest.map(|(bond, _)| *bond) {
                self.latest.remove(&bond);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_was_overtaken_is_not_carried_out() {
        let mut orders = Orders::default();
        assert!(orders.admit(7, 5));
        assert!(!orders.admit(7, 4));
        assert!(orders.admit(7, 6));
        assert!(orders.admit(8, 4), "another bond's");
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut orders = Orders::default();
        for bond in 0..=MAX_REMEMBERED {
            assert!(orders.admit(bond.try_into().unwrap(), 100 + bond as u64));
        }
        assert_eq!(orders.latest.len(), MAX_REMEMBERED);
        assert!(!orders.admit(1, 0));
        assert!(orders.admit(0, 0));
    }
}
