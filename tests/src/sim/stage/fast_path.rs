//! The fast-path programs, as far as the machine can tell: what they do for each
//! bond, and counters that show whatever chance brings.

use std::collections::{BTreeMap, BTreeSet};

use tandem_core::action::{Action, ActionId, ActionKind};
use tandem_core::fast_path::{Blocked, FastPath, Frames, PortFrames, Reaction, Way};
use tandem_core::input::Outcome;
use tandem_core::link::Link;
use tandem_core::{IfName, Ifindex, Input, PciAddress, Time};

use super::super::rng::Rng;
use super::Stage;

/// Programs of a kernel that takes them, or of one that does not.
#[derive(Debug, Default)]
pub struct FastPaths {
    /// The kernel takes them.
    pub supported: bool,
    /// Somebody else's program ends the way of all that leaves a bond.
    pub others_come_first: bool,
    /// Bonds whose last test frame did not come through.
    blocked: BTreeSet<Ifindex>,
    by_bond: BTreeMap<Ifindex, FastPath>,
    latest: BTreeMap<Ifindex, ActionId>,
}

impl FastPaths {
    /// What they do for a bond: nothing more on ports that are gone.
    pub fn of(&self, bond: Ifindex, links: &[Link]) -> FastPath {
        let there = |port: &Ifindex| links.iter().any(|link| link.ifindex == *port);
        let mut fast_path = self.by_bond.get(&bond).cloned().unwrap_or_default();
        fast_path.ports.retain(there);
        fast_path.armed_vf = fast_path
            .armed_vf
            .filter(|armed_vf| there(&armed_vf.standby));
        fast_path
    }

    /// The bond's last test frame did not come through.
    pub fn is_blocked(&self, bond: Ifindex) -> bool {
        self.blocked.contains(&bond)
    }

    /// Tests the fast path that is armed for a bond; says what came of it where it is not what it was, or if `anew`.
    pub fn test(&mut self, bond: Ifindex, links: &[Link], anew: bool) -> Option<Input> {
        self.of(bond, links).armed_vf?;
        let changed = match self.others_come_first {
            true => self.blocked.insert(bond),
            false => self.blocked.remove(&bond),
        };
        let blocked = self.others_come_first.then(|| Blocked {
            link: bond,
            way: Way::Out,
            programs: vec![41],
        });
        (changed || anew).then_some(Input::FastPathTested {
            bond,
            blocked,
            passed_over: false,
        })
    }

    /// Bonds that they do something for although no link of this name is there.
    pub fn strays(&self, links: &[Link], names: &[&IfName]) -> Vec<Ifindex> {
        let named = |bond: &Ifindex| {
            let mut links = links.iter();
            links.any(|link| link.ifindex == *bond && names.contains(&&link.name))
        };
        let strays = self.by_bond.keys().filter(|bond| !named(bond));
        strays.copied().collect()
    }

    /// The service died, and its programs with it.
    pub fn clear(&mut self) {
        self.by_bond.clear();
        self.blocked.clear();
        self.latest.clear();
    }

    /// An action about the programs is for those of a service that lives, and no later one about the
    /// same bond was there before.
    pub fn admit(&mut self, Action { id, kind }: &Action, is_alive: bool) -> bool {
        let ActionKind::SetFastPath { bond, .. } = kind else {
            return true;
        };
        if !is_alive {
            return false;
        }
        let latest = self.latest.entry(*bond).or_insert(*id);
        *latest = (*latest).max(*id);
        *latest == *id
    }

    /// Carries out an action that is about the programs.
    pub fn perform(&mut self, kind: &ActionKind, links: &[Link]) -> Option<Outcome> {
        let (ActionKind::SetFastPath { bond, .. } | ActionKind::ReadFrames { bond, .. }) = kind
        else {
            return None;
        };
        if is_release(kind) {
            self.by_bond.remove(bond);
            self.blocked.remove(bond);
            return Some(Outcome::Accepted);
        }
        if !self.supported {
            return Some(Outcome::Failed {
                errno: 0,
                message: "the fast-path programs are not loaded".into(),
            });
        }
        if !links.iter().any(|link| link.ifindex == *bond) {
            return Some(Outcome::Gone);
        }
        if let ActionKind::SetFastPath { fast_path, .. } = kind {
            for other in self.by_bond.values_mut() {
                other.ports.retain(|port| !fast_path.ports.contains(port));
            }
            self.by_bond.insert(*bond, fast_path.clone());
        }
        Some(Outcome::Accepted)
    }

    /// What the executor reads after such an action.
    pub fn read_back(
        &mut self,
        kind: &ActionKind,
        links: &[Link],
        now: Time,
        rng: &mut Rng,
    ) -> Option<Vec<Input>> {
        match kind {
            ActionKind::SetFastPath { bond, .. } => {
                let tested = self.test(*bond, links, true);
                let set = Input::FastPathSet {
                    bond: *bond,
                    fast_path: self.of(*bond, links),
                };
                Some(tested.into_iter().chain([set]).collect())
            }
            ActionKind::ReadFrames { bond, ports } => {
                let watched = self.of(*bond, links).ports;
                let ports = ports.iter().copied().filter(|port| watched.contains(port));
                let mut frames = || Frames {
                    count: rng.below(3),
                    first: Some(Time(rng.below(now.0))),
                    last: Some(Time(now.0.saturating_sub(rng.below(200_000)))),
                };
                let mut count = |port| PortFrames {
                    port,
                    received: frames(),
                    sent: frames(),
                    late: frames(),
                };
                Some(vec![Input::FramesCounted {
                    bond: *bond,
                    ports: ports.map(&mut count).collect(),
                }])
            }
            _ => None,
        }
    }
}

/// The programs are to let go of a bond, which can't be refused.
pub(super) fn is_release(kind: &ActionKind) -> bool {
    matches!(kind, ActionKind::SetFastPath { fast_path, .. } if fast_path.is_nothing())
}

impl Stage {
    /// The fast-path programs become usable, or stop to be.
    pub fn support_fast_path(&mut self, supported: bool) {
        self.fast_paths.supported = supported;
        if !supported {
            self.fast_paths.clear();
        }
        if self.machine.is_some() {
            self.feed(Input::FastPathSupported(supported));
        }
    }

    /// The removal of this VF begins: where the fast path is armed for it, the switchover is
    /// asked for and told at once, mostly before the machine hears of the removal.
    pub fn run_fast_path(&mut self, pci: PciAddress) {
        let links = self.kernel.dump_links();
        let armed = links.iter().find_map(|bond| {
            let armed_vf = self.fast_paths.of(bond.ifindex, &links).armed_vf;
            armed_vf
                .filter(|armed_vf| armed_vf.pci == pci)
                .map(|armed_vf| (bond.ifindex, armed_vf))
        });
        let Some((bond, armed_vf)) = armed.filter(|_| self.machine.is_some()) else {
            return;
        };
        // A fast path that came too late did nothing.
        let announced_us = self.rng.chance(900).then(|| self.rng.below(20_000));
        let requested_us = self.rng.chance(800).then(|| self.rng.below(40_000));
        if requested_us.is_some() {
            let switchover = ActionKind::SetPrimary {
                bond,
                port: armed_vf.standby,
            };
            self.change(|kernel| kernel.perform(&switchover));
        }
        self.seen
            .entry("Reacted".into())
            .and_modify(|count| *count += 1)
            .or_insert(1);
        let reaction = Reaction {
            bond,
            announced_us,
            requested_us,
        };
        let at = self.now.plus_ms(self.delay_ms());
        self.feed_at(at, Input::Reacted(reaction));
    }
}
