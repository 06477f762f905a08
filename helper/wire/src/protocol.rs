//! Version, name and bounds of the channel.

/// Version of the messages. Grows when a program that knows the former version
/// would misread the new one; new commands, keys and events don't count.
pub const PROTOCOL: u32 = 1;

/// Name of the virtio-serial port.
pub const PORT_NAME: &str = "org.tandem.agent.0";

/// Longest line in bytes, without its end, that the guest takes from the host.
/// A policy of 32 bonds with a dozen VFs and addresses each fits in.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Longest line in bytes, without its end, that the host takes from a guest.
pub const MAX_REPLY_BYTES: usize = 1024 * 1024;
