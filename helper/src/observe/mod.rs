//! Turns what the kernel says into inputs of the machine.
//!
//! Notifications (rtnetlink multicast, udev, kernel uevents) are only hints that
//! something changed; what is handed in is always read anew, by one reader, one
//! reading after the other. So no older state can overtake a newer one, a storm
//! of notifications costs one reading, and a lost one is mended by the next.
//!
//! ```text
//! notifications --> dirty links, dirty addressing --> one reading at a time --> Input
//! Completion (act/) ---------^                                                  then Input::Done
//! ```

mod agenda;
pub mod clock;
mod completion;
mod found;
mod occupants;
pub mod once;
mod reader;
mod settle;
mod sources;
mod sysfs;
#[cfg(test)]
pub(crate) mod testing;
pub mod udev;
mod upper_devices;

pub use completion::{Completion, Touched};
pub use sources::{ObserveError, Observed, Options, Sources};

#[cfg(test)]
mod tests;
