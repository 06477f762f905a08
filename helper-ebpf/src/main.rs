//! Tandem's kernel programs. Built for `bpfel-unknown-none` by `cargo xtask ebpf`
//! and committed as `helper-ebpf/tandem.bpf.o`.
#![no_std]
#![no_main]
// An atomic addition is to be had by assembly only; the compiler that builds this is unlocked for `core` anyway.
#![feature(asm_experimental_arch)]

mod programs;

/// GPL compatible, as the helpers used here require.
#[expect(
    unsafe_code,
    reason = "the kernel looks for the licence by section name"
)]
// SAFETY: nothing else in the object defines this symbol or uses this section.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The programs contain no panic; the compiler still asks for a handler.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
