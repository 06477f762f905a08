//! The commands, one file each.

pub mod args;
pub mod carry;
pub mod configure;
pub mod connect;
mod dry_run;
pub mod how;
mod mac_form;
pub mod migrate;
mod named;
mod obstacles;
pub mod one_step;
mod outcome_text;
mod progress_line;
pub mod recover;
pub mod serve;
pub(crate) mod session;
pub mod spec;
pub mod status;
mod storage;
mod text_file;
mod unmigratable;
pub mod watch;
pub mod xml;

/// Exit codes of what is no evacuation; the others are those of [`crate::evacuate::Verdict::exit_code`].
pub mod exit {
    use crate::evacuate::Verdict;

    /// It failed, and nothing more is known.
    pub const FAILED: u8 = 1;
    /// Nothing stands in the way.
    pub const READY: u8 = Verdict::Ready.exit_code();
    /// The guest said no.
    pub const REFUSED: u8 = Verdict::Refused.exit_code();
    /// The command line is not understood; clap's.
    pub const USAGE: u8 = 2;

    /// All of them, with their meanings for `--help`, the manual page and the reference.
    pub const MEANINGS: [(u8, &str); 7] = [
        (
            Verdict::Done.exit_code(),
            "done: the guest runs on the destination with all its devices, and uses its VFs there as far as it could be \
             asked; for check: nothing was found \
             that stands in the way; for recover also: nothing to recover",
        ),
        (
            FAILED,
            "not begun (an argument, a file; for all but migrate and check also an unreachable host), or the domain does not \
             run any more",
        ),
        (USAGE, "the command line is wrong"),
        (
            REFUSED,
            "refused: the evacuation did not begin and the domain is as it was, though its guest may have been \
             sent the bonds of its XML",
        ),
        (
            Verdict::RolledBack.exit_code(),
            "rolled back: the domain is on the source with the devices that it had; the report says whether its guest \
             uses them again",
        ),
        (
            Verdict::Degraded.exit_code(),
            "degraded: the guest runs without a device that it should have, or does not say that it uses its VFs; the report \
             names them",
        ),
        (
            Verdict::Interrupted.exit_code(),
            "interrupted: the error names the command that finishes or undoes it",
        ),
    ];
}
