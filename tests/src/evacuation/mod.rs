//! One evacuation after another, of Tandem and of the systems it is compared with: the VF leaves, the VM moves
//! to another host, another VF arrives, and the same probes tell of each what was lost where.

mod arrival;
mod capture;
mod case;
mod cost;
mod peers;
mod report;
mod run;
mod subject;

pub use case::{Case, System};
pub use cost::{Cost, CostOptions, cost};
pub use report::{Carried, Evacuation, MeasuredSwitchover, PhaseLoss, TcpOutcome};
pub use run::{OtherFrames, PHASES};
pub use subject::{Stage, Subject};
