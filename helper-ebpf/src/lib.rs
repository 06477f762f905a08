//! Types shared with user space.
#![no_std]
