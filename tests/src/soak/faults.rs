//! How each fault is brought about.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tandem_core::status::BondState;

use super::schedule::{Fault, Half, Port, Side};
use super::site::Site;
use crate::command::progress;
use crate::libvirt::{
    DOMAIN, EVACUATION_LIMIT, Ran, Running, Told, host_program, tandem_host, words,
};
use crate::process::{Process, ProcessHandle, find_processes};
use crate::sim::rng::Rng;
use crate::tandem::STEP_LIMIT;
use crate::vm::CHANNEL_PORT_NAME;

/// Connections that bring garbage, one after the other.
const GARBAGE_CONNECTIONS: u32 = 4;
/// Who is sent garbage takes it within this, or it is not sent whole.
const GARBAGE_LIMIT: Duration = Duration::from_secs(5);
/// A half is looked for this often: one lives for a second or two.
const HALF_STEP: Duration = Duration::from_millis(10);
/// The domain's devices are looked at this often.
const LOOK_STEP: Duration = Duration::from_millis(200);

impl Site<'_> {
    /// Brings the fault about; at its end nobody keeps anything from being mended.
    pub(super) fn inject(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillService(says) => self.kill_service(says),
            Fault::KillServe(side) => self.restart_serve(side),
            Fault::RestartLibvirtd(side) => self.host(side).restart_libvirtd(),
            Fault::SilentUnplug => self.unplug_and_plug(|_| Ok(())),
            Fault::PlannedUnplug => self.planned(|_| Ok(())),
            Fault::GarbageToGuest(seed) => self.garbage_to_guest(seed),
            Fault::GarbageToServe(seed) => self.garbage_to_serve(seed),
            Fault::Flaps {
                port,
                times,
                pause_ms,
            } => self.flap(port, times, Duration::from_millis(pause_ms)),
            Fault::ClockJump(seconds) => self.jump(seconds),
            Fault::FullRun(kills) => self.full_run(kills),
            Fault::FullRecords => self.full_records(),
            Fault::Migrate => self.migrate(),
            Fault::KillMigrate(phase) => self.migrate_until(phase, Signal::KILL),
            Fault::InterruptMigrate(phase) => self.migrate_until(phase, Signal::INT),
            Fault::MigrateWithoutLibvirtd(side) => self.migrate_without_libvirtd(side),
            Fault::MigrateCarried => self.migrate_carried(),
            Fault::KillHalf { half, after_ms } => {
                self.kill_half(half, Duration::from_millis(after_ms))
            }
        }
    }

    fn kill_service(&self, says: Option<u64>) -> Result<()> {
        let guest = &self.world.guest;
        guest.kill_service()?;
        if let Some(seed) = says {
            guest
                .agent()
                .write_file("/tmp/garbage", &garbage(seed), false)?;
            // A host that does not read keeps the writer waiting; that is no fault of the guest's.
            let limit_s = GARBAGE_LIMIT.as_secs();
            guest.agent().sh(&format!(
                "for port in /sys/class/virtio-ports/*; do \
                   test \"$(cat $port/name)\" != {CHANNEL_PORT_NAME} || \
                   timeout {limit_s} sh -c \"cat /tmp/garbage >/dev/${{port##*/}}\"; \
                 done; rm /tmp/garbage"
            ))?;
        }
        guest.start_service()
    }

    /// The VF leaves, all is calm on the standby, and it comes back.
    fn unplug_and_plug(&self, meanwhile: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let world = &self.world;
        world.detach_vf()?;
        world.guest.await_state(BondState::Standby)?;
        meanwhile(self)?;
        world.guest.check(&world.home, &world.other, None)?;
        world.attach_vf()
    }

    fn planned(&self, meanwhile: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.ask("prepare")?;
        self.unplug_and_plug(meanwhile)?;
        self.ask("resume")
    }

    /// A guest that gets no processor may not be done within its own limit, and says so: whoever asks for a step asks
    /// again then.
    fn ask(&self, step: &str) -> Result<()> {
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            let ran = self.world.one_step(step)?;
            if ran.code == Some(0) {
                return Ok(());
            }
            ensure!(
                ran.stderr.contains(": not done after ") && Instant::now() < deadline,
                "tandem-host {step}: {ran:?}"
            );
            progress(&format!("{step} is asked for again: {}", ran.stderr.trim()));
        }
    }

    /// By way of `serve`, which lends the channel to whoever asks as root.
    fn garbage_to_guest(&self, seed: u64) -> Result<()> {
        let home = &self.world.home;
        let lease = UnixStream::connect(home.serve_socket()).context("serve's socket")?;
        lease.set_read_timeout(Some(STEP_LIMIT))?;
        writeln!(&lease, "{{\"lease\":{{\"domain\":\"{DOMAIN}\"}}}}")?;
        let mut answer = String::new();
        BufReader::new(&lease).read_line(&mut answer)?;
        ensure!(answer.contains("leased"), "no lease: {answer}");
        let path = home.folder().join("channel");
        for connection in 0..GARBAGE_CONNECTIONS {
            let channel = UnixStream::connect(&path).context("the guest's channel")?;
            send(&channel, &garbage(seed ^ u64::from(connection)))?;
        }
        Ok(())
    }

    fn garbage_to_serve(&self, seed: u64) -> Result<()> {
        for side in [Side::Here, Side::There] {
            let path = self.host(side).serve_socket();
            for connection in 0..GARBAGE_CONNECTIONS {
                let stream = UnixStream::connect(&path).context("serve's socket")?;
                send(&stream, &garbage(seed ^ u64::from(connection)))?;
            }
        }
        Ok(())
    }

    fn flap(&self, port: Port, times: u32, pause: Duration) -> Result<()> {
        let world = &self.world;
        let mac = match port {
            Port::Standby => world.guest.spec().standby,
            Port::Vf => world.vf,
        };
        let mac = mac.to_string();
        for _ in 0..times {
            for link in ["down", "up"] {
                world.home.virsh(&["domif-setlink", DOMAIN, &mac, link])?;
                sleep(pause);
            }
        }
        Ok(())
    }

    fn jump(&self, seconds: i64) -> Result<()> {
        let agent = self.world.guest.agent();
        agent.sh(&format!("date -s @$(( $(date +%s) + ({seconds}) ))"))?;
        Ok(())
    }

    fn full_run(&self, kills: bool) -> Result<()> {
        let agent = self.world.guest.agent();
        let fill = "mount -o remount,size=1m /run && dd if=/dev/zero of=/run/full bs=4k 2>/dev/null; \
                    ! echo full >/run/fuller";
        agent.sh(fill).context("/run does not fill up")?;
        let done = self.planned(|site| match kills {
            true => site.kill_service(None),
            false => Ok(()),
        });
        agent.sh("rm -f /run/full /run/fuller && mount -o remount,size=50% /run")?;
        done
    }

    /// Nothing was changed where nothing can be kept: the evacuation is refused.
    fn full_records(&self) -> Result<()> {
        let arguments = self.world.arguments(&[])?;
        let folder = self.world.guest.records_folder();
        let script = "mkdir -m 700 -p \"$0\" && mount -t tmpfs -o size=4k,mode=700 tmpfs \"$0\" && \
                      echo >\"$0/full\" && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, folder]);
        command.arg(host_program()?).args(words(&arguments));
        let (running, _) = Running::start_command(command)?;
        let ran = running.wait(EVACUATION_LIMIT)?;
        ensure!(ran.code == Some(10), "not refused: {ran:?}");
        let code = ran.json()?["cause"]["code"].clone();
        ensure!(code == "record-not-written", "refused for {code}: {ran:?}");
        Ok(())
    }

    fn migrate(&mut self) -> Result<()> {
        let arguments = self.world.arguments(&[])?;
        self.world.guest.pause();
        let ran = tandem_host(&words(&arguments), EVACUATION_LIMIT)?;
        ensure!(ran.code == Some(0), "tandem-host migrate: {ran:?}");
        self.world.moved()
    }

    /// An evacuation that gets this signal once it has come to a phase; it may be over by then.
    fn migrate_until(&mut self, phase: &str, signal: Signal) -> Result<()> {
        let told = self.world.start(&[])?;
        self.world.guest.pause();
        told.await_phase(phase)?;
        told.running.signal(signal)?;
        let ran = told.wait()?;
        self.settle(&ran)
    }

    fn migrate_without_libvirtd(&mut self, side: Side) -> Result<()> {
        let told = self.world.start_slow(&[])?;
        self.world.guest.pause();
        self.host(side).restart_libvirtd()?;
        // One that goes on all the same ends too.
        let speed = ["migrate-setspeed", DOMAIN, "10000"];
        self.world.home.try_virsh(&speed)?;
        let ran = told.wait()?;
        self.settle(&ran)
    }

    fn start_carried(&self) -> Result<Told> {
        let program = host_program()?.display().to_string();
        let [from, to] = [&self.world.home, &self.world.other].map(|host| {
            let namespace = host.host().namespace().name();
            format!("ip netns exec {namespace} {program}")
        });
        let carry = ["--carry", "--carry-from", &from, "--carry-to", &to];
        let told = self.world.start(&carry)?;
        self.world.guest.pause();
        Ok(told)
    }

    fn migrate_carried(&mut self) -> Result<()> {
        let ran = self.start_carried()?.wait()?;
        ensure!(ran.code == Some(0), "tandem-host migrate --carry: {ran:?}");
        let told = &ran.json()?["carry"];
        ensure!(told["reason"].is_null(), "not carried: {ran:?}");
        progress(&format!(
            "stop was ours: {}, maybe lost: {}",
            told["stop-was-ours"], told["maybe-lost"]
        ));
        self.world.moved()
    }

    /// What is left of the carry gives everything back, and the evacuation goes on or is undone.
    fn kill_half(&mut self, half: Half, after: Duration) -> Result<()> {
        let told = self.start_carried()?;
        let (side, host) = match half {
            Half::Source => ("source", &self.world.home),
            Half::Destination => ("destination", &self.world.other),
        };
        let words = ["carry-half", side, &host.uri()].map(str::to_owned);
        // `ip netns exec` becomes it, and is not it yet.
        let is_it = |process: &Process| {
            let program = process.words.first();
            program.is_some_and(|word| word.ends_with("tandem-host"))
                && words.iter().all(|word| process.words.contains(word))
        };
        while told.running.runs()? {
            if let Some(found) = find_processes(is_it)?.first() {
                let process = ProcessHandle::of_pid(found.pid);
                sleep(after);
                match process {
                    Ok(process) => process.kill(),
                    Err(_) => progress("the half had ended by itself"),
                }
                break;
            }
            sleep(HALF_STEP);
        }
        let ran = told.wait()?;
        self.settle(&ran)
    }

    /// Whatever became of an evacuation: where it can't say that nothing is left to do, an operator has it finished or
    /// undone. The domain is then on one of both hosts.
    fn settle(&mut self, ran: &Ran) -> Result<()> {
        let is_over = match ran.code {
            None => false,
            Some(_) => ran.json()?["recovery-needed"] == false,
        };
        if !is_over {
            let recovery = Told::start(&self.world.recover_arguments(&self.world.home))?;
            let recovered = recovery.wait()?;
            let report = recovered.json()?;
            ensure!(
                matches!(recovered.code, Some(0 | 11)) && report["recovery-needed"] == false,
                "after {ran:?}\ntandem-host recover: {recovered:?}"
            );
        }
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            // One that libvirt ends as it is started anew is still listed for a moment.
            let there = self
                .world
                .other
                .running()?
                .iter()
                .any(|name| name == DOMAIN);
            let here = self.world.home.running()?.iter().any(|name| name == DOMAIN);
            match (here, there) {
                (true, false) => return self.world.guest.follow(&[&self.world.home]),
                (false, true) => return self.world.moved(),
                _ if Instant::now() >= deadline => {
                    bail!("the domain runs here: {here}, there: {there}; after {ran:?}")
                }
                _ => sleep(LOOK_STEP),
            }
        }
    }
}

/// Bytes that nobody should say: random ones, long lines, deep and cut JSON, requests that are nearly right.
fn garbage(seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = Vec::new();
    for _ in 0..1 + rng.below(6) {
        let said: Vec<u8> = match rng.below(7) {
            0 => (0..rng.below(4096)).map(|_| byte(&mut rng)).collect(),
            1 => many(b"x", rng.below(300_000)),
            2 => many(b"[", rng.below(20_000)),
            3 => b"{\"execute\":\"tandem-nothing\",\"arguments\":{\"a\":[1,2".to_vec(),
            4 => b"{\"return\":{}}\n{\"event\":\"tandem-nothing\"}\n".to_vec(),
            5 => b"{\"execute\":\"tandem-configure\",\"arguments\":{\"bonds\":[{}]}}\n".to_vec(),
            _ => b"{\"execute\":\"tandem-status\",\"id\":\xff\xc3\x28}\n".to_vec(),
        };
        bytes.extend(said);
        if rng.chance(500) {
            bytes.push(b'\n');
        }
    }
    bytes
}

fn byte(rng: &mut Rng) -> u8 {
    rng.bits().to_le_bytes()[0]
}

fn many(bytes: &[u8], times: u64) -> Vec<u8> {
    bytes.repeat(usize::try_from(times).unwrap_or(0))
}

/// Sends it as far as it is taken, and reads what is answered for a moment: who is cut off need not take it all.
fn send(mut stream: &UnixStream, bytes: &[u8]) -> Result<()> {
    stream.set_write_timeout(Some(GARBAGE_LIMIT))?;
    stream.set_read_timeout(Some(LOOK_STEP))?;
    if let Err(error) = stream.write_all(bytes) {
        let expected = [
            ErrorKind::BrokenPipe,
            ErrorKind::ConnectionReset,
            ErrorKind::WouldBlock,
        ];
        ensure!(expected.contains(&error.kind()), "{error}");
    }
    let mut answer = [0; 4096];
    let mut taken = 0_usize;
    while let Ok(count @ 1..) = stream.read(&mut answer) {
        taken += count;
        ensure!(taken < 1 << 24, "it answers without an end");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_its_seeds_and_bounded() {
        assert_eq!(garbage(5), garbage(5));
        let sizes: Vec<usize> = (0..200).map(|seed| garbage(seed).len()).collect();
        assert!(sizes.iter().all(|size| *size < 2_000_000), "{sizes:?}");
        assert!(sizes.iter().any(|size| *size > 100_000), "{sizes:?}");
    }
}
