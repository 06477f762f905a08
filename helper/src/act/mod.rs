//! Carries out the machine's actions; the only place that changes the kernel.
