//! The lab's network: a switch, hosts with a bridge each, a client; every one in a network namespace of
//! its own, joined by veth pairs, so that MAC learning is the kernel's and no frame leaves the lab.
//!
//! ```text
//!  guest NICs - taps - br0 (host a) ---- sw0 (switch) ---- eth0 (client)
//!                      br0 (host b) ------+
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::agent::Agent;
use crate::artifacts::cargo::{self, Profile};
use crate::command;
use crate::process::{self, ProcessHandle};
use crate::run_folder::RunFolder;

const IP_LIMIT: Duration = Duration::from_secs(30);
const AGENT_LIMIT: Duration = Duration::from_secs(30);

/// The client's IPv4 address; guests are to be in the same /24.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The address the lab gives to guests by convention.
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// All stations of that /24: a guest's end of a probe may be bound to it, and gets broadcasts alone.
pub const ALL_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 255);
/// The client's IPv6 address; guests are to be in the same /64.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// The IPv6 address the lab gives to guests by convention.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

/// A network namespace of this run. It goes away with the run.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    fn create(run: &RunFolder, name: &str, ipv6: bool) -> Result<Self> {
        let name = run.netns(name);
        command::run(Command::new("ip").args(["netns", "add", &name]), IP_LIMIT)?;
        let namespace = Self { name };
        if !ipv6 {
            // Bridges and taps with addresses of their own would add noise to the network.
            namespace.exec(
                "for i in all default; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done",
            )?;
        }
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it and gives the output.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name]).args(arguments);
        Ok(command::run(&mut ip, IP_LIMIT)?.stdout)
    }

    /// Runs a shell command of this machine in it and gives the output.
    pub fn exec(&self, script: &str) -> Result<String> {
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec", &self.name, "sh", "-c", script]);
        Ok(command::run(&mut ip, IP_LIMIT)?.stdout)
    }

    fn add_bridge(&self, bridge: &str) -> Result<()> {
        self.ip(&[
            "link",
            "add",
            bridge,
            "type",
            "bridge",
            "stp_state",
            "0",
            "mcast_snooping",
            "0",
        ])?;
        // Kept from now on: a bridge without an address of its own takes the lowest of its ports'
        // (`br_stp_recalculate_bridge_id`, net/bridge/br_stp_if.c, 6.12), and neighbours would go on sending to the one
        // before.
        let shown = self.ip(&["-json", "link", "show", "dev", bridge])?;
        let links: serde_json::Value =
            serde_json::from_str(&shown).context("`ip -json` gave no JSON")?;
        let address = links[0]["address"]
            .as_str()
            .with_context(|| format!("{bridge} has no address in {shown}"))?;
        self.ip(&["link", "set", bridge, "address", address, "up"])
            .map(|_| ())
    }
}

/// The switch in the middle.
#[derive(Debug)]
pub(crate) struct Switch {
    namespace: Namespace,
}

impl Switch {
    pub(crate) fn create(run: &RunFolder) -> Result<Self> {
        let namespace = Namespace::create(run, "switch", false)?;
        namespace.add_bridge("sw0")?;
        Ok(Self { namespace })
    }

    pub(crate) const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Joins a namespace to the switch: `inside` is the interface there, `port` the one here.
    fn join(&self, other: &Namespace, inside: &str, port: &str) -> Result<()> {
        let switch = self.namespace.name();
        other.ip(&[
            "link", "add", inside, "type", "veth", "peer", "name", port, "netns", switch,
        ])?;
        self.namespace
            .ip(&["link", "set", port, "master", "sw0", "up"])?;
        other.ip(&["link", "set", inside, "up"]).map(|_| ())
    }
}

/// A "host": where guests run. Clones are the same host.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    namespace: Namespace,
    next_tap: Arc<AtomicU32>,
}

impl Host {
    pub(crate) fn create(run: &RunFolder, switch: &Switch, name: &str) -> Result<Self> {
        let namespace = Namespace::create(run, name, false)
            .with_context(|| format!("cannot make the host `{name}`"))?;
        namespace.add_bridge("br0")?;
        switch.join(&namespace, "uplink", &format!("to-{name}"))?;
        namespace.ip(&["link", "set", "uplink", "master", "br0"])?;
        Ok(Self {
            name: name.to_owned(),
            namespace,
            next_tap: Arc::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Makes a tap with so many queues on the host's bridge and gives its name.
    pub fn add_tap(&self, queues: u8) -> Result<String> {
        let tap = format!("tap{}", self.next_tap.fetch_add(1, Ordering::Relaxed));
        let mut words = vec!["tuntap", "add", "dev", &tap, "mode", "tap"];
        words.extend((queues > 1).then_some("multi_queue"));
        self.namespace.ip(&words)?;
        self.namespace
            .ip(&["link", "set", &tap, "master", "br0", "up"])?;
        Ok(tap)
    }

    /// Removes a tap that no QEMU uses any more.
    pub fn remove_tap(&self, tap: &str) -> Result<()> {
        self.namespace.ip(&["link", "del", tap]).map(|_| ())
    }

    /// What passed a tap since it was made.
    pub fn tap_frames(&self, tap: &str) -> Result<TapFrames> {
        let text = self
            .namespace
            .ip(&["-json", "-statistics", "link", "show", "dev", tap])?;
        let links: serde_json::Value =
            serde_json::from_str(&text).context("`ip -json` gave no JSON")?;
        let packets = |way: &str| {
            links[0]["stats64"][way]["packets"]
                .as_u64()
                .with_context(|| format!("no count of {way} packets in {text}"))
        };
        Ok(TapFrames {
            from_guest: packets("rx")?,
            to_guest: packets("tx")?,
        })
    }

    /// Takes the link of a tap down or up, as if a cable was pulled on the host's side.
    pub fn set_tap(&self, tap: &str, up: bool) -> Result<()> {
        self.namespace
            .ip(&["link", "set", tap, if up { "up" } else { "down" }])
            .map(|_| ())
    }
}

/// Frames that passed a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapFrames {
    /// Sent by the guest.
    pub from_guest: u64,
    /// Sent to the guest.
    pub to_guest: u64,
}

/// A machine on the network that is no guest: the other end of the traffic.
#[derive(Debug)]
pub struct Client {
    namespace: Namespace,
    agent: Agent,
    process: ProcessHandle,
}

impl Client {
    pub(crate) fn create(run: &RunFolder, switch: &Switch) -> Result<Self> {
        let namespace = Namespace::create(run, "client", true)?;
        switch.join(&namespace, "eth0", "to-client")?;
        namespace.ip(&["address", "add", &format!("{CLIENT_V4}/24"), "dev", "eth0"])?;
        namespace.ip(&[
            "address",
            "add",
            &format!("{CLIENT_V6}/64"),
            "dev",
            "eth0",
            "nodad",
        ])?;
        let program = cargo::program("tandem-lab", "lab-agent", Profile::Dev)?;
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", namespace.name()])
            .arg(program)
            .arg("stdio");
        let mut child = process::spawn_bound(command)?;
        let process = ProcessHandle::of(&child)?;
        let agent = Agent::of_child(&mut child)?;
        std::thread::spawn(move || child.wait());
        agent
            .ping(AGENT_LIMIT)
            .context("the client's agent does not answer")?;
        Ok(Self {
            namespace,
            agent,
            process,
        })
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs commands and probes in it.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> IpAddr {
        CLIENT_V4.into()
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> IpAddr {
        CLIENT_V6.into()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.process.kill();
    }
}
