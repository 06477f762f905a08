//! The commands, one file each.

pub mod args;
pub mod configure;
pub mod connect;
pub mod migrate;
pub mod one_step;
pub mod plan;
pub mod recover;
pub mod serve;
pub(crate) mod session;
pub mod status;
pub mod watch;
pub mod xml;

/// Exit codes beside those of [`crate::decide::Outcome::exit_code`].
pub mod exit {
    /// It failed, and nothing more is known.
    pub const FAILED: u8 = 1;
    /// Nothing was begun.
    pub const REFUSED: u8 = 10;
    /// Left in the middle: `tandem-host recover` is needed.
    pub const INTERRUPTED: u8 = 13;
}
