//! Two hosts, a guest with a VF on one of them, and what is asked after each fault.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tandem_core::status::BondState;

use super::daemon::LibvirtHost;
use super::domain::{DomainSpec, VF_ALIAS};
use super::guest::{EVACUATION_LIMIT, LibvirtGuest};
use super::tool::{Ran, Running, await_phase, tandem_host};
use crate::tandem::STEP_LIMIT;
use crate::{Lab, Mac, test_mac};

/// The domain's name.
pub const DOMAIN: &str = "g1";
/// Slow enough that a migration is still under way whatever a test does meanwhile.
pub const SLOW: [&str; 2] = ["--bandwidth", "1"];

/// Two hosts, and a guest on one of them.
#[derive(Debug)]
pub struct World<'lab> {
    /// The lab they are in.
    pub lab: &'lab Lab,
    /// The guest.
    pub guest: LibvirtGuest<'lab>,
    /// Where it runs.
    pub home: LibvirtHost,
    /// The other one.
    pub other: LibvirtHost,
    /// The VF that it has, or should have, at home.
    pub vf: Mac,
    /// The one that waits for it there.
    pub other_vf: Mac,
}

/// A `tandem-host migrate` under way.
#[derive(Debug)]
pub struct Told {
    /// The process.
    pub running: Running,
    lines: Receiver<String>,
}

impl Told {
    /// `tandem-host` with these arguments.
    pub fn start(arguments: &[String]) -> Result<Self> {
        let (running, lines) = Running::start_told(&words(arguments))?;
        Ok(Self { running, lines })
    }

    /// Waits until it has come to this phase.
    pub fn await_phase(&self, phase: &str) -> Result<()> {
        await_phase(&self.lines, phase, EVACUATION_LIMIT)
    }

    /// Ctrl-C, and what comes of it.
    pub fn interrupt(self) -> Result<Ran> {
        self.running.signal(Signal::INT)?;
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(self) -> Result<Ran> {
        self.running.wait(EVACUATION_LIMIT)
    }
}

impl<'lab> World<'lab> {
    /// Boots the guest on the first host, with the bond of its XML; its VF carries the traffic.
    pub fn new(lab: &'lab Lab, kernel_parameters: &[&str]) -> Result<Self> {
        let (home, other) = LibvirtHost::pair(lab)?;
        let mut spec = DomainSpec::new(DOMAIN);
        spec.kernel_parameters = kernel_parameters.iter().map(ToString::to_string).collect();
        let guest = LibvirtGuest::boot(lab, &home, spec)?;
        guest.configure(&home)?;
        guest.await_state(BondState::Accelerated)?;
        let vf = guest.spec().vf;
        Ok(Self {
            lab,
            guest,
            home,
            other,
            vf,
            other_vf: test_mac(3),
        })
    }

    /// The arguments of a migration to the other host.
    pub fn arguments(&self, more: &[&str]) -> Result<Vec<String>> {
        let mut arguments = self
            .guest
            .migrate_arguments(&self.home, &self.other, self.other_vf)?;
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        Ok(arguments)
    }

    /// `tandem-host migrate` to the other host, to its end; the guest stays at home.
    pub fn migrate(&self, more: &[&str]) -> Result<Ran> {
        tandem_host(&words(&self.arguments(more)?), EVACUATION_LIMIT)
    }

    /// The same, begun.
    pub fn start(&self, more: &[&str]) -> Result<Told> {
        Told::start(&self.arguments(more)?)
    }

    /// One that takes long, once memory is being copied.
    pub fn start_slow(&self, more: &[&str]) -> Result<Told> {
        let told = self.start(&[&SLOW, more].concat())?;
        told.await_phase("migrate")?;
        self.home.await_migration(DOMAIN)?;
        Ok(told)
    }

    /// Unplugs the VF by virsh, and waits until it has left: virsh only asks for it, and the guest has moved
    /// its traffic before.
    pub fn detach_vf(&self) -> Result<()> {
        self.home
            .virsh(&["detach-device-alias", DOMAIN, VF_ALIAS, "--live"])?;
        let deadline = Instant::now() + STEP_LIMIT;
        while self
            .home
            .virsh(&["dumpxml", DOMAIN])?
            .contains(&format!("<alias name='{VF_ALIAS}'/>"))
        {
            ensure!(Instant::now() < deadline, "the VF does not leave");
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Plugs the VF of this host in by virsh, as another manager does.
    pub fn attach_vf(&self) -> Result<()> {
        let vf = self.guest.vf_file(VF_ALIAS, self.vf)?;
        self.home
            .virsh(&["attach-device", DOMAIN, &vf, "--live"])
            .map(drop)
    }

    /// One of the calls of `docs/managers.md` around what another manager does by itself: `prepare`, `resume`.
    pub fn one_step(&self, name: &str) -> Result<Ran> {
        let home = &self.home;
        let (uri, serve, channels) = (home.uri(), home.serve_socket(), home.channel_folder());
        let there = [
            "-c",
            &uri,
            "--serve-socket",
            &serve,
            "--channel-folder",
            &channels,
        ];
        tandem_host(
            &[&[name, DOMAIN, "--json"][..], &there].concat(),
            STEP_LIMIT,
        )
    }

    /// The arguments of `tandem-host recover`, asked on this host.
    pub fn recover_arguments(&self, host: &LibvirtHost) -> Vec<String> {
        self.guest.recover_arguments(host)
    }

    /// The guest is on the other host now: that is its home.
    pub fn moved(&mut self) -> Result<()> {
        std::mem::swap(&mut self.home, &mut self.other);
        std::mem::swap(&mut self.vf, &mut self.other_vf);
        self.guest.follow(&[&self.home, &self.other])
    }

    /// The same after everything: the domain runs at home alone with its VF, guest and kernel agree, traffic
    /// flows, and neither a record nor a claim is left.
    pub fn check(&self) -> Result<()> {
        self.guest.check(&self.home, &self.other, Some(self.vf))?;
        self.has_no_claim()
    }

    /// The same of a guest whose service does not run.
    pub fn check_without_agent(&self) -> Result<()> {
        self.guest
            .check_domain(&self.home, &self.other, Some(self.vf))?;
        self.guest.check_traffic()?;
        self.has_no_claim()
    }

    /// Neither the domain nor its VF is claimed, in its metadata or by a lock.
    fn has_no_claim(&self) -> Result<()> {
        self.guest.has_no_record(&self.home)?;
        let held = self.locks()?;
        ensure!(held.is_empty(), "{held:?} are held");
        Ok(())
    }

    /// What is locked now: `domain`, `vf`.
    pub fn locks(&self) -> Result<Vec<String>> {
        let mut held = Vec::new();
        for path in self.lock_files()? {
            // It goes with the lock.
            let file = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file?,
            };
            if matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                held.push(name.split('-').next().unwrap_or_default().to_owned());
            }
        }
        held.sort();
        Ok(held)
    }

    fn lock_files(&self) -> Result<Vec<PathBuf>> {
        let folder = self.home.state_folder();
        // Nobody has claimed anything yet.
        if !std::fs::exists(&folder)? {
            return Ok(Vec::new());
        }
        let entries = std::fs::read_dir(folder)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }

    /// What both libvirtds said last.
    pub fn log_tails(&self) -> String {
        let (home, other) = (self.home.log_tail(), self.other.log_tail());
        format!("libvirtd here:\n{home}\nand there:\n{other}")
    }
}

/// Arguments as they are passed on.
pub fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}
