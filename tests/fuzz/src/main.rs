//! All targets in one program, so that it links once. The variable `TANDEM_FUZZ_TARGET` names one of them;
//! `cargo xtask fuzz` builds and runs it, and says where it keeps what it finds.
//!
//! A target takes hostile bytes the way that the product does, and panics where a promise of
//! `docs/trust.md` does not hold. That nothing takes long is checked here, for all.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod expand;
#[cfg(fuzzing)]
mod harmless;
#[cfg(fuzzing)]
mod limit;
#[cfg(fuzzing)]
mod machine;
#[cfg(fuzzing)]
mod open_metrics;
#[cfg(fuzzing)]
mod shown;
#[cfg(fuzzing)]
mod targets;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(init: { limit::watch(targets::chosen().0); }, |bytes: &[u8]| { targets::run(bytes); });

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    eprintln!("this program does nothing unless `cargo xtask fuzz` builds it");
    std::process::ExitCode::FAILURE
}
