//! What a situation can consist of.

use std::time::Duration;

use tandem_core::status::{BondState, ProblemCode, Traffic};

use crate::{HotPlug, Kernel, NicModel};

/// One line of a situation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A line for the bond in the guest's configuration.
    Config(String),
    /// Boots the guest.
    Boot(Boot),
    /// Does something with the service.
    Service(Verb),
    /// The host asks the guest to prepare for the unplug, of this VF or of all, and waits until it is ready.
    Prepare(Option<Port>),
    /// Takes a VF away.
    Unplug(Port),
    /// Plugs in a VF beside the one that is there.
    PlugSecond,
    /// Plugs in a VF: the one that was there, or another.
    Plug {
        /// Whether it is another one.
        other: bool,
    },
    /// Moves the VM to the other host.
    Migrate,
    /// Has a NIC see its cable pulled or plugged in.
    Carrier(Port, bool),
    /// Joins a NIC to its host's bridge, or takes it off: its carrier stays.
    Bridge(Port, bool),
    /// Runs a command, which has to succeed, or to fail.
    Run {
        /// Where.
        place: Place,
        /// The command's line.
        line: String,
        /// Whether it has to succeed.
        succeeds: bool,
    },
    /// Waits where nothing tells that something has happened.
    Wait(Duration),
    /// Lets a time pass by chance, no longer than that.
    WaitUpTo(Duration),
    /// Sends numbered frames both ways, so many a second.
    Probe(u32),
    /// Begins a phase of the probe.
    Mark(String),
    /// Ends the probe and counts.
    End,
    /// What may have been lost.
    Lost(Lost),
    /// What becomes so within a minute.
    Expect(State),
    /// What is so, and stays so for that long.
    Holds(Duration, State),
    /// What the service says is what the kernel does, and traffic flows.
    Check,
}

/// The guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot {
    pub(super) kernel: Option<Kernel>,
    pub(super) model: NicModel,
    pub(super) hot_plug: HotPlug,
}

/// What can be done with the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop,
    Kill,
    Freeze,
    Thaw,
    Reload,
}

/// A NIC of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Vf,
    /// A VF beside it.
    Second,
    Standby,
}

/// Where a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the guest.
    Guest,
    /// In the guest, by the service's command line.
    Tandem,
    /// In the network namespace of the host where the guest is.
    Host,
    /// At the other end of the traffic.
    Client,
    /// On a machine of its own behind the switch, with a kernel of the guests'.
    Peer,
}

/// A bound on frames lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    /// In this phase; in all without one.
    pub(super) phase: Option<String>,
    pub(super) way: Way,
    /// At most so many, else at least.
    pub(super) at_most: bool,
    pub(super) frames: u64,
}

/// Which frames are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Both,
    ToGuest,
    FromGuest,
}

/// What a status may say of the bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Bond(BondState),
    Traffic(Traffic),
    Problem(ProblemCode),
    NoProblem,
    /// What acts by itself when the VF is taken is armed.
    Armed,
    /// Beside the VF there is another one that is ready to take over.
    Backup,
    /// The last switchover's gaps are known.
    Measured,
}
