//! `lab-agent`: does what the lab asks, in a guest (over a virtio-serial port) or in a network namespace
//! (over standard input and output); or brings a socket elsewhere.

mod capture;
mod filter;
mod frames;
mod last_word;
mod port;
mod programs;
mod renew;
mod requests;
mod stream;

use std::process::ExitCode;

use tandem_lab::vfio::{relay, remote};

fn main() -> ExitCode {
    let served = match std::env::args().nth(1).as_deref() {
        Some("guest") => port::serve_guest(),
        Some("stdio") => port::serve_stdio(),
        Some("relay") => bring_socket(),
        Some("serve-commands") => serve_commands(),
        Some("command") => command(),
        Some("last-word") => have_last_word(),
        Some("filter") => set_filter(),
        _ => Err(anyhow::anyhow!(
            "usage: lab-agent guest | lab-agent stdio | lab-agent relay SOCKET ADDRESS:PORT | \
             lab-agent serve-commands ADDRESS:PORT | lab-agent command ADDRESS:PORT WORDS | \
             lab-agent last-word DEVICE in|out|no-vlans-in|no-vlans-out|xdp|xdp-strict | lab-agent filter DEVICE on|off"
        )),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bring_socket() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let [path, target, ..] = &arguments[..] else {
        anyhow::bail!("a relay takes a socket and an address");
    };
    relay::serve(path.as_ref(), target.parse()?)
}

fn serve_commands() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let [at] = &arguments[..] else {
        anyhow::bail!("an address is needed");
    };
    remote::serve(at.parse()?)
}

fn command() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let [at, words @ ..] = &arguments[..] else {
        anyhow::bail!("an address and a command are needed");
    };
    remote::run(at.parse()?, words)
}

fn set_filter() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    match &arguments[..] {
        [device, state] if state == "on" => filter::add(device),
        [device, state] if state == "off" => filter::remove(device),
        _ => anyhow::bail!("a device and `on` or `off` are needed"),
    }
}

fn have_last_word() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let [device, place] = &arguments[..] else {
        anyhow::bail!("a device and a place are needed");
    };
    last_word::have(device, place)
}
