//! Raw frames: those that tell the network where a MAC is, and the sockets that
//! they leave through. Used by `act` and by what is armed in advance.

pub(crate) mod frames;
pub(crate) mod socket;
