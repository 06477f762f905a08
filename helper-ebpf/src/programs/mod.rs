//! The programs by topic, and the maps they share.

mod carry;
mod events;
mod fast_path;
mod kernel;
mod link;
mod port;
mod port_programs;
mod test_frame;
mod warning;
