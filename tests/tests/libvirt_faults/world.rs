//! Two hosts, a guest with a VF on one of them, and what is asked after each fault.

use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tandem_core::status::BondState;
use tandem_lab::libvirt::{
    DomainSpec, EVACUATION_LIMIT, LibvirtGuest, LibvirtHost, Ran, Running, VF_ALIAS, await_phase,
    tandem_host,
};
use tandem_lab::tandem::STEP_LIMIT;
use tandem_lab::{Lab, Mac, test_mac};

pub(crate) const DOMAIN: &str = "g1";
/// Slow enough that a migration is still under way whatever a test does meanwhile.
pub(crate) const SLOW: [&str; 2] = ["--bandwidth", "1"];

/// Two hosts, and a guest on one of them.
#[derive(Debug)]
pub(crate) struct World<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) guest: LibvirtGuest<'lab>,
    /// Where it runs.
    pub(crate) home: LibvirtHost,
    /// The other one.
    pub(crate) other: LibvirtHost,
    /// The VF that it has, or should have, at home.
    pub(crate) vf: Mac,
    /// The one that waits for it there.
    pub(crate) other_vf: Mac,
}

/// A `tandem-host migrate` under way.
pub(crate) struct Told {
    pub(crate) running: Running,
    lines: Receiver<String>,
}

impl Told {
    pub(crate) fn start(arguments: &[String]) -> Result<Self> {
        let (running, lines) = Running::start_told(&words(arguments))?;
        Ok(Self { running, lines })
    }

    pub(crate) fn await_phase(&self, phase: &str) -> Result<()> {
        await_phase(&self.lines, phase, EVACUATION_LIMIT)
    }

    pub(crate) fn interrupt(self) -> Result<Ran> {
        self.running.signal(Signal::INT)?;
        self.wait()
    }

    pub(crate) fn wait(self) -> Result<Ran> {
        self.running.wait(EVACUATION_LIMIT)
    }
}

impl<'lab> World<'lab> {
    pub(crate) fn new(lab: &'lab Lab, kernel_parameters: &[&str]) -> Result<Self> {
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
    pub(crate) fn arguments(&self, more: &[&str]) -> Result<Vec<String>> {
        let mut arguments = self
            .guest
            .migrate_arguments(&self.home, &self.other, self.other_vf)?;
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        Ok(arguments)
    }

    /// `tandem-host migrate` to the other host, to its end; the guest stays at home.
    pub(crate) fn migrate(&self, more: &[&str]) -> Result<Ran> {
        tandem_host(&words(&self.arguments(more)?), EVACUATION_LIMIT)
    }

    /// The same, begun.
    pub(crate) fn start(&self, more: &[&str]) -> Result<Told> {
        Told::start(&self.arguments(more)?)
    }

    /// One that takes long, once memory is being copied.
    pub(crate) fn start_slow(&self, more: &[&str]) -> Result<Told> {
        let told = self.start(&[&SLOW, more].concat())?;
        told.await_phase("migrate")?;
        self.home.await_migration(DOMAIN)?;
        Ok(told)
    }

    /// Unplugs the VF by virsh, and waits until it has left: virsh only asks for it, and the guest has moved
    /// its traffic before.
    pub(crate) fn detach_vf(&self) -> Result<()> {
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

    /// The arguments of `tandem-host recover`, asked on this host.
    pub(crate) fn recover_arguments(&self, host: &LibvirtHost) -> Vec<String> {
        self.guest.recover_arguments(host)
    }

    /// The guest is on the other host now: that is its home.
    pub(crate) fn moved(&mut self) -> Result<()> {
        std::mem::swap(&mut self.home, &mut self.other);
        std::mem::swap(&mut self.vf, &mut self.other_vf);
        self.guest.follow(&[&self.home, &self.other])
    }

    /// The same after everything: the domain runs at home alone with its VF, guest and kernel agree, traffic
    /// flows, and neither a record nor a claim is left.
    pub(crate) fn check(&self) -> Result<()> {
        self.guest.check(&self.home, &self.other, Some(self.vf))?;
        self.has_no_claim()
    }

    /// The same of a guest whose service does not run.
    pub(crate) fn check_without_agent(&self) -> Result<()> {
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
    pub(crate) fn locks(&self) -> Result<Vec<String>> {
        let mut held = Vec::new();
        for path in self.lock_files()? {
            let file = File::options().read(true).write(true).open(&path)?;
            if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                held.push(name.split('-').next().unwrap_or_default().to_owned());
            }
        }
        held.sort();
        Ok(held)
    }

    fn lock_files(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.home.state_folder())?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }

    pub(crate) fn log_tails(&self) -> String {
        let (home, other) = (self.home.log_tail(), self.other.log_tail());
        format!("libvirtd here:\n{home}\nand there:\n{other}")
    }
}

pub(crate) fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// What the report says of a domain that is at home with its VF in use.
pub(crate) fn at_home(verdict: &str) -> Value {
    json!({"verdict": verdict, "runs-on": "source", "vf-attached": true, "recovery-needed": false,
        "left": []})
}

/// What the report says of one that has moved and uses its VF there.
pub(crate) fn moved() -> Value {
    json!({"verdict": "done", "runs-on": "destination", "vf-attached": true, "guest": "uses-vf",
        "recovery-needed": false, "left": [], "cause": null})
}

/// The report, held against what it must say; `cause` is its code.
pub(crate) fn expect(ran: &Ran, code: i32, cause: Option<&str>, wanted: &Value) -> Result<()> {
    ensure!(ran.code == Some(code), "wanted exit code {code}: {ran:#?}");
    let report = ran.json()?;
    for (key, value) in wanted.as_object().context("an object")? {
        ensure!(&report[key] == value, "{key} is not {value}: {report:#}");
    }
    let said = report["cause"]["code"].as_str();
    ensure!(said == cause, "the cause is not {cause:?}: {report:#}");
    Ok(())
}
