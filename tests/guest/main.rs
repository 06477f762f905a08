//! `lab-agent`: does what the lab asks, in a guest (over a virtio-serial port) or in a network namespace
//! (over standard input and output).

mod capture;
mod frames;
mod port;
mod programs;
mod renew;
mod requests;
mod stream;

use std::process::ExitCode;

fn main() -> ExitCode {
    let served = match std::env::args().nth(1).as_deref() {
        Some("guest") => port::serve_guest(),
        Some("stdio") => port::serve_stdio(),
        _ => Err(anyhow::anyhow!("usage: lab-agent guest | lab-agent stdio")),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
