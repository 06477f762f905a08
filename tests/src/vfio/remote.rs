//! Runs a hypervisor's programs from this machine, as ssh would: their standard streams are a TCP connection in the lab's
//! network, and nothing else of them comes here.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::hypervisor::Hypervisor;
use crate::Lab;
use crate::artifacts::cargo::{self, Profile};

const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// A command's words take no more, in bytes.
const MOST_BYTES: usize = 64 << 10;
/// Where a hypervisor's commands are asked for.
const PORT: u16 = 9004;
/// Where it has the product.
const PROGRAM: &str = "/usr/sbin/tandem-host";

/// Has a hypervisor serve its commands.
///
/// # Errors
/// It can't.
pub(super) fn start(hypervisor: &Hypervisor) -> Result<()> {
    let at = address(hypervisor).to_string();
    let words = ["/usr/sbin/lab-agent", "serve-commands", &at];
    let log = "/tmp/commands.log";
    hypervisor.vm().spawn(&words, &[("LC_ALL", "C")], log)?;
    Ok(())
}

/// What runs `tandem-host` there, for `--carry-from` and `--carry-to`.
///
/// # Errors
/// The lab has no client, or no agent.
pub(super) fn tandem_host(lab: &Lab, hypervisor: &Hypervisor) -> Result<String> {
    let namespace = lab.client()?.namespace().name();
    let agent = cargo::program("tandem-lab", "lab-agent", Profile::Dev)?;
    Ok(format!(
        "ip netns exec {namespace} {} command {} {PROGRAM}",
        agent.display(),
        address(hypervisor)
    ))
}

fn address(hypervisor: &Hypervisor) -> SocketAddr {
    SocketAddr::new(hypervisor.address().into(), PORT)
}

/// What the hypervisor's process does, until it is killed: it runs whatever it is asked for.
///
/// # Errors
/// It can't listen.
pub fn serve(at: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen at {at}"))?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = run_for(stream) {
                eprintln!("{error:#}");
            }
        });
    }
    Ok(())
}

/// The command has the connection: whoever is at the other end sees it end with the command.
fn run_for(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let words = words_of(&mut stream)?;
    let [program, arguments @ ..] = &words[..] else {
        bail!("a command of no words");
    };
    let input: OwnedFd = stream.try_clone()?.into();
    let output: OwnedFd = stream.into();
    let mut command = Command::new(program);
    command.args(arguments);
    command
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output));
    let mut child = command
        .spawn()
        .with_context(|| format!("{program} can't be started"))?;
    // Its copies of the connection go with it.
    drop(command);
    let status = child.wait()?;
    ensure!(status.success(), "{words:?}: {status}");
    Ok(())
}

/// A line of JSON, and not a byte of what follows.
fn words_of(stream: &mut impl Read) -> Result<Vec<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte).context("no command came")?;
        if byte == *b"\n" {
            return serde_json::from_slice(&line).context("a command that is no JSON");
        }
        line.extend(byte);
        ensure!(line.len() <= MOST_BYTES, "a command without an end");
    }
}

/// What this machine's process does: runs a command there with its own standard streams, to its end.
///
/// # Errors
/// It can't be run, or is cut off.
pub fn run(at: SocketAddr, words: &[String]) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&at, CONNECT_LIMIT)
        .with_context(|| format!("cannot connect to {at}"))?;
    stream.set_nodelay(true)?;
    let mut line = serde_json::to_vec(words)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut input = stream.try_clone()?;
    std::thread::spawn(move || {
        // The end of the output tells of whatever went wrong.
        let _ = copy(io::stdin().lock(), &mut input);
        let _ = input.shutdown(Shutdown::Write);
    });
    copy(stream, &mut io::stdout().lock()).context("the command's output")
}

/// Each piece at once.
fn copy(mut from: impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all(&bytes[..count])?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_command_is_left_to_it() {
        let mut sent: &[u8] = b"[\"sh\",\"-c\",\"a\\nb\"]\nits own";
        assert_eq!(words_of(&mut sent).unwrap(), ["sh", "-c", "a\nb"]);
        assert_eq!(sent, b"its own");
        assert!(words_of(&mut sent).is_err());
    }
}
