//! What gives guests their addresses, as a cloud does: DHCPv4 with short leases, DHCPv6, router advertisements and
//! DNS, from the lab's client.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::artifacts::host_tools::{self, HostTool};
use crate::command;
use crate::lab::Lab;
use crate::net::{CLIENT_V4, CLIENT_V6};
use crate::process::{self, ProcessHandle};
use crate::qemu::Mac;

/// The shortest lease that dnsmasq gives.
pub const LEASE: Duration = Duration::from_secs(120);
/// A name that it knows.
pub const NAME: &str = "server.example";
const START_LIMIT: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A DHCP server in the client's namespace; ends with this.
#[derive(Debug)]
pub struct DhcpServer {
    process: ProcessHandle,
    leases: PathBuf,
    log: PathBuf,
}

/// A DHCPv4 lease as the server has written it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// When it ends, in seconds of this machine's clock since 1970.
    pub ends_s: u64,
    /// Whose it is.
    pub mac: Mac,
    /// What was leased.
    pub address: String,
    /// How the guest called itself, as hexadecimal numbers.
    pub client_id: String,
}

impl DhcpServer {
    /// Starts it beside the lab's client, which is gateway and name server too.
    pub fn start(lab: &Lab) -> Result<Self> {
        host_tools::ensure(&[HostTool::Dnsmasq])?;
        let folder = lab.inner().new_folder("dhcp")?;
        let (leases, log) = (folder.join("leases"), folder.join("log"));
        let program = command::find_program("dnsmasq").context("dnsmasq is not installed")?;
        let mut dnsmasq = Command::new("ip");
        dnsmasq
            .args(["netns", "exec", lab.client()?.namespace().name()])
            .arg(program)
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--user=root",
            ])
            .args(["--pid-file=", "--no-resolv", "--no-hosts", "--no-ping"])
            .args(["--interface=eth0", "--bind-interfaces", "--log-dhcp"])
            .args(["--dhcp-authoritative", "--enable-ra"])
            .arg(format!("--log-facility={}", log.display()))
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .arg(format!(
                "--dhcp-range=10.77.0.50,10.77.0.199,255.255.255.0,{}",
                LEASE.as_secs()
            ))
            .arg(format!(
                "--dhcp-range=fd77::1000,fd77::1fff,slaac,64,{}",
                LEASE.as_secs()
            ))
            .arg(format!("--host-record={NAME},{CLIENT_V4}"))
            .arg(format!("--dhcp-option=option:router,{CLIENT_V4}"))
            .arg(format!("--dhcp-option=option:dns-server,{CLIENT_V4}"))
            .arg(format!("--dhcp-option=option6:dns-server,[{CLIENT_V6}]"));
        let mut child = process::spawn_bound(dnsmasq)?;
        let server = Self {
            process: ProcessHandle::of(&child)?,
            leases,
            log,
        };
        std::thread::spawn(move || child.wait());
        let deadline = Instant::now() + START_LIMIT;
        while !server.log().contains("started, version") {
            ensure!(
                Instant::now() < deadline && !server.process.wait_exit(Duration::ZERO)?,
                "dnsmasq does not start: {}",
                server.log()
            );
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(server)
    }

    /// The lease of the NIC with this MAC, if there is one. Where it has several, that is an error.
    pub fn lease(&self, mac: Mac) -> Result<Option<Lease>> {
        let mut leases = read(&self.leases)?;
        leases.retain(|lease| lease.mac == mac);
        ensure!(leases.len() < 2, "{mac} has several leases: {leases:#?}");
        Ok(leases.pop())
    }

    /// Answers nobody and advertises nothing until [`Self::speak`].
    pub fn be_silent(&self) -> Result<()> {
        self.process.hold_up()
    }

    /// Answers again.
    pub fn speak(&self) -> Result<()> {
        self.process.go_on()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for DhcpServer {
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// dnsmasq's file: a line for each lease, those of DHCPv6 after a line `duid …`.
fn read(path: &Path) -> Result<Vec<Lease>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().take_while(|line| !line.starts_with("duid "));
    lines
        .map(|line| {
            let mut words = line.split(' ');
            let mut word = || words.next().with_context(|| format!("lease `{line}`"));
            let (ends, mac, address, _name, client_id) =
                (word()?, word()?, word()?, word()?, word()?);
            Ok(Lease {
                ends_s: ends.parse()?,
                mac: mac.parse()?,
                address: address.to_owned(),
                client_id: client_id.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_read_from_dnsmasqs_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases");
        assert_eq!(read(&path).unwrap(), []);
        let text = "1700000000 52:54:00:00:00:01 10.77.0.60 guest ff:c2:72:f6:09:00:02\n\
                    duid 00:01:00:01\n1700000000 3262313993 fd77::1234 guest 00:02:00:00\n";
        std::fs::write(&path, text).unwrap();
        let lease = Lease {
            ends_s: 1_700_000_000,
            mac: "52:54:00:00:00:01".parse().unwrap(),
            address: "10.77.0.60".to_owned(),
            client_id: "ff:c2:72:f6:09:00:02".to_owned(),
        };
        assert_eq!(read(&path).unwrap(), [lease]);
    }
}
