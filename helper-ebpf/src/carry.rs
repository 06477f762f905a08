//! What the programs of a carry and its process share: the words of the map `CARRY`, all of which a loaded object has
//! for one tap. Each has one writer, but for the mode.

/// How many words there are.
pub const CARRY_WORDS: u32 = 8;

/// Index of the mode: one of [`CARRY_DRAIN`], [`CARRY_HOLD`], [`CARRY_CLOSED`]. Written by the process; the program at
/// the guest's frames makes a closed tap hold.
pub const CARRY_MODE: u32 = 0;
/// Index of how many frames were held. Written by the program.
pub const CARRY_HELD: u32 = 1;
/// Index of how many of them the process is done with. Written by it, after it has given them to the tap.
pub const CARRY_GIVEN: u32 = 2;
/// Index of one more than how many had been held when the guest's first frame left; 0 before that. Written by the program.
pub const CARRY_EARLY: u32 = 3;
/// Index of the ifindex of the tap that frames are held in. Written by the process, before it attaches the programs.
pub const CARRY_HOLD_TAP: u32 = 4;
/// Index of how many frames a closed tap has dropped. Written by the program.
pub const CARRY_CLOSED_TO: u32 = 5;
/// Index of how many frames have passed. Written by the program.
pub const CARRY_PASSED: u32 = 6;
/// Index of when the process last had a turn, in ns of `CLOCK_MONOTONIC`. Written by it, before it attaches the programs and at least
/// every [`CARRY_BEAT_NS`].
pub const CARRY_BEAT: u32 = 7;

/// The process says so often that it works, in ns.
pub const CARRY_BEAT_NS: u64 = 1_000_000_000;
/// Where it has not said so for this long, in ns, every frame passes at a tap that is not closed: a process that stands still keeps
/// nothing from the guest.
pub const CARRY_LEASE_NS: u64 = 5 * CARRY_BEAT_NS;

/// Frames pass as soon as nothing is held, and are held behind what is until then: also how a tap is open.
pub const CARRY_DRAIN: u64 = 0;
/// Frames are held.
pub const CARRY_HOLD: u64 = 1;
/// Frames are dropped: somebody else gets them.
pub const CARRY_CLOSED: u64 = 2;
