//! The agent channel to the host and the local socket.
