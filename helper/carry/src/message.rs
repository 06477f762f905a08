//! What the halves say to each other.

use core::fmt;

use crate::frame::Frame;

/// Versions of the stream that this program speaks. The highest grows when a half that knows only the former one
/// would misread the new one.
pub const VERSIONS: Versions = Versions { min: 2, max: 2 };

/// A range of versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { min, max } if min == max => write!(f, "{min}"),
            Self { min, max } => write!(f, "{min} to {max}"),
        }
    }
}

/// The halves share no version of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the stream's version is {here} here and {there} at the other half: update tandem-host on {}",
    if there.max < here.min { "the other host" } else { "this host" }
)]
pub struct NoCommonVersion {
    /// What this half speaks.
    pub here: Versions,
    /// What the other half speaks.
    pub there: Versions,
}

/// The highest version that both speak.
///
/// # Errors
/// If there is none.
pub fn agree(here: Versions, there: Versions) -> Result<u16, NoCommonVersion> {
    let highest = here.max.min(there.max);
    let lowest = here.min.max(there.min);
    (lowest <= highest)
        .then_some(highest)
        .ok_or(NoCommonVersion { here, there })
}

/// Why a carry ended before it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarryCause {
    /// The guest did not stop within [`crate::Limits::hold_ms`].
    HoldTooLong,
    /// More frames came before the stop than may be kept.
    TooMuch,
    /// The hypervisor refused the stop.
    StopRefused,
    /// The migration failed or was cancelled.
    MigrationFailed,
    /// The guest was not seen to run in time, at the destination or again at the source.
    NeverResumed,
    /// The stream to the other half ended.
    StreamEnded,
    /// The other half said what it may not say then, or what is no message.
    Foreign,
    /// The halves share no version of the stream.
    NoCommonVersion,
    /// D: the guest was given nothing of what came over the stream, and won't be: it is the source's, wherever the guest is.
    NothingGiven,
    /// The other half gave up, for a reason that it told or that this version does not know.
    OtherHalf,
}

impl fmt::Display for CarryCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HoldTooLong => "the guest did not stop in time",
            Self::TooMuch => "more frames came before the stop than may be kept",
            Self::StopRefused => "the hypervisor refused to stop the guest",
            Self::MigrationFailed => "the migration failed or was cancelled",
            Self::NeverResumed => "the guest was not seen to run in time",
            Self::StreamEnded => "the stream to the other half ended",
            Self::Foreign => "the other half said what it may not say",
            Self::NoCommonVersion => "the halves share no version of the stream",
            Self::NothingGiven => "the other half gave nothing of what was carried",
            Self::OtherHalf => "the other half gave up",
        })
    }
}

/// One message. S is said by the source, D by the destination. Frames are numbered from 1; as a number,
/// 0 means none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// S, D, first: which versions of the stream the half speaks.
    Hello {
        /// These.
        versions: Versions,
    },
    /// S: holds from now on, and has the guest stopped next.
    Hold,
    /// S: a frame for the guest.
    Frame {
        /// Its number.
        number: u64,
        /// It.
        frame: Frame,
    },
    /// S: a frame that the guest has left in its tap's queue: it came before all that were held. Numbered with them.
    Left {
        /// Its number.
        number: u64,
        /// It.
        frame: Frame,
    },
    /// S: the guest stands still at the source.
    Stopped {
        /// By the source's own order.
        ours: bool,
    },
    /// D: the guest runs at the destination.
    Resumed,
    /// S: every frame on the stream, before this and after, is the destination's to give from now on. Until then each half keeps
    /// a copy, and only one of them gives it: the destination once the stream has ended, the source once the destination's
    /// process is known to be dead.
    HandOver,
    /// D: frames up to this number have been given to the guest.
    Ack {
        /// The number.
        number: u64,
    },
    /// D: the network brings the guest's frames here; which are the last that it still brought to the source?
    SyncRequest,
    /// S: all frames up to this number are on the stream; later ones are stragglers, and none of them goes to a group.
    Sync {
        /// The number.
        last: u64,
    },
    /// S: nothing follows. D: everything was given to the guest.
    Done {
        /// The last frame's number.
        last: u64,
    },
    /// S: the guest stays, its frames were given back. D: it gives up, and is open.
    Abort {
        /// Why.
        cause: CarryCause,
    },
}
