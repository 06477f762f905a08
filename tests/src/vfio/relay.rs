//! Brings a hypervisor's unix sockets to this machine: a socket here, a TCP connection in the lab's network, and the
//! hypervisor's own `socat` at its other end.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::artifacts::cargo::{self, Profile};
use crate::net::Namespace;
use crate::process;

const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const START_LIMIT: Duration = Duration::from_secs(30);
const LOOK_STEP: Duration = Duration::from_millis(50);

/// A relay: a process of its own, which ends with this, or with the lab.
#[derive(Debug)]
pub(super) struct Relay(Child);

impl Relay {
    /// Listens on `path`, and brings each connection to `target` as seen from a namespace. `tandem-host` opens a
    /// guest's channel only where the domain's QEMU listens, which a command line with its UUID shows: here the relay
    /// stands for the QEMU on the hypervisor.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start(
        path: &Path,
        namespace: &Namespace,
        target: SocketAddr,
        uuid: &str,
    ) -> Result<Self> {
        let program = cargo::program("tandem-lab", "lab-agent", Profile::Dev)?;
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", namespace.name()])
            .arg(program)
            .arg("relay")
            .arg(path)
            .arg(target.to_string())
            .args(["-uuid", uuid]);
        let relay = Self(process::spawn_bound(command)?);
        let deadline = Instant::now() + START_LIMIT;
        while !path.exists() {
            ensure!(Instant::now() < deadline, "no relay at {}", path.display());
            std::thread::sleep(LOOK_STEP);
        }
        Ok(relay)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the relay's process does, until it is killed.
///
/// # Errors
/// It can't listen.
pub fn serve(path: &Path, target: SocketAddr) -> Result<()> {
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    for near in listener.incoming() {
        // Whoever connected sees the end of the connection if there is nobody at the other end.
        if let Ok(far) = TcpStream::connect_timeout(&target, CONNECT_LIMIT) {
            join(near?, far)?;
        }
    }
    Ok(())
}

/// Copies both ways, each in a thread of its own, until both are at their end.
fn join(near: UnixStream, far: TcpStream) -> io::Result<()> {
    far.set_nodelay(true)?;
    let (mut near_in, mut far_in) = (near.try_clone()?, far.try_clone()?);
    let (mut near_out, mut far_out) = (near, far);
    std::thread::spawn(move || {
        let _ = io::copy(&mut near_in, &mut far_out);
        let _ = far_out.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let _ = io::copy(&mut far_in, &mut near_out);
        let _ = near_out.shutdown(Shutdown::Both);
    });
    Ok(())
}
