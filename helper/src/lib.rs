//! The guest's service: observes the kernel and the host, lets `tandem-core`
//! decide, and acts.
//!
//! ```text
//! observe/  ebpf/  channel/   ->  tandem_core::Machine  ->  act/  channel/
//!                        (all driven by run.rs, and by nothing else)
//! ```

pub mod act;
pub mod channel;
pub mod ebpf;
pub mod observe;
