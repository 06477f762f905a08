//! A domain that runs the product, and what an operator and a test do with it.

use std::cell::{Cell, RefCell};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tandem_core::Status;
use tandem_core::status::{BondState, BondStatus, PortStatus};
use tandem_wire::reply::StatusReport;

use super::daemon::LibvirtHost;
use super::domain::{self, DomainSpec, VF_ALIAS, vf_xml};
use super::tool::{Ran, file, tandem_host};
use crate::agent::{Agent, Background};
use crate::net::{CLIENT_V4, GUEST_V4};
use crate::probe::{FrameOptions, FrameProbe};
use crate::qemu::accel;
use crate::tandem::{self, BOND, PROGRAM, STEP_LIMIT};
use crate::{Lab, Mac, boot};

/// What an evacuation may take in all.
pub const EVACUATION_LIMIT: Duration = Duration::from_secs(300);

/// Emulated and on a busy machine; usually it takes about 10 s.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How often something is looked at that no event announces.
const LOOK_STEP: Duration = Duration::from_millis(200);

/// A domain on one of two hosts.
#[derive(Debug)]
pub struct LibvirtGuest<'lab> {
    lab: &'lab Lab,
    spec: DomainSpec,
    agent: Agent,
    pub(super) service: Cell<Option<Background>>,
    /// The name of the host that the agent's connection goes to.
    home: RefCell<String>,
    /// The domain's name by now.
    name: RefCell<String>,
    records: PathBuf,
}

impl<'lab> LibvirtGuest<'lab> {
    /// Creates the domain on a host, boots it, and starts the service there, which has no configuration.
    pub fn boot(lab: &'lab Lab, host: &LibvirtHost, spec: DomainSpec) -> Result<Self> {
        lab.client()?;
        let image = lab
            .small_guest()
            .program(&tandem::binary()?, PROGRAM)
            .image()?;
        let mut parameters = boot::kernel_parameters(accel::detect()?);
        parameters.extend(spec.kernel_parameters.iter().cloned());
        let xml = spec.xml(&image, &parameters, host)?;
        let path = file(lab.folder(), &format!("{}.xml", spec.name), &xml)?;
        host.virsh(&["create", &path])?;
        let agent = Agent::in_guest(connect(host)?, None)?;
        let guest = Self {
            lab,
            records: lab.folder().join("records"),
            name: RefCell::new(spec.name.clone()),
            spec,
            agent,
            service: Cell::new(None),
            home: RefCell::new(host.host().name().to_owned()),
        };
        guest.await_boot(host)?;
        Ok(guest)
    }

    /// The lab's agent in the guest.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The domain's name by now.
    pub fn name(&self) -> String {
        self.name.borrow().clone()
    }

    /// Its description.
    pub fn spec(&self) -> &DomainSpec {
        &self.spec
    }

    /// Where `tandem-host` keeps this machine's own records of evacuations.
    pub fn records_folder(&self) -> &str {
        self.records.to_str().unwrap_or_default()
    }

    /// `tandem-host configure`: gives the guest the bond of the domain's XML.
    pub fn configure(&self, host: &LibvirtHost) -> Result<String> {
        let ran = tandem_host(
            &[
                "configure",
                &self.spec.name,
                "-c",
                &host.uri(),
                "--serve-socket",
                &host.serve_socket(),
                "--channel-folder",
                &host.channel_folder(),
            ],
            EVACUATION_LIMIT,
        )?;
        ensure!(
            ran.code == Some(0),
            "tandem-host configure: {ran:?}\nthe service's log ends:\n{}",
            self.log_tail()
        );
        Ok(ran.stdout)
    }

    /// The arguments of `tandem-host migrate` to another host, where the VF has this MAC.
    pub fn migrate_arguments(
        &self,
        here: &LibvirtHost,
        there: &LibvirtHost,
        vf: Mac,
    ) -> Result<Vec<String>> {
        let vf = self.vf_file(VF_ALIAS, vf)?;
        self.arguments("migrate", here, there, &[vf])
    }

    /// A file for `--vf`: a VF with this alias and MAC.
    pub fn vf_file(&self, alias: &str, mac: Mac) -> Result<String> {
        let xml = vf_xml(self.spec.model, mac, alias);
        file(self.lab.folder(), &format!("{alias}.xml"), &xml)
    }

    /// The arguments of `tandem-host migrate`, or of `check`, to another host, with a `--vf` for each of `vfs`.
    pub fn arguments(
        &self,
        command: &str,
        here: &LibvirtHost,
        there: &LibvirtHost,
        vfs: &[String],
    ) -> Result<Vec<String>> {
        let live = here.virsh(&["dumpxml", &self.name(), "--migratable"])?;
        let xml = domain::for_other_host(&live, here, there)?;
        let xml = file(self.lab.folder(), "destination.xml", &xml)?;
        let words = [
            command,
            &self.name(),
            &there.uri(),
            "-c",
            &here.uri(),
            "--xml",
            &xml,
            "--migrate-uri",
            &there.migrate_uri(),
            "--state-dir",
            &here.state_folder(),
            "--records-dir",
            self.records_folder(),
            "--serve-socket",
            &here.serve_socket(),
            "--channel-folder",
            &here.channel_folder(),
            "--json",
        ];
        let words = words.map(str::to_owned).into_iter();
        let vfs = vfs.iter().flat_map(|vf| ["--vf".to_owned(), vf.clone()]);
        Ok(words.chain(vfs).collect())
    }

    /// The arguments of `tandem-host recover`, asked on this host.
    pub fn recover_arguments(&self, host: &LibvirtHost) -> Vec<String> {
        let words = [
            "recover",
            &self.spec.name,
            "-c",
            &host.uri(),
            "--serve-socket",
            &host.serve_socket(),
            "--channel-folder",
            &host.channel_folder(),
            "--state-dir",
            &host.state_folder(),
            "--records-dir",
            self.records_folder(),
            "--json",
        ];
        words.map(str::to_owned).to_vec()
    }

    /// `tandem-host migrate`, with more arguments. Requests to the guest's agent are held back meanwhile.
    pub fn migrate(
        &self,
        here: &LibvirtHost,
        there: &LibvirtHost,
        vf: Mac,
        more: &[&str],
    ) -> Result<Ran> {
        let mut arguments = self.migrate_arguments(here, there, vf)?;
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        self.evacuate(here, there, &arguments)
    }

    /// `tandem-host` with these arguments, which may move the domain from one host to the other. Requests to the
    /// guest's agent are held back meanwhile.
    pub fn evacuate(
        &self,
        here: &LibvirtHost,
        there: &LibvirtHost,
        arguments: &[String],
    ) -> Result<Ran> {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.agent.pause();
        let ran = tandem_host(&words, EVACUATION_LIMIT);
        let renamed = arguments.iter().position(|word| word == "--dname");
        if let Some(name) = renamed.and_then(|at| arguments.get(at + 1))
            && there.running()?.contains(name)
        {
            name.clone_into(&mut self.name.borrow_mut());
        }
        self.follow(&[here, there])?;
        ran
    }

    /// Has the guest reboot by itself, without a word to anybody, and waits until it has come up anew on
    /// this host. Nothing runs in it yet, see [`Self::await_boot`].
    pub fn reboot(&self, host: &LibvirtHost) -> Result<()> {
        let before = starts(host);
        // The answer to this request has to get out before the guest goes down.
        let soon =
            "setsid sh -c 'sleep 1; echo b > /proc/sysrq-trigger' >/dev/null 2>&1 </dev/null &";
        self.agent.sh(soon)?;
        let deadline = Instant::now() + BOOT_LIMIT;
        while starts(host) == before {
            ensure!(Instant::now() < deadline, "the guest does not reboot");
            std::thread::sleep(LOOK_STEP);
        }
        Ok(())
    }

    /// Waits until a guest that boots answers, and starts the service there, as its init would.
    pub fn await_boot(&self, host: &LibvirtHost) -> Result<()> {
        self.agent
            .ping(BOOT_LIMIT)
            .with_context(|| format!("the guest did not boot:\n{}", console_tail(host)))?;
        self.start_service()
    }

    /// Talks to the guest where it is now.
    pub fn follow(&self, hosts: &[&LibvirtHost]) -> Result<()> {
        for host in hosts {
            if !host.running()?.contains(&self.name()) {
                continue;
            }
            let mut home = self.home.borrow_mut();
            // QEMU serves one client at a time, so the connection there is must be kept.
            if *home == host.host().name() {
                self.agent.unpause();
                return Ok(());
            }
            host.host().name().clone_into(&mut home);
            return self.agent.resume(connect(host)?, None);
        }
        bail!("the domain {} runs on no host", self.name())
    }

    /// Holds requests to the guest's agent back, until [`Self::follow`].
    pub fn pause(&self) {
        self.agent.pause();
    }

    /// Starts numbered frames both ways between the lab's client and the guest.
    pub fn probe_frames(&self, options: FrameOptions) -> Result<FrameProbe> {
        self.lab
            .probe_frames_of(&self.agent, GUEST_V4.into(), options)
    }

    /// The guest's own status, with the moment of the guest's clock it was made at.
    pub fn report(&self) -> Result<StatusReport> {
        tandem::report(&self.agent, STEP_LIMIT)
    }

    /// The guest's own status.
    pub fn status(&self) -> Result<Status> {
        Ok(self.report()?.status)
    }

    /// Waits until the guest says that its bond is in this state.
    pub fn await_state(&self, wanted: BondState) -> Result<Status> {
        self.await_bond(BOND, wanted)
    }

    fn await_bond(&self, name: &str, wanted: BondState) -> Result<Status> {
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            let status = self.status()?;
            if bond_of(&status, name).is_some_and(|bond| bond.state == wanted) {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "{name} is not {wanted:?} within {STEP_LIMIT:?}: {status:?}\nthe service's log ends:\n{}",
                self.log_tail()
            );
            std::thread::sleep(LOOK_STEP);
        }
    }

    /// The same check after everything: the domain runs on `here` alone, has this VF there or none, the
    /// guest and its kernel agree on who carries the traffic, and traffic flows.
    pub fn check(&self, here: &LibvirtHost, other: &LibvirtHost, vf: Option<Mac>) -> Result<()> {
        self.check_bonds(here, other, &[vf])
    }

    /// The same of a domain with a VF, or none, for each of its bonds.
    pub fn check_bonds(
        &self,
        here: &LibvirtHost,
        other: &LibvirtHost,
        vfs: &[Option<Mac>],
    ) -> Result<()> {
        self.check_nics(here, other, vfs)?;
        for ((name, standby), vf) in self.spec.bonds().zip(vfs) {
            self.check_bond(name, standby, *vf)?;
        }
        self.check_traffic()
    }

    fn check_bond(&self, name: &str, standby_mac: Mac, vf: Option<Mac>) -> Result<()> {
        let wanted = match vf {
            Some(_) => BondState::Accelerated,
            None => BondState::Standby,
        };
        let status = self.await_bond(name, wanted)?;
        let bond = bond_of(&status, name).context("the guest knows no bond")?;
        let mac = |port: &PortStatus| port.mac.map(|mac| mac.to_string());
        let said = bond.vf.as_ref().and_then(mac);
        ensure!(
            said == vf.map(|mac| mac.to_string()),
            "the guest's VF of {name} is {said:?}, not {vf:?}"
        );
        let standby = bond
            .standby
            .as_ref()
            .context("it says nothing of the standby")?;
        ensure!(
            mac(standby) == Some(standby_mac.to_string()) && standby.enslaved && standby.carrier,
            "the standby of {name} is not ready: {standby:?}"
        );
        let carrier = self
            .agent
            .sh(&format!("cat /sys/class/net/{name}/bonding/active_slave"))?;
        let device = self.agent.find_interface(vf.unwrap_or(standby_mac))?;
        ensure!(
            device.as_deref() == Some(carrier.trim()),
            "the kernel's active port of {name} is {carrier}, not {device:?}"
        );
        let ports = self
            .agent
            .sh(&format!("cat /sys/class/net/{name}/bonding/slaves"))?;
        ensure!(
            ports.split_whitespace().count() == 1 + usize::from(vf.is_some()),
            "the ports of {name} are {ports}"
        );
        Ok(())
    }

    /// Traffic flows.
    pub fn check_traffic(&self) -> Result<()> {
        self.agent
            .sh(&format!("ping -c 1 -W 10 {CLIENT_V4}"))
            .map(drop)
    }

    /// The part of [`Self::check`] that no guest is asked for.
    pub fn check_domain(
        &self,
        here: &LibvirtHost,
        other: &LibvirtHost,
        vf: Option<Mac>,
    ) -> Result<()> {
        self.check_nics(here, other, &[vf])
    }

    fn check_nics(
        &self,
        here: &LibvirtHost,
        other: &LibvirtHost,
        vfs: &[Option<Mac>],
    ) -> Result<()> {
        ensure!(
            here.running()?.contains(&self.name()),
            "it does not run here"
        );
        ensure!(
            !other.running()?.contains(&self.name()),
            "it runs on both hosts"
        );
        let xml = here.virsh(&["dumpxml", &self.name()])?;
        // Each once, and no other: a VF that was plugged in twice is there twice.
        let standbys = self.spec.bonds().map(|(_, standby)| standby);
        let mut wanted: Vec<String> = standbys
            .chain(vfs.iter().copied().flatten())
            .map(|mac| mac.to_string())
            .collect();
        let mut attached = macs(&xml);
        wanted.sort();
        attached.sort();
        ensure!(
            attached == wanted,
            "the domain has the NICs {attached:?}, not {wanted:?}"
        );
        Ok(())
    }

    /// Of its evacuations nothing is left: in the XML that this host has of it, or among this machine's records.
    pub fn has_no_record(&self, host: &LibvirtHost) -> Result<()> {
        let xml = host.virsh(&["dumpxml", &self.name()])?;
        let left = ["xmlns/progress/", "xmlns/claim/"];
        let left = left.iter().find(|namespace| xml.contains(**namespace));
        ensure!(left.is_none(), "a record or claim was left: {xml}");
        // There may have been none yet.
        if self.records.exists() {
            let kept: Vec<_> = std::fs::read_dir(&self.records)?.collect::<Result<_, _>>()?;
            ensure!(kept.is_empty(), "this machine kept {kept:?}");
        }
        Ok(())
    }

    /// What the service logged, its last lines.
    pub fn log_tail(&self) -> String {
        self.agent
            .sh(&format!("tail -n 60 {}", tandem::LOG))
            .unwrap_or_else(|error| format!("{error:#}"))
    }
}

fn bond_of<'a>(status: &'a Status, name: &str) -> Option<&'a BondStatus> {
    let mut bonds = status.bonds.iter();
    bonds.find(|bond| bond.name.as_str() == name)
}

/// The MACs of all NICs in a domain's XML, as often as they are there.
fn macs(xml: &str) -> Vec<String> {
    let interfaces = xml.split("<interface ").skip(1);
    let mac = |interface: &str| {
        let (_, rest) = interface.split_once("<mac address='")?;
        Some(rest.split('\'').next()?.to_owned())
    };
    interfaces.map(|one| mac(one).unwrap_or_default()).collect()
}

fn connect(host: &LibvirtHost) -> Result<UnixStream> {
    let path = host.folder().join("lab");
    UnixStream::connect(&path).with_context(|| format!("cannot connect to {}", path.display()))
}

/// How often a guest has come up on that host's console (`tests/guest/init.sh`).
fn starts(host: &LibvirtHost) -> usize {
    let text = std::fs::read(host.folder().join("console.log")).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .matches("lab: init done")
        .count()
}

fn console_tail(host: &LibvirtHost) -> String {
    let text = std::fs::read(host.folder().join("console.log")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::macs;

    #[test]
    fn a_nic_that_is_there_twice_is_counted_twice() {
        let nic =
            |mac: &str| format!("<interface type='bridge'><mac address='{mac}'/></interface>");
        let xml = ["a", "b", "b"].map(nic).concat();
        assert_eq!(macs(&format!("<domain>{xml}</domain>")), ["a", "b", "b"]);
    }
}
