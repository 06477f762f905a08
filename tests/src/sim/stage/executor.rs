//! The executor: carries actions out, now and then badly, and reports.

use tandem_core::action::{Action, ActionKind, Asking};
use tandem_core::input::{Outcome, Source};
use tandem_core::link::Link;
use tandem_core::{Ifindex, Input};

use super::fast_path::is_release;
use super::{Happened, Item, Said, Stage};

/// Within this the service has read everything again, however much was lost, in ms.
const READ_AGAIN_AFTER_MS: u64 = 10_000;

impl Stage {
    pub(super) fn execute(&mut self, epoch: u32, action: Action) {
        let disorder = self.disorder;
        let is_alive = epoch == self.epoch;
        let outcome = if !self.fast_paths.admit(&action, is_alive) {
            overtaken()
        } else if is_release(&action.kind) {
            self.perform(&action.kind)
        } else if self.rng.chance(disorder.refuse) {
            busy()
        } else if self.rng.chance(disorder.ignore)
            // The executor says so only if it saw a frame.
            && !matches!(action.kind, ActionKind::CheckPath { .. } | ActionKind::CheckFree { .. })
        {
            Outcome::Accepted
        } else {
            self.perform(&action.kind)
        };
        self.notice();
        if let Outcome::Failed { message, .. } = &outcome {
            self.say(Said::Failed(format!("refused: {message}")));
        }
        if self.rng.chance(disorder.forget) {
            return;
        }
        let outcome = if self.rng.chance(disorder.time_out) {
            Outcome::TimedOut
        } else {
            outcome
        };
        let at = self.now.plus_ms(self.delay_ms());
        if self.rng.chance(disorder.repeat) {
            let again = Item::Report(epoch, action.clone(), outcome.clone());
            self.enqueue(at.plus_ms(1), again);
        }
        self.enqueue(at, Item::Report(epoch, action, outcome));
    }

    /// What the executor read is as new as its report: it reads again where
    /// events overtook it.
    pub(super) fn report(&mut self, epoch: u32, Action { id, kind }: Action, outcome: Outcome) {
        for input in self.read_back(&kind, &outcome) {
            self.feed_if_current(epoch, input);
        }
        if epoch == self.epoch {
            self.outstanding.remove(&id);
        }
        let action = id;
        self.feed_if_current(epoch, Input::Done { action, outcome });
    }

    pub(super) fn feed_if_current(&mut self, epoch: u32, input: Input) {
        if epoch == self.epoch {
            self.feed(input);
        }
    }

    fn perform(&mut self, kind: &ActionKind) -> Outcome {
        let last_port = match kind {
            ActionKind::Release { port, bond } => self.is_last_port(*port, *bond),
            _ => false,
        };
        if let Some(nic) = self.takes_what_is_in_use(kind) {
            self.violations
                .push(format!("{kind:?}, though something lies on {nic}"));
        }
        let links = self.kernel.dump_links();
        let of_fast_path = self.fast_paths.perform(kind, &links);
        let outcome = of_fast_path.unwrap_or_else(|| self.kernel.perform(kind));
        let cut_off = self.cut_off_since(&links);
        if last_port && outcome == Outcome::Accepted {
            self.violations.push("the bond was emptied".into());
        }
        if !cut_off.is_empty() {
            let text = format!("{kind:?} left {cut_off:?} without an active port");
            self.violations.push(text);
        }
        self.note(Happened::Did(kind.clone(), outcome.clone()));
        outcome
    }

    /// The NIC, no port, that an action takes something from although something has long been lying on it.
    fn takes_what_is_in_use(&self, kind: &ActionKind) -> Option<Ifindex> {
        let nic = match kind {
            ActionKind::Enslave { port, .. } => *port,
            ActionKind::MoveAddressing { from, .. } => *from,
            ActionKind::FlushAddressing { link } | ActionKind::SetAdminUp { link, up: false } => {
                *link
            }
            _ => return None,
        };
        let since = self.kernel.occupied_since(nic)?;
        let link = self.kernel.dump_link(nic)?;
        let known = self.now.since_ms(since) > READ_AGAIN_AFTER_MS;
        (link.controller.is_none() && known).then_some(nic)
    }

    /// Bonds that had an active port and have none now.
    fn cut_off_since(&self, before: &[Link]) -> Vec<Ifindex> {
        let has_active = |link: &Link| {
            link.bond
                .as_ref()
                .is_some_and(|facts| facts.active.is_some())
        };
        let had = before.iter().filter(|link| has_active(link));
        let now = had.filter_map(|link| self.kernel.dump_link(link.ifindex));
        let without = now.filter(|link| !has_active(link));
        without.map(|link| link.ifindex).collect()
    }

    fn is_last_port(&self, port: Ifindex, bond: Ifindex) -> bool {
        let links = self.kernel.dump_links();
        let mut ports = links.iter().filter(|link| link.controller == Some(bond));
        ports.next().is_some_and(|link| link.ifindex == port) && ports.next().is_none()
    }

    /// What the executor reads after an action.
    fn read_back(&mut self, kind: &ActionKind, outcome: &Outcome) -> Vec<Input> {
        let links = self.kernel.dump_links();
        let read = (self.fast_paths).read_back(kind, &links, self.now, &mut self.rng);
        if let Some(read) = read {
            return read;
        }
        if let ActionKind::Observe { source } = kind {
            let read = match source {
                Source::Links | Source::Udev => Input::Links(self.kernel.dump_links()),
                Source::Addressing => Input::Addressings(self.kernel.dump_addressings()),
                Source::Ebpf | Source::Channel | Source::Unknown => return Vec::new(),
            };
            let done = *outcome == Outcome::Accepted;
            return done.then_some(read).into_iter().collect();
        }
        let done = *outcome == Outcome::Accepted;
        match *kind {
            ActionKind::ReadTraffic { bond, port, .. } if done => {
                let tested = self.fast_paths.test(bond, &links, false);
                let traffic = self.kernel.traffic(port).map(Input::PortTraffic);
                return tested.into_iter().chain(traffic).collect();
            }
            ActionKind::AskPath {
                bond,
                port,
                other,
                how,
            } if done => {
                let on_trial = how == Asking::OnTrial;
                let answer = self.kernel.ask(port, other, on_trial);
                let tested = self.fast_paths.test(bond, &links, true);
                let tested = tested.filter(|_| !on_trial);
                let asked = Input::PathAsked { bond, port, answer };
                return [asked].into_iter().chain(tested).collect();
            }
            _ => {}
        }
        let links = match kind {
            ActionKind::CreateBond { name, .. } => self.kernel.index_of(name).into_iter().collect(),
            ActionKind::Announce { .. }
            | ActionKind::CheckFree { .. }
            | ActionKind::ReadTraffic { .. }
            | ActionKind::AskPath { .. }
            | ActionKind::CheckPath { .. } => Vec::new(),
            kind => kind.devices(),
        };
        let addressed = matches!(
            kind,
            ActionKind::MoveAddressing { .. }
                | ActionKind::AddAddressing { .. }
                | ActionKind::FlushAddressing { .. }
        );
        let mut inputs = Vec::new();
        for ifindex in links {
            match self.kernel.dump_link(ifindex) {
                Some(link) => inputs.push(Input::Link(link)),
                None => inputs.push(Input::LinkGone { ifindex }),
            }
            if addressed {
                inputs.extend(self.kernel.dump_addressing(ifindex).map(Input::Addressing));
            }
        }
        inputs
    }
}

fn overtaken() -> Outcome {
    Outcome::Failed {
        errno: 0,
        message: "a later order has overtaken this one".into(),
    }
}

fn busy() -> Outcome {
    Outcome::Failed {
        errno: 16,
        message: "Device or resource busy".into(),
    }
}
