//! The carry as this program runs it: a half on each host, each a process of its own, and between them this one, which
//! hands on their stream and knows the hypervisors.
//!
//! ```text
//! half on the source <- standard streams -> conductor <- standard streams, ssh's -> half on the destination
//!         |                                     |                                        |
//!    tap, programs                         hypervisors                             tap, programs
//! ```
//!
//! What the halves decide is in the package tandem-carry, what they ask of the kernel in tandem-carry-kernel. Nothing
//! depends on any of it: whatever fails, the domain migrates as it would without.

mod asker;
mod check;
mod chunk;
mod conductor;
mod convergence;
#[cfg(fuzzing)]
pub mod fuzzing;
mod half;
mod moment;
mod orphan;
mod outbox;
mod pace;
mod place;
mod prepared;
mod privileges;
mod relay;
mod settings;
mod total;
mod words;

pub(crate) use check::{Foreseen, foresee};
pub use half::run as run_half;
pub use place::Place;
pub(crate) use prepared::Prepared;
pub use settings::{CarrySettings, HalfArguments};
