//! Two hosts, a guest, and `tandem-host` that moves it from one to the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::disturb::{Disturbance, Side, StaticEntries, When, Wrapper};
use super::disturb::{await_until, freeze, program_that, program_with};
use super::moves::{Move, Moved};
use super::{CARRIED, CarriedMove, uri_of};
use crate::libvirt::{DomainSpec, EVACUATION_LIMIT, Ran, host_program, tandem_host_of};
use crate::net::{ALL_V4, GUEST_V4, GUEST_V6};
use crate::probe::{FrameOptions, FrameProbe};
use crate::qemu::named_with_control;
use crate::tandem::Guest;
use crate::{Host, Lab, Vm};

/// Frames a second in each direction over IPv6, and with broadcasts.
const OTHERS_HZ: u32 = 100;
/// More flows to a guest with several queues: the kernel gives each flow one of them by its addresses and ports.
const FLOWS: usize = 6;
/// Bytes per second that don't matter.
const BANDWIDTH: u64 = 10 << 30;

/// Both hosts, and the guest on one of them.
pub struct Stage<'lab> {
    lab: &'lab Lab,
    hosts: [Host; 2],
    /// The host that the guest is on.
    at: usize,
    vm: Vm,
    /// The QEMU's control socket of `tandem-host`.
    qmp: PathBuf,
    moves: usize,
    /// More of them, each of a port of its own.
    flows: usize,
}

impl<'lab> Stage<'lab> {
    /// Boots the guest.
    ///
    /// # Errors
    /// It does not boot.
    pub fn new(lab: &'lab Lab) -> Result<Self> {
        Self::with(lab, 0)
    }

    /// The same with a NIC of two queues.
    ///
    /// # Errors
    /// It does not boot.
    pub fn with_two_queues(lab: &'lab Lab) -> Result<Self> {
        Self::with(lab, FLOWS)
    }

    fn with(lab: &'lab Lab, flows: usize) -> Result<Self> {
        lab.client()?;
        let hosts = [lab.host("a")?, lab.host("b")?];
        let qmp = lab.folder().join("0.qmp");
        let standby = DomainSpec::new(CARRIED).standby;
        let vm = lab
            .small_guest()
            .standby(standby)
            .without_channel()
            .hardware(|hardware| {
                hardware.extra_arguments = named_with_control(CARRIED, &qmp);
                if flows > 0 {
                    hardware.two_queues();
                }
            })
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
            flows,
        })
    }

    /// Moves the guest to the other host, and counts frames meanwhile.
    ///
    /// # Errors
    /// The move ended otherwise than such a move does.
    pub fn migrate(&mut self, how: &Move) -> Result<Moved> {
        let options = |rate_hz| FrameOptions {
            rate_hz,
            ..FrameOptions::default()
        };
        let seldom = options(OTHERS_HZ);
        let often = match self.flows {
            0 => options(how.rate_hz()),
            _ => seldom,
        };
        let probe = self.lab.probe_frames(&self.vm, GUEST_V4.into(), often)?;
        let v6 = self.lab.probe_frames(&self.vm, GUEST_V6.into(), seldom)?;
        let all = self.lab.probe_frames(&self.vm, ALL_V4.into(), seldom)?;
        let flow = |_| self.lab.probe_frames(&self.vm, GUEST_V4.into(), seldom);
        let flows: Vec<_> = (0..self.flows).map(flow).collect::<Result<_>>()?;
        let ran = self.run(how)?;
        ensure!(ran.code == how.code(), "{ran:#?}");
        let report = match how {
            Move::ToolKilled => Value::Null,
            _ => ran.json()?,
        };
        Ok(Moved {
            frames: probe.finish()?,
            others: [v6.finish()?, all.finish()?],
            flows: flows
                .into_iter()
                .map(FrameProbe::finish)
                .collect::<Result<_>>()?,
            report,
        })
    }

    /// Each of the guest's two queues has brought frames.
    ///
    /// # Errors
    /// One has not.
    pub fn uses_both_queues(&self) -> Result<()> {
        let lines = self.vm.sh(r"grep 'input\.[0-9]' /proc/interrupts")?;
        let brought = |line: &str| {
            let mut columns = line.split_whitespace().skip(1);
            columns.any(|count| count.parse::<u64>().is_ok_and(|count| count > 100))
        };
        let used = lines.lines().filter(|line| brought(line)).count();
        ensure!(used == 2, "not two queues bring frames:\n{lines}");
        Ok(())
    }

    fn run(&mut self, how: &Move) -> Result<Ran> {
        self.moves += 1;
        let number = self.moves;
        let there = &self.hosts[1 - self.at];
        let able_to: &[&str] = match how {
            Move::PostCopy => &["postcopy-ram"],
            _ => &[],
        };
        let folder = self.lab.folder();
        let mut carried =
            CarriedMove::able_to(able_to, &self.vm, &self.qmp, there, folder, number)?;
        if *how == Move::PostCopy {
            carried.words.push("--postcopy".to_owned());
        }
        if matches!(how, Move::Plain | Move::PlainLate(_)) {
            let plain = ["--no-carry", "--yes-degraded", "--no-agent"].map(str::to_owned);
            carried.words.extend(plain);
        } else {
            carried.carry(&self.vm, there)?;
        }
        let wrapper = Wrapper::new(self.lab.folder(), number)?;
        match how {
            Move::Disturbed(Disturbance::SmallLimit) => {
                for side in [Side::Source, Side::Destination] {
                    carried.wrap(side, &wrapper.small_limit()?)?;
                }
            }
            Move::Disturbed(Disturbance::Cut(side, _)) => {
                carried.wrap(*side, &wrapper.through()?)?;
            }
            _ => {}
        }
        let mac = DomainSpec::new(CARRIED).standby.to_string();
        let here = &self.hosts[self.at];
        let entries = || StaticEntries::new(self.lab, &mac, [here, there]);
        let static_entries = match how {
            Move::Disturbed(Disturbance::LearnsLate(late)) | Move::PlainLate(late) => {
                Some((entries()?, *late))
            }
            Move::Disturbed(Disturbance::StaysAtTap(late)) => {
                let tap = self.vm.tap("standby")?;
                Some((entries()?.and_at(here, &mac, tap)?, *late))
            }
            _ => None,
        };
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
                Move::Plain | Move::PlainLate(_) | Move::PostCopy => {}
                Move::Carried => {
                    for (half, uri) in [("source", &self.qmp), ("destination", &qmp)] {
                        self.has_no_rights(&["carry-half", half, &uri_of(uri)])?;
                    }
                }
                Move::Disturbed(Disturbance::Cancelled(when)) => {
                    self.await_moment(*when)?;
                    self.vm.qmp().execute("migrate_cancel", json!({}))?;
                }
                Move::Disturbed(Disturbance::Cut(_, when)) => {
                    self.await_moment(*when)?;
                    wrapper.cut()?;
                }
                Move::Disturbed(Disturbance::Frozen(time)) => {
                    self.await_moment(When::Stopped)?;
                    freeze(waiting.process()?, *time)?;
                }
                Move::Disturbed(Disturbance::HalfFrozen(side, time)) => {
                    let (half, qmp) = match side {
                        Side::Source => ("source", &self.qmp),
                        Side::Destination => ("destination", &qmp),
                    };
                    let half =
                        self.await_process(&["carry-half", half, &uri_of(qmp)], When::Stopped)?;
                    freeze(half, *time)?;
                }
                Move::Disturbed(Disturbance::DestinationDies) => {
                    self.await_moment(When::Stopped)?;
                    kill_process(waiting.process()?, Signal::KILL)?;
                }
                Move::Disturbed(
                    Disturbance::SmallLimit
                    | Disturbance::LearnsLate(_)
                    | Disturbance::StaysAtTap(_),
                ) => {}
                Move::Killed(Side::Source, when) => {
                    self.kill(&["carry-half", "source", &uri_of(&self.qmp)], *when)?;
                }
                Move::Killed(Side::Destination, when) => {
                    self.kill(&["carry-half", "destination", &uri_of(&qmp)], *when)?;
                }
                Move::OwnStop => self.allow_long_pause()?,
                Move::ToolKilled => self.kill(&["migrate", &uri_of(&qmp)], When::Stopped)?,
            }
            if let Some((entries, late)) = static_entries {
                entries.remove_after(&self.vm, late)?;
            }
            running.join().expect("it does not panic")
        })?;
        if how.stays() {
            self.vm.stayed(waiting)?;
            self.await_running()?;
            return Ok(ran);
        }
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

    /// Waits for that moment.
    fn await_moment(&self, when: When) -> Result<()> {
        await_until("the moment for it never comes", || self.is(when))
    }

    fn is(&self, when: When) -> Result<bool> {
        let qmp = self.vm.qmp();
        let is_copying = || {
            let job = qmp.execute("query-migrate", json!({}))?;
            Ok::<_, anyhow::Error>(job["status"] == "active")
        };
        Ok(match when {
            When::Ready => self.guards_both()?,
            When::Copying => self.guards_both()? && is_copying()?,
            // The hold's own tap is there before; a frame in it is not.
            When::Holding => self.has_held()? || self.is(When::Stopped)?,
            When::Stopped => qmp.execute("query-status", json!({}))?["running"] == false,
        })
    }

    /// The source's hold tap has had a frame.
    fn has_held(&self) -> Result<bool> {
        let script = "cat /sys/class/net/tdm*/statistics/tx_packets 2>/dev/null || true";
        let told = self.hosts[self.at].namespace().exec(script)?;
        Ok(told.split_whitespace().any(|frames| frames != "0"))
    }

    /// Kills the `tandem-host` whose command line has these words.
    fn kill(&self, words: &[&str], when: When) -> Result<()> {
        let process = self.await_process(words, when)?;
        Ok(kill_process(process, Signal::KILL)?)
    }

    /// The same process, once that moment has come.
    fn await_process(&self, words: &[&str], when: When) -> Result<Pid> {
        self.await_moment(when)?;
        let process = program_with("tandem-host", words)?;
        process.with_context(|| format!("{words:?} does not run"))
    }

    /// The process of a half has no right left but that of finding its hypervisor, and gains none.
    fn has_no_rights(&self, words: &[&str]) -> Result<()> {
        await_until("a half keeps its rights", || {
            let Some(process) = program_with("tandem-host", words)? else {
                return Ok(false);
            };
            let tasks = fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero()))?;
            for task in tasks {
                let status = fs::read_to_string(task?.path().join("status"))?;
                let has = |line: &str| status.lines().any(|one| one == line);
                // CAP_DAC_OVERRIDE, or nothing.
                let few = has("CapPrm:\t0000000000000000") || has("CapPrm:\t0000000000000002");
                if !(few && has("NoNewPrivs:\t1")) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
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

    /// A half opens the tap of its own domain, on its own host, and no other one of that name.
    ///
    /// # Errors
    /// It does.
    pub fn only_its_own_tap_is_guarded(&mut self) -> Result<()> {
        self.moves += 1;
        let there = &self.hosts[1 - self.at];
        let folder = self.lab.folder();
        let CarriedMove { waiting, qmp, .. } =
            CarriedMove::new(&self.vm, &self.qmp, there, folder, self.moves)?;
        let program = host_program()?.display().to_string();
        let tap = self.vm.tap("standby")?;
        let check = |host: &Host, qmp: &Path| {
            let uri = uri_of(qmp);
            let asked = format!(
                "{program} carry-half source {tap} --check --domain {CARRIED} --connect {uri} || true"
            );
            host.namespace().exec(&asked)
        };
        let own = check(self.vm.host(), &self.qmp)?;
        ensure!(own.contains("ready"), "its own: {own}");
        let other = check(self.vm.host(), &qmp)?;
        ensure!(
            other.contains("another process has it"),
            "the other QEMU's: {other}"
        );
        let elsewhere = check(there, &self.qmp)?;
        ensure!(
            elsewhere.contains("failed") && !elsewhere.contains("ready"),
            "on another host: {elsewhere}"
        );
        self.vm.stayed(waiting)?;
        self.nothing_is_left()
    }

    /// Waits until both halves are gone.
    ///
    /// # Errors
    /// They are not.
    pub fn await_nothing_left(&self) -> Result<()> {
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

    /// Where the guest is, and its standby's tap there.
    ///
    /// # Errors
    /// It has none.
    pub fn tap(&self) -> Result<(&Host, &str)> {
        Ok((&self.hosts[self.at], self.vm.tap("standby")?))
    }

    /// Neither host has anything of a carry.
    ///
    /// # Errors
    /// What is left.
    pub fn nothing_is_left(&self) -> Result<()> {
        for host in &self.hosts {
            let links = host.namespace().ip(&["-brief", "link"])?;
            ensure!(!links.contains("tdm"), "on {}: {links}", host.name());
            let entries = host.namespace().exec("bridge fdb show")?;
            ensure!(!entries.contains("tdm"), "on {}: {entries}", host.name());
        }
        // Programs and links are those of their process, and go with it.
        let folder = format!("{}/", uri_of(self.lab.folder()));
        let half = program_that("tandem-host", |line| {
            // Another lab may have some of its own.
            line.contains(&b"carry-half".as_slice())
                && line.iter().any(|word| word.starts_with(folder.as_bytes()))
        })?;
        ensure!(half.is_none(), "a half still runs: {half:?}");
        Ok(())
    }
}
