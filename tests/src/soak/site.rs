//! Two hosts with a `tandem-host serve` each, a guest, and the check that is the same after each fault.

use std::collections::VecDeque;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tandem_core::status::BondState;

use super::holdings::{Holdings, Looks};
use super::schedule::Side;
use crate::Lab;
use crate::libvirt::{LibvirtHost, Running, World, operate, serve};
use crate::probe::{Count, FrameOptions, FrameProbe, FrameReport};
use crate::process::find_processes;
use crate::tandem::{STEP_LIMIT, addresses_are_on_the_bond};

/// After a fault all is as it should be within this: a VF that lost its carrier several times has to hold it for a
/// minute, and libvirt's events may be missed for half of one.
const CALM_LIMIT: Duration = Duration::from_secs(300);
/// Nothing announces what is looked at from outside.
const LOOK_STEP: Duration = Duration::from_millis(500);
/// Frames a second each way: enough to see whether they pass.
const RATE_HZ: u32 = 50;
/// For so long frames are counted once all is calm.
const CALM_TRAFFIC: Duration = Duration::from_secs(2);
/// What `serve` said last, in lines.
const KEPT_LINES: usize = 60;
/// Its own phase of the frame probe.
const CALM: &str = "calm";

/// `tandem-host serve` of one host.
#[derive(Debug)]
struct Served {
    running: Running,
    log: Receiver<String>,
    said: VecDeque<String>,
}

impl Served {
    fn start(host: &LibvirtHost) -> Result<Self> {
        let (running, log) = serve(host)?;
        Ok(Self {
            running,
            log,
            said: VecDeque::new(),
        })
    }

    fn hear(&mut self) {
        for line in self.log.try_iter() {
            self.said.push_back(line);
            if self.said.len() > KEPT_LINES {
                self.said.pop_front();
            }
        }
    }
}

/// All of it.
pub(super) struct Site<'lab> {
    pub(super) world: World<'lab>,
    /// By host's name.
    serves: Vec<(String, Served)>,
    looks: Looks,
}

impl<'lab> Site<'lab> {
    pub(super) fn new(lab: &'lab Lab) -> Result<Self> {
        let world = World::new(lab, &[])?;
        let mut site = Self {
            world,
            serves: Vec::new(),
            looks: Looks::default(),
        };
        for side in [Side::Here, Side::There] {
            site.start_serve(side)?;
        }
        site.await_calm()?;
        Ok(site)
    }

    pub(super) fn host(&self, side: Side) -> &LibvirtHost {
        match side {
            Side::Here => &self.world.home,
            Side::There => &self.world.other,
        }
    }

    fn start_serve(&mut self, side: Side) -> Result<()> {
        let host = self.host(side);
        let name = host.host().name().to_owned();
        let served = Served::start(host)?;
        self.serves.push((name, served));
        Ok(())
    }

    /// `kill -9`, and the one that a service manager starts in its place.
    pub(super) fn restart_serve(&mut self, side: Side) -> Result<()> {
        let name = self.host(side).host().name().to_owned();
        let mut serves = self.serves.iter();
        let at = serves.position(|(host, _)| *host == name);
        let (_, served) = self.serves.remove(at.context("no serve of this host")?);
        served.running.signal(Signal::KILL)?;
        let ran = served.running.wait(STEP_LIMIT)?;
        ensure!(ran.code.is_none(), "it was not killed: {ran:?}");
        self.start_serve(side)
    }

    /// Frames between the client and the guest, from now to [`Self::check`].
    pub(super) fn probe(&self) -> Result<FrameProbe> {
        self.world.guest.probe_frames(FrameOptions {
            rate_hz: RATE_HZ,
            ..FrameOptions::default()
        })
    }

    /// Waits until nothing has to happen any more: the guest uses its VF, `serve` of its host hears from it and says
    /// the same, the other one knows of no domain, nobody has a claim, and no carry has left anything.
    fn await_calm(&mut self) -> Result<()> {
        let deadline = Instant::now() + CALM_LIMIT;
        loop {
            let Err(why) = self.is_calm() else {
                return Ok(());
            };
            ensure!(
                Instant::now() < deadline,
                "it does not calm down within {CALM_LIMIT:?}: {why:#}"
            );
            std::thread::sleep(LOOK_STEP);
        }
    }

    fn is_calm(&mut self) -> Result<()> {
        for (name, served) in &mut self.serves {
            served.hear();
            ensure!(served.running.runs()?, "serve of {name} has ended");
        }
        let status = self.world.guest.status()?;
        let bond = status.bonds.first().context("the guest knows no bond")?;
        ensure!(bond.state == BondState::Accelerated, "{bond:?}");
        let told = self.told(Side::Here)?;
        let told = told.first().context("serve knows of no domain here")?;
        let bond = &told["guest"]["status"]["bonds"][0];
        ensure!(
            told["state"] == "running"
                && told["channel"] == "subscribed"
                && told["evacuation"].is_null()
                && bond["traffic"] == "vf",
            "serve here says {told:#}"
        );
        let there = self.told(Side::There)?;
        ensure!(there.is_empty(), "serve there says {there:#?}");
        let held = self.world.locks()?;
        ensure!(held.is_empty(), "{held:?} are held");
        for side in [Side::Here, Side::There] {
            let host = self.host(side).host();
            let links = host.namespace().ip(&["-brief", "link"])?;
            ensure!(
                !links.contains("tdm"),
                "a carry has left something on {}: {links}",
                host.name()
            );
        }
        Ok(())
    }

    /// What `serve` of this host knows.
    fn told(&self, side: Side) -> Result<Vec<Value>> {
        let said = operate(self.host(side), &["status", "--json"])?;
        serde_json::from_str(&said).with_context(|| format!("no status: {said}"))
    }

    /// The same after each fault, once it is calm; gives what the frames of the client and of the guest met with.
    pub(super) fn check(&mut self, mut frames: FrameProbe) -> Result<FrameReport> {
        self.await_calm()?;
        frames.mark(CALM);
        // Nothing to wait for: that frames pass is what is looked at.
        std::thread::sleep(CALM_TRAFFIC);
        let report = frames.finish()?;
        self.world.guest.agent().sh("rm -f /tmp/frames-*")?;
        for (way, direction) in [
            ("the guest", &report.to_guest),
            ("the client", &report.to_client),
        ] {
            let count = direction.phase(CALM).context("the probe knows the phase")?;
            passes(count).with_context(|| format!("to {way}: {count:?}"))?;
        }
        let world = &self.world;
        world.check()?;
        addresses_are_on_the_bond(world.guest.agent())?;
        let known = world.other.virsh(&["list", "--all", "--name"])?;
        ensure!(known.trim().is_empty(), "the other host knows of {known}");
        self.has_no_stray_process()?;
        self.look()?;
        Ok(report)
    }

    /// What runs of Tandem on this machine is the two services and the `virsh` that they listen by.
    fn has_no_stray_process(&self) -> Result<()> {
        let lab = self.world.home.channel_folder();
        let pids: Vec<u32> = self
            .serves
            .iter()
            .map(|(_, one)| one.running.pid())
            .collect();
        let strays = find_processes(|process| {
            let ours = process.words.iter().any(|word| word.contains(&lab));
            let tool = process.words.first().is_some_and(|word| {
                word.ends_with("/virsh") || word == "virsh" || word.ends_with("/tandem-host")
            });
            ours && tool && !pids.contains(&process.pid) && !pids.contains(&process.parent)
        })?;
        ensure!(strays.is_empty(), "left behind: {strays:#?}");
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        let guest = &self.world.guest;
        let service = guest.service()?.pid;
        let held = Holdings::in_guest(guest.agent(), service)?;
        self.looks.note("tandem in the guest", service, held);
        for (name, served) in &self.serves {
            let pid = served.running.pid();
            let service = format!("tandem-host serve on {name}");
            self.looks.note(&service, pid, Holdings::here(pid)?);
        }
        Ok(())
    }

    pub(super) fn looks(&self) -> &Looks {
        &self.looks
    }

    /// All logs, their ends.
    pub(super) fn log_tails(&mut self) -> String {
        let mut text = self.world.log_tails();
        for (name, served) in &mut self.serves {
            served.hear();
            let said: Vec<&str> = served.said.iter().map(String::as_str).collect();
            text += &format!("\nserve of {name}:\n{}", said.join("\n"));
        }
        text + "\nthe guest's service:\n" + &self.world.guest.log_tail()
    }
}

/// Frames come through, and no more are lost than a machine that is too busy loses.
fn passes(count: &Count) -> Result<()> {
    if count.sent > 0 && count.lost * 2 <= count.sent {
        return Ok(());
    }
    bail!("frames do not pass")
}
