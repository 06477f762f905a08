//! The programs by topic, and the maps they share.

mod events;
mod kernel;
mod link;
mod path;
mod port;
mod rescue;
mod warning;
