//! The eBPF monitor: loads the kernel programs of `helper-ebpf/` and hands on what they
//! say.
//!
//! It gives earlier and finer knowledge, never the only knowledge: each program may
//! be missing on its own, and [`EbpfSource::health`] says which and why.

pub mod btf;
mod event;
pub mod fast_path;
mod hooks;
mod load;
mod monitor;
mod source;
mod support;

#[cfg(fuzzing)]
pub(crate) use event::input as event_input;
pub use hooks::Program;
pub use source::EbpfSource;
pub use support::{Lockdown, Obstacle, Support};
