//! The hypervisors' guest: it runs the product, and moves.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tandem_core::Status;
use tandem_core::status::{BondState, ProblemCode};
use tandem_wire::reply::StatusReport;

use super::domain::{self, DOMAIN, Form};
use super::hypervisor::{Hypervisor, Socket};
use super::remote;
use crate::Lab;
use crate::agent::Agent;
use crate::libvirt::{Ran, file, tandem_host};
use crate::net::{CLIENT_V4, GUEST_V4, GUEST_V6};
use crate::probe::{FrameOptions, FrameProbe};
use crate::tandem::{self, PROGRAM};
use crate::vm::GuestImage;

/// An emulated guest of an emulated hypervisor, on a busy machine: what takes a moment on metal.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(300);
/// Usually about 70 s.
const BOOT_LIMIT: Duration = Duration::from_secs(900);
/// Usually about 90 s.
pub(super) const EVACUATION_LIMIT: Duration = Duration::from_secs(1500);
const LOOK_STEP: Duration = Duration::from_secs(1);

/// The guest.
#[derive(Debug)]
pub struct VfioGuest<'lab> {
    lab: &'lab Lab,
    /// How it gets its VF, if it has one.
    form: Option<Form>,
    lets_go: bool,
    agent: Agent,
    home: RefCell<String>,
}

impl<'lab> VfioGuest<'lab> {
    /// What it boots from.
    ///
    /// # Errors
    /// Something of it can't be built.
    pub fn image(lab: &Lab) -> Result<GuestImage> {
        lab.small_guest()
            .program(&tandem::binary()?, PROGRAM)
            .image()
    }

    /// Boots it, with a VF of that form, and starts the service, which has no configuration; without a form it has neither, and
    /// its addresses on the virtio NIC. With `lets_go` it has a device of no bond too, which goes and comes with each evacuation.
    ///
    /// # Errors
    /// It does not come up.
    pub fn boot(
        lab: &'lab Lab,
        hypervisor: &Hypervisor,
        form: Option<Form>,
        lets_go: bool,
    ) -> Result<Self> {
        if let Some(form) = form {
            form.prepare(hypervisor)?;
        }
        let more = match lets_go {
            true => domain::let_go_xml(hypervisor)?,
            false => String::new(),
        };
        let xml = domain::xml(form, &more, hypervisor)?;
        let path = file(lab.folder(), "guest.xml", &xml)?;
        hypervisor.virsh(&["create", &path])?;
        let guest = Self {
            lab,
            form,
            lets_go,
            agent: Agent::in_guest(connect(hypervisor)?, None)?,
            home: RefCell::new(hypervisor.name().to_owned()),
        };
        let console = || hypervisor.sh("cat /tmp/console.log").unwrap_or_default();
        let booted = guest.agent.ping(BOOT_LIMIT);
        booted.with_context(|| format!("the guest did not boot:\n{}", console()))?;
        if form.is_none() {
            guest.agent.sh(&addresses_script())?;
            return Ok(guest);
        }
        let log = [("TANDEM_LOG", "debug,aya=warn,aya_obj=warn")];
        guest.agent.spawn(&[PROGRAM, "run"], &log, tandem::LOG)?;
        let ask = format!("{PROGRAM} status --json >/dev/null");
        guest
            .agent
            .wait_sh(&ask, STEP_LIMIT)
            .context("the service does not answer")?;
        Ok(guest)
    }

    /// The lab's agent in it.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// `tandem-host configure`: gives it the bond of its domain's XML.
    ///
    /// # Errors
    /// It fails.
    pub fn configure(&self, hypervisor: &Hypervisor) -> Result<String> {
        let (uri, folder) = (hypervisor.uri(), hypervisor.folder().display().to_string());
        let words = ["configure", DOMAIN, "-c", &uri, "--channel-folder", &folder];
        let ran = tandem_host(&words, STEP_LIMIT)?;
        ensure!(
            ran.code == Some(0),
            "tandem-host configure: {ran:?}\n{}",
            self.log_tail()
        );
        Ok(ran.stderr)
    }

    /// The arguments of `tandem-host migrate` to the other hypervisor, with each half of the carry on its own.
    ///
    /// # Errors
    /// libvirt does not tell what it takes.
    pub fn migrate_arguments(&self, here: &Hypervisor, there: &Hypervisor) -> Result<Vec<String>> {
        let mut words = self.plain_arguments(here, there)?;
        let from = remote::tandem_host(self.lab, here)?;
        let to = remote::tandem_host(self.lab, there)?;
        words.extend(["--carry-from", &from, "--carry-to", &to].map(str::to_owned));
        Ok(words)
    }

    /// The same without a word of the carry.
    pub(super) fn plain_arguments(
        &self,
        here: &Hypervisor,
        there: &Hypervisor,
    ) -> Result<Vec<String>> {
        if let Some(form) = self.form {
            form.prepare(there)?;
        }
        let live = here.virsh(&["dumpxml", DOMAIN, "--migratable"])?;
        let folder = self.lab.folder();
        let xml = file(
            folder,
            "destination.xml",
            &domain::for_other(&live, here, there)?,
        )?;
        let own = |name: &str| folder.join(name).display().to_string();
        let words = [
            "migrate",
            DOMAIN,
            &there.uri(),
            "-c",
            &here.uri(),
            "--xml",
            &xml,
            "--migrate-uri",
            &there.migrate_uri(),
            "--state-dir",
            &own("state"),
            "--records-dir",
            &own("records"),
            "--channel-folder",
            &folder.display().to_string(),
            "--json",
        ];
        let mut words = words.map(str::to_owned).to_vec();
        if let Some(form) = self.form {
            let vf = file(folder, "vf.xml", &form.device_xml(there)?)?;
            words.extend(["--vf".to_owned(), vf]);
        }
        if self.lets_go {
            let device = file(folder, "device.xml", &domain::let_go_xml(there)?)?;
            words.extend([
                "--device".to_owned(),
                format!("{}={device}", domain::LET_GO_ALIAS),
            ]);
        }
        Ok(words)
    }

    /// `tandem-host` with these arguments. Requests to the guest's agent are held back meanwhile.
    ///
    /// # Errors
    /// It does not end, or the guest is nowhere then.
    pub fn evacuate(&self, arguments: &[String], hypervisors: &[&Hypervisor]) -> Result<Ran> {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.pause();
        let ran = tandem_host(&words, EVACUATION_LIMIT);
        self.follow(hypervisors)?;
        ran
    }

    /// Holds requests to it back, until [`Self::follow`].
    pub fn pause(&self) {
        self.agent.pause();
    }

    /// Talks to it where it is now.
    ///
    /// # Errors
    /// It is nowhere.
    pub fn follow(&self, hypervisors: &[&Hypervisor]) -> Result<()> {
        for hypervisor in hypervisors {
            if !hypervisor.runs(DOMAIN)? {
                continue;
            }
            let mut home = self.home.borrow_mut();
            if *home == hypervisor.name() {
                self.agent.unpause();
                return Ok(());
            }
            hypervisor.name().clone_into(&mut home);
            return self.agent.resume(connect(hypervisor)?, None);
        }
        bail!("the domain runs on no hypervisor")
    }

    /// Starts numbered frames both ways between the lab's client and it.
    ///
    /// # Errors
    /// They can't be sent.
    pub fn probe_frames(&self, options: FrameOptions) -> Result<FrameProbe> {
        self.probe_frames_to(GUEST_V4, options)
    }

    /// The same with frames for another address.
    pub(super) fn probe_frames_to(
        &self,
        address: Ipv4Addr,
        options: FrameOptions,
    ) -> Result<FrameProbe> {
        self.lab
            .probe_frames_of(&self.agent, address.into(), options)
    }

    /// Its own status, with the moment of its clock that it was made at.
    ///
    /// # Errors
    /// The service does not answer.
    pub fn report(&self) -> Result<StatusReport> {
        tandem::report(&self.agent, STEP_LIMIT)
    }

    /// Waits until its VF carries the traffic.
    ///
    /// # Errors
    /// It never does.
    pub fn await_accelerated(&self) -> Result<Status> {
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            let status = self.report()?.status;
            if status
                .bonds
                .iter()
                .any(|bond| bond.state == BondState::Accelerated)
            {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "the VF does not carry the traffic: {status:?}\n{}",
                self.log_tail()
            );
            std::thread::sleep(LOOK_STEP);
        }
    }

    /// It runs here alone, its one VF is in use by igbvf, nothing is wrong, and traffic flows.
    ///
    /// # Errors
    /// Something is otherwise.
    pub fn check(&self, here: &Hypervisor, other: &Hypervisor) -> Result<()> {
        ensure!(
            here.runs(DOMAIN)? && !other.runs(DOMAIN)?,
            "it does not run on {} alone",
            here.name()
        );
        let bond = self.await_accelerated()?.bonds.remove(0);
        // The programs act on one MAC for both ports, and this bond's changes with its port.
        let known: &[ProblemCode] = match self.form {
            Some(Form::Follow) => &[ProblemCode::NotArmed],
            _ => &[],
        };
        let codes = bond.problems.iter().map(|problem| problem.code);
        ensure!(codes.eq(known.iter().copied()), "{:?}", bond.problems);
        let vf = bond.vf.context("there is no VF")?;
        ensure!(
            vf.active && vf.driver.as_deref() == Some("igbvf"),
            "the VF is {vf:?}"
        );
        // Of a network it may be any VF.
        let bound = here.sh("ls -d /sys/bus/pci/drivers/vfio-pci/0000:* | wc -l")?;
        let wanted = if self.lets_go { "2" } else { "1" };
        ensure!(
            bound.trim() == wanted,
            "the hypervisor has {bound} VFs on vfio-pci"
        );
        self.agent
            .sh(&format!("ping -c 1 -W 30 {CLIENT_V4}"))
            .map(drop)
    }

    /// What the service logged last.
    pub fn log_tail(&self) -> String {
        let script = format!("tail -n 40 {}", tandem::LOG);
        self.agent
            .sh(&script)
            .unwrap_or_else(|error| format!("{error:#}"))
    }
}

fn addresses_script() -> String {
    let mac = domain::STANDBY;
    format!(
        "device=$(grep -l {mac} /sys/class/net/*/address | cut -d / -f 5) && ip link set $device up && \
         ip address add {GUEST_V4}/24 dev $device && ip -6 address add {GUEST_V6}/64 dev $device nodad"
    )
}

fn connect(hypervisor: &Hypervisor) -> Result<UnixStream> {
    let path = hypervisor.guest_socket(Socket::Agent);
    UnixStream::connect(&path).with_context(|| format!("cannot connect to {}", path.display()))
}
