//! One bond of the policy: its facts, its history, the commands about it, and the one choice of who should
//! carry its traffic.
//!
//! A bond's life, by the [`BondState`] that the status shows. It is stored nowhere: each turn derives it anew
//! from facts and history (`report/bond.rs`), so that whatever was missed, the next turn shows what is so. The
//! arrows are what happens when nothing is missed.
//!
//! ```text
//!               a NIC for it comes                 a port carries traffic
//!     Waiting ---------------------> Assembling -------------------------+
//!        ^                            |      ^                           |
//!        | the bond is gone   refused |      | tried again               |
//!        |                            v      |                           v
//!        +----------------------------Blocked                         Standby
//!                           (also: name or mode is taken)              |   ^
//!                                        a VF has held, or was asked for |   | the standby is seen active
//!                                                                      v   |
//!      Down <--- no port is usable, from any state               SwitchingOver
//!        |                                                             |   ^
//!        | one is usable again:                   the VF is seen active |   | the VF is to leave, or has failed
//!        +----> Standby, Unprotected or Accelerated                    v   |
//!                                                                Accelerated
//!                                                                      |   ^
//!                                             the standby is not usable |   | it is usable again
//!                                                                      v   |
//!                                                                Unprotected
//! ```
//!
//! A kernel that moves the traffic by itself leaves `SwitchingOver` out.
//!
//! [`BondState`]: crate::status::BondState

pub(crate) mod choice;
pub(crate) mod commands;
pub(crate) mod context;
pub(crate) mod history;
mod learn;
pub(crate) mod memory;
mod requests;
pub(crate) mod view;
mod watch;

use alloc::vec::Vec;

use choice::Choice;
use memory::Memory;
use view::BondView;

use crate::model::output::{Event, Reply};
use crate::model::types::Time;

/// What a turn of one bond brings about before anything is planned.
pub(crate) struct Turn<'v> {
    pub(crate) events: Vec<Event>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) choice: Choice<'v>,
}

/// Learns from the facts, answers the commands that came to an end, and chooses.
pub(crate) fn turn<'v>(view: &'v BondView<'_>, memory: &mut Memory, now: Time) -> Turn<'v> {
    let events = memory.learn(view, now);
    let replies = memory.resolve_commands(view, now);
    // A command that kept the hold may have come to its end.
    memory.expire_prepared(view, now);
    let choice = Choice::new(view, memory, now);
    memory.note_choice(view, &choice, now);
    Turn {
        events,
        replies,
        choice,
    }
}
