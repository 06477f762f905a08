//! The guest's machine, with all that it wants done as it would be by a kernel that takes everything and
//! shows no effect.

use tandem_core::input::Outcome;
use tandem_core::policy::Origin;
use tandem_core::{Action, Input, Machine, Output, Policy, Time};

/// Outputs of one turn at most.
const MAX_OUTPUTS: usize = 256;
/// Problems of one bond at most.
const MAX_PROBLEMS: usize = 64;

/// The machine, and its clock.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) machine: Machine,
    now: Time,
    /// What it wants done and was not told of yet.
    open: Vec<Action>,
}

impl Driven {
    /// A machine with a policy and nothing else.
    pub(crate) fn new(policy: Policy) -> Self {
        let now = Time(1_000_000);
        let mut driven = Self {
            machine: Machine::new(now),
            now,
            open: Vec::new(),
        };
        driven.handle(Input::Policy(policy));
        driven
    }

    /// One with the bond `bond0`.
    pub(crate) fn with_a_bond() -> Self {
        let policy = r#"{"bonds": [{"name": "bond0", "standby": {"mac": "52:54:00:00:00:01"},
            "vfs": [{"mac": "52:54:00:00:00:02"}, {"pci": "0000:07:00.0", "driver": "iavf"}]}]}"#;
        let policy: Policy = serde_json::from_str(policy).expect("it is a policy");
        Self::new(Policy {
            origin: Origin::Host,
            ..policy
        })
    }

    /// Hands that in; what is to be told comes back.
    pub(crate) fn handle(&mut self, input: Input) -> Vec<Output> {
        self.machine.handle(self.now, input);
        let mut told = Vec::new();
        let mut count = 0;
        while let Some(output) = self.machine.next_output() {
            count += 1;
            assert!(
                count <= MAX_OUTPUTS,
                "more than {MAX_OUTPUTS} outputs in one turn"
            );
            match output {
                Output::Act(action) => self.open.push(action),
                other => told.push(other),
            }
        }
        let (deadline, now) = (self.machine.next_deadline(), self.now);
        assert!(
            deadline.is_none_or(|at| at > now),
            "{deadline:?} is not after {now:?}"
        );
        for bond in &self.machine.status().bonds {
            assert!(bond.problems.len() <= MAX_PROBLEMS);
            assert!(bond.switchovers.len() <= tandem_core::status::BondStatus::MAX_SWITCHOVERS);
        }
        told
    }

    /// Lets time pass: what was wanted is done, and a deadline may come.
    pub(crate) fn wait_ms(&mut self, ms: u64) -> Vec<Output> {
        self.now = self.now.plus_ms(ms);
        let mut told = Vec::new();
        for action in std::mem::take(&mut self.open) {
            let outcome = Outcome::Accepted;
            told.extend(self.handle(Input::Done {
                action: action.id,
                outcome,
            }));
        }
        told.extend(self.handle(Input::Tick));
        told
    }

    /// What the machine wants done.
    pub(crate) fn open(&self) -> &[Action] {
        &self.open
    }
}
