//! The observers: notice what changed in the kernel, now and then badly.

use std::collections::BTreeMap;

use tandem_core::input::Source;
use tandem_core::link::{Addressing, Link, Occupant};
use tandem_core::{Ifindex, Input};

use super::{Item, Stage};

impl Stage {
    /// Queues events for what changed since the last look.
    pub(super) fn notice(&mut self) {
        let links: BTreeMap<_, _> = map(self.kernel.dump_links(), |link| link.ifindex);
        let addressings: BTreeMap<_, _> = map(self.kernel.dump_addressings(), |one| one.ifindex);
        let mut events = Vec::new();
        for (index, link) in &links {
            let before = self.links.get(index);
            if before.is_some_and(|before| is_untold(before, link)) {
                // Whoever looks at it sees it.
                self.unread.insert(Source::Links);
            } else if before != Some(link) {
                events.push((Source::Links, Input::Link(link.clone())));
            }
        }
        for index in self.links.keys().filter(|index| !links.contains_key(index)) {
            let gone = Input::LinkGone { ifindex: *index };
            events.push((Source::Links, gone));
        }
        for (index, one) in &addressings {
            if self.addressings.get(index) != Some(one) {
                events.push((Source::Addressing, Input::Addressing(one.clone())));
            }
        }
        let bare = |index: &&Ifindex| !addressings.contains_key(index) && links.contains_key(index);
        for index in self.addressings.keys().filter(bare) {
            let none = Addressing {
                ifindex: *index,
                addresses: Vec::new(),
                routes: Vec::new(),
                expiries: Vec::new(),
            };
            events.push((Source::Addressing, Input::Addressing(none)));
        }
        self.links = links;
        self.addressings = addressings;
        for (source, event) in events {
            self.deliver(source, event);
        }
    }

    fn deliver(&mut self, source: Source, event: Input) {
        let disorder = self.disorder;
        let epoch = self.epoch;
        let soon = self.now.plus_ms(1);
        let lost = self.rng.chance(disorder.lose);
        let late = self.rng.chance(disorder.reorder);
        if lost || late {
            let later_ms = 40 + self.rng.below(400);
            let later = self.now.plus_ms(later_ms);
            let lost = Item::Input(epoch, Input::Lost(source));
            self.enqueue(later, lost);
        }
        if lost {
            return;
        }
        let delay_ms = if late { self.delay_ms() } else { 0 };
        if self.rng.chance(disorder.repeat) {
            self.enqueue(soon, Item::Input(epoch, event.clone()));
        }
        self.enqueue(soon.plus_ms(delay_ms), Item::Input(epoch, event));
    }
}

/// Nothing but an XDP program has gone, as one that a BPF link held: the kernel tells nobody of that (`bpf_xdp_link_release`
/// of net/core/dev.c, 6.12).
fn is_untold(before: &Link, after: &Link) -> bool {
    let freed = Link {
        occupant: None,
        ..before.clone()
    };
    before.occupant == Some(Occupant::Xdp) && freed == *after
}

fn map<T>(items: Vec<T>, key: impl Fn(&T) -> Ifindex) -> BTreeMap<Ifindex, T> {
    items.into_iter().map(|item| (key(&item), item)).collect()
}
