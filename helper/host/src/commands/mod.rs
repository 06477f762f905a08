//! The commands, one file each.

pub mod args;
pub mod configure;
pub mod connect;
pub mod migrate;
mod named;
pub mod one_step;
pub mod recover;
pub mod serve;
pub(crate) mod session;
pub mod spec;
pub mod status;
mod text_file;
pub mod watch;
pub mod xml;

/// Exit codes of what is no evacuation; the others are those of [`crate::evacuate::Verdict::exit_code`].
pub mod exit {
    use crate::evacuate::Verdict;

    /// It failed, and nothing more is known.
    pub const FAILED: u8 = 1;
    /// The guest said no.
    pub const REFUSED: u8 = Verdict::Refused.exit_code();
}
