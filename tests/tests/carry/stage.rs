//! Two hosts, a guest, and `tandem-host` that moves it from one to the other.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use tandem_lab::carried::{CARRIED, CarriedMove, uri_of};
use tandem_lab::libvirt::{DomainSpec, EVACUATION_LIMIT, Ran, host_program, tandem_host_of};
use tandem_lab::net::{ALL_V4, GUEST_V4, GUEST_V6};
use tandem_lab::probe::{Count, FrameOptions, FrameReport};
use tandem_lab::qemu::named_with_control;
use tandem_lab::tandem::Guest;
use tandem_lab::{Host, Lab, Vm};

/// Frames a second in each direction.
const RATE_HZ: u32 = 1_000;
/// The same over IPv6, and with broadcasts.
const OTHERS_HZ: u32 = 100;
/// Bytes per second that don't matter.
const BANDWIDTH: u64 = 10 << 30;

/// How the guest moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Move {
    Plain,
    Carried,
    /// Carried, and that half is killed then.
    Killed(Side, When),
    /// Carried, and QEMU is allowed so long a pause that it stops the guest before anything is held.
    OwnStop,
    /// Carried, and `migrate` is killed when the guest stands still on the source.
    ToolKilled,
}

/// When a half is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// It stands ready.
    Ready,
    /// The guest stands still on the source.
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// What one move came to.
pub(crate) struct Moved {
    pub(crate) frames: FrameReport,
    /// The same over IPv6, and with broadcasts for the guest.
    pub(crate) others: [FrameReport; 2],
    pub(crate) report: Value,
}

impl Moved {
    /// To the guest and from it.
    pub(crate) fn totals(&self) -> [&Count; 2] {
        [&self.frames.to_guest.total, &self.frames.to_client.total]
    }

    /// What the report owns up to: frames that a QEMU which stopped by itself may have taken in vain, and those that a busy
    /// machine brought after native ones.
    pub(crate) fn told(&self) -> Result<(u64, u64)> {
        let told = &self.report["carry"];
        let number = |name: &str| told[name].as_u64().context("the carry's report");
        let (unseen, late) = (number("maybe-lost")?, number("late")?);
        ensure!(
            unseen <= 2 && (unseen == 0 || told["stop-was-ours"] == false),
            "one queue's QEMU takes two frames: {told}"
        );
        Ok((unseen, late))
    }
}

pub(crate) struct Stage<'lab> {
    lab: &'lab Lab,
    hosts: [Host; 2],
    /// The host that the guest is on.
    at: usize,
    vm: Vm,
    /// The QEMU's control socket of `tandem-host`.
    qmp: PathBuf,
    moves: usize,
}

impl<'lab> Stage<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Result<Self> {
        lab.client()?;
        let hosts = [lab.host("a")?, lab.host("b")?];
        let qmp = lab.folder().join("0.qmp");
        let standby = DomainSpec::new(CARRIED).standby;
        let vm = lab
            .small_guest()
            .standby(standby)
            .without_channel()
            .hardware(|hardware| hardware.extra_arguments = named_with_control(CARRIED, &qmp))
            .boot(&hosts[0])?;
        let guest = Guest::new(vm, standby);
        guest.put_addresses_on_standby()?;
        Ok(Self {
            lab,
            hosts,
            at: 0,
            vm: guest.vm,
            qmp,
            moves: 0,
        })
    }

    /// Moves the guest to the other host, and counts frames meanwhile.
    pub(crate) fn migrate(&mut self, how: &Move) -> Result<Moved> {
        let options = FrameOptions {
            rate_hz: RATE_HZ,
            ..FrameOptions::default()
        };
        let seldom = FrameOptions {
            rate_hz: OTHERS_HZ,
            ..FrameOptions::default()
        };
        let probe = self.lab.probe_frames(&self.vm, GUEST_V4.into(), options)?;
        let v6 = self.lab.probe_frames(&self.vm, GUEST_V6.into(), seldom)?;
        let all = self.lab.probe_frames(&self.vm, ALL_V4.into(), seldom)?;
        let ran = self.run(how)?;
        // A plain move ends without the VF that it was to have.
        let code = match how {
            Move::Plain => Some(12),
            Move::ToolKilled => None,
            Move::Carried | Move::Killed(..) | Move::OwnStop => Some(0),
        };
        ensure!(ran.code == code, "{ran:#?}");
        let report = match how {
            Move::ToolKilled => Value::Null,
            _ => ran.json()?,
        };
        Ok(Moved {
            frames: probe.finish()?,
            others: [v6.finish()?, all.finish()?],
            report,
        })
    }

    fn run(&mut self, how: &Move) -> Result<Ran> {
        self.moves += 1;
        let number = self.moves;
        let there = &self.hosts[1 - self.at];
        let mut carried = CarriedMove::new(&self.vm, &self.qmp, there, self.lab.folder(), number)?;
        if *how == Move::Plain {
            let plain = ["--yes-degraded", "--no-agent"].map(str::to_owned);
            carried.words.extend(plain);
        } else {
            carried.carry(&self.vm, there)?;
        }
        let CarriedMove {
            waiting,
            qmp,
            words,
        } = carried;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let program = host_program()?;
        let ran = thread::scope(|scope| {
            let running = scope.spawn(|| tandem_host_of(&program, &words, EVACUATION_LIMIT));
            match how {
                Move::Plain | Move::Carried => {}
                Move::Killed(Side::Source, when) => {
                    self.kill(&["carry-half", "source", &uri_of(&self.qmp)], *when)?;
                }
                Move::Killed(Side::Destination, when) => {
                    self.kill(&["carry-half", "destination", &uri_of(&qmp)], *when)?;
                }
                Move::OwnStop => self.allow_long_pause()?,
                Move::ToolKilled => self.kill(&["migrate", &uri_of(&qmp)], When::Stopped)?,
            }
            running.join().expect("it does not panic")
        })?;
        let left = self
            .vm
            .arrived(waiting)
            .with_context(|| format!("{ran:#?}"))?;
        if *how == Move::ToolKilled {
            self.await_running()?;
        }
        let state = left.qmp().execute("query-status", json!({}))?;
        ensure!(state["running"] == false, "it runs twice: {state}");
        left.quit()?;
        self.at = 1 - self.at;
        self.qmp = qmp;
        Ok(ran)
    }

    /// Kills the `tandem-host` whose command line has these words.
    fn kill(&self, words: &[&str], when: When) -> Result<()> {
        let deadline = Instant::now() + EVACUATION_LIMIT;
        loop {
            ensure!(
                Instant::now() < deadline,
                "{words:?} was never to be killed"
            );
            let program = program_with(words)?;
            let due = match when {
                When::Ready => self.guards_both()?,
                When::Stopped => {
                    self.vm.qmp().execute("query-status", json!({}))?["running"] == false
                }
            };
            if let Some(pid) = program.filter(|_| due) {
                kill_process(pid, Signal::KILL)?;
                return Ok(());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Once both halves stand ready, until the guest stands still: what `migrate` allows meanwhile does not count.
    fn allow_long_pause(&self) -> Result<()> {
        let deadline = Instant::now() + EVACUATION_LIMIT;
        while !self.guards_both()? {
            ensure!(Instant::now() < deadline, "the halves are not ready");
            thread::sleep(Duration::from_millis(2));
        }
        let parameters = json!({ "downtime-limit": 2_000, "max-bandwidth": BANDWIDTH });
        while self.vm.qmp().execute("query-status", json!({}))?["running"] == true {
            ensure!(Instant::now() < deadline, "the guest is never stopped");
            self.vm
                .qmp()
                .execute("migrate-set-parameters", parameters.clone())?;
        }
        Ok(())
    }

    /// Nobody is left but the halves, who have the guest run again.
    fn await_running(&self) -> Result<()> {
        let deadline = Instant::now() + EVACUATION_LIMIT;
        while self.vm.qmp().execute("query-status", json!({}))?["running"] != true {
            ensure!(Instant::now() < deadline, "the guest stands still");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until both halves are gone.
    pub(crate) fn await_nothing_left(&self) -> Result<()> {
        let deadline = Instant::now() + EVACUATION_LIMIT;
        while let Err(error) = self.nothing_is_left() {
            ensure!(Instant::now() < deadline, "{error}");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Both halves have their hold tap.
    fn guards_both(&self) -> Result<bool> {
        let links = self
            .hosts
            .iter()
            .map(|host| host.namespace().ip(&["-brief", "link"]))
            .collect::<Result<Vec<_>>>()?;
        Ok(links.iter().all(|links| links.contains("tdm")))
    }

    /// Neither host has anything of a carry, nor has the guest's tap.
    pub(crate) fn nothing_is_left(&self) -> Result<()> {
        let here = &self.hosts[self.at];
        let programs = programs_on(here, self.vm.tap("standby")?)?;
        ensure!(programs == 0, "{programs} programs are on the guest's tap");
        for host in &self.hosts {
            let links = host.namespace().ip(&["-brief", "link"])?;
            ensure!(!links.contains("tdm"), "on {}: {links}", host.name());
        }
        Ok(())
    }
}

/// Programs in front of that device, of both directions.
fn programs_on(host: &Host, device: &str) -> Result<usize> {
    let namespace = File::open(format!("/run/netns/{}", host.namespace().name()))?;
    // The network is this thread's alone.
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network)?;
            let mut programs = 0;
            for way in [TcAttachType::Ingress, TcAttachType::Egress] {
                programs += SchedClassifier::query_tcx(device, way)?.1.len();
            }
            Ok(programs)
        });
        looking.join().expect("it does not panic")
    })
}

/// The `tandem-host` whose command line has these words.
fn program_with(words: &[&str]) -> Result<Option<Pid>> {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?.path();
        let number = entry
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let (Some(number), Ok(line)) = (number, fs::read(entry.join("cmdline"))) else {
            continue;
        };
        let line: Vec<_> = line.split(|byte| *byte == 0).collect();
        // `ip netns exec` becomes it, and is not it yet.
        let is_it = line
            .first()
            .is_some_and(|name| name.ends_with(b"tandem-host"));
        if is_it && words.iter().all(|word| line.contains(&word.as_bytes())) {
            return Ok(Pid::from_raw(number));
        }
    }
    Ok(None)
}
