//! Probes: what arrives of what was sent, in both directions.

pub mod proto;
