//! A port's path: its way into the network and back.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::types::{Ifindex, Time};

/// How many frames a port has sent since some moment that does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PortTraffic {
    /// The port.
    pub port: Ifindex,
    /// Frames sent.
    pub sent: u64,
    /// Who counted.
    pub counted_by: CountedBy,
    /// When frames were last seen to pass in both directions, if it was looked for that.
    #[serde(default)]
    pub passed_at: Option<Time>,
}

/// Who counted a port's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CountedBy {
    /// The fast-path programs: frames to one station only.
    Programs,
    /// The port's driver: all frames (`IFLA_STATS64`); some drivers ask their PF for them every 2 s only.
    Driver,
}

/// What came of asking the bond's neighbours through one of its ports, and then through another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum PathAnswer {
    /// One answered through the port, so that frames pass in both directions; or the port, a backup, at least hears what
    /// the other one sends.
    Answered,
    /// None answered through the port, and this one did through the other.
    Lost {
        /// Who.
        neighbour: IpAddr,
    },
    /// This one answers what is asked through the port, and its answers come in through the other one only, which
    /// delivers at the moment: the network does not lead to the port.
    Astray {
        /// Who.
        neighbour: IpAddr,
    },
    /// None answered through either: the network is quiet, or whoever is asked is gone.
    Silent,
    /// There is no neighbour that is known to answer.
    NobodyKnown,
}
