//! Turns what the kernel says into inputs of the machine.
