//! The eBPF monitor: loads the kernel programs and reads their events.
