//! The channel over a real virtio-serial port: hosts that don't read, send garbage, leave and move; and a
//! host that configures the guest.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tandem_core::Status;
use tandem_core::policy::Origin;
use tandem_core::status::{BondState, BondStatus};
use tandem_lab::net::{CLIENT_V4, GUEST_V4, GUEST_V6};
use tandem_lab::sim::rng::Rng;
use tandem_lab::tandem::{BOND, CONFIG, Channel, Guest, STEP_LIMIT, Setup};
use tandem_lab::{Host, Lab};

/// A write or read that makes no progress for this long makes none.
const STALL: Duration = Duration::from_secs(5);
/// More bytes than all buffers between host and service hold.
const TOO_MANY_BYTES: usize = 64 << 20;
const RECONNECTS: u32 = 100;
/// Failovers with their failbacks that a host does not hear of at once.
const SWITCHOVERS: usize = 3;
/// How deep JSON is nested.
const DEPTH: usize = 10_000;
const RANDOM_WORDS: usize = 16 << 10;
const SEED: u64 = 0x7a4d;
/// Requests whose answers nobody reads before the VM moves.
const UNREAD_ANSWERS: u32 = 20;
/// By how much the service's resident memory may grow in one case, in KiB: keeping a line of 1 MiB would take
/// about 1400, and code that runs for the first time takes up to 500.
const MAX_GROWTH_KIB: u64 = 1 << 10;
/// Resident memory that the service may have at its peak, in KiB.
const MAX_PEAK_KIB: u64 = 16 << 10;

fn local(guest: &Guest, command: &str) -> Result<()> {
    let output = guest.tandem(&[command])?;
    ensure!(
        output.success(),
        "tandem {command}: {}",
        output.error_text()
    );
    Ok(())
}

#[test]
fn a_host_that_misbehaves_does_no_harm() {
    let Some(lab) = Lab::for_test("bad host") else {
        return;
    };
    misbehave(&lab).unwrap();
}

fn misbehave(lab: &Lab) -> Result<()> {
    lab.client()?;
    let setup = Setup::new()?;
    let guest = setup.boot(lab, &lab.host("a")?)?;
    guest.await_state(&mut guest.channel()?, BondState::Accelerated)?;
    let pid = guest.pid()?;
    there_and_back(&guest)?;
    let mut victim = Victim {
        memory_kib: memory_kib(&guest, pid)?,
        guest,
        pid,
    };

    never_reads(&mut victim)?;
    garbage(&mut victim)?;
    comes_and_goes(&mut victim)?;
    moves(&mut victim, &setup, &lab.host("b")?)
}

/// A guest whose host misbehaves.
struct Victim {
    guest: Guest,
    /// The service's process from the beginning on.
    pid: u32,
    /// Its resident memory before the case.
    memory_kib: u64,
}

impl Victim {
    /// The same check after every case: traffic flows, the host that connects now is told what the guest
    /// itself says, and the service is the same process and has kept within its memory.
    fn unharmed(&mut self, what: &str, state: BondState) -> Result<()> {
        let growth_kib = self
            .check(state)
            .with_context(|| format!("after {what} (seed {SEED:#x})"))?;
        eprintln!("unharmed by {what}; the service's memory grew by {growth_kib} KiB at its peak");
        self.memory_kib = memory_kib(&self.guest, self.pid)?;
        Ok(())
    }

    /// The status as the host and as the guest itself is told it, both of one generation: what a switchover
    /// brought about may still be arriving.
    fn same_moment(&self) -> Result<(Status, Status)> {
        let mut channel = self.guest.channel()?;
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            let here = channel.status(STEP_LIMIT)?;
            let there = self.guest.status()?;
            if here.generation == there.generation {
                return Ok((here, there));
            }
            ensure!(
                Instant::now() < deadline,
                "the status never rests: generation {}, then {}",
                here.generation,
                there.generation
            );
        }
    }

    fn check(&self, state: BondState) -> Result<u64> {
        self.guest.check()?;
        let (here, there) = self.same_moment()?;
        ensure!(
            without_deadlines(&here) == without_deadlines(&there) && here.policy == there.policy,
            "the host is told {here:#?}, the guest {there:#?}"
        );
        ensure!(
            here.bonds.first().is_some_and(|bond| bond.state == state),
            "not {state:?}: {here:#?}"
        );
        let processes = self.guest.vm.sh("pidof tandem")?;
        ensure!(
            processes.trim() == self.pid.to_string(),
            "the service was process {}, now there is {processes}",
            self.pid
        );
        let peak_kib = peak_kib(&self.guest, self.pid)?;
        let growth_kib = peak_kib.saturating_sub(self.memory_kib);
        ensure!(
            growth_kib <= MAX_GROWTH_KIB && peak_kib <= MAX_PEAK_KIB,
            "the service's memory grew from {} to {peak_kib} KiB",
            self.memory_kib
        );
        Ok(growth_kib)
    }
}

/// What the same number of a status says: all but deadlines.
fn without_deadlines(status: &Status) -> Vec<BondStatus> {
    let mut bonds = status.bonds.clone();
    for bond in &mut bonds {
        bond.next_deadline = None;
    }
    bonds
}

/// The memory that is resident now; forgets the peak so far (proc(5), `clear_refs`: 5).
fn memory_kib(guest: &Guest, pid: u32) -> Result<u64> {
    guest.vm.sh(&format!("echo 5 >/proc/{pid}/clear_refs"))?;
    peak_kib(guest, pid)
}

/// The most memory that was resident since.
fn peak_kib(guest: &Guest, pid: u32) -> Result<u64> {
    let status = guest.vm.sh(&format!("cat /proc/{pid}/status"))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.split_whitespace().next())
        .context("the kernel tells no VmHWM")?;
    Ok(peak.parse()?)
}

/// The traffic moves to the standby and back. Each makes an event, and who asks in the guest is answered.
fn there_and_back(guest: &Guest) -> Result<()> {
    local(guest, "failover")?;
    guest.reach_here(BondState::Standby)?;
    local(guest, "failback")?;
    guest.reach_here(BondState::Accelerated)?;
    Ok(())
}

/// A host asks and asks, has events made, and reads nothing; then it does.
fn never_reads(victim: &mut Victim) -> Result<()> {
    let guest = &victim.guest;
    let mut stream = guest.vm.channel()?;
    stream.set_write_timeout(Some(STALL))?;
    stream.write_all(b"{\"execute\":\"tandem-subscribe\"}\n")?;
    let asked = write_until_full(&mut stream)?;
    for _ in 0..SWITCHOVERS {
        there_and_back(guest)?;
    }
    let answers = read_until_silent(&mut stream)?;
    eprintln!(
        "a host that never reads: {asked} bytes of requests taken, then {} of answers",
        answers.len()
    );
    let events = String::from_utf8_lossy(&answers)
        .matches("\"event\":\"switched-over\"")
        .count();
    ensure!(
        events >= 2 * SWITCHOVERS,
        "{events} events of {} switchovers were kept for a host that reads late",
        2 * SWITCHOVERS
    );

    // It is still subscribed, and its next requests are answered.
    stream.set_write_timeout(None)?;
    let mut channel = Channel::new(stream, STEP_LIMIT)?;
    channel.call("tandem-failover", json!({}), STEP_LIMIT)?;
    channel.call("tandem-failback", json!({}), STEP_LIMIT)?;
    channel.await_status("accelerated", STEP_LIMIT, |status| {
        status.bonds[0].state == BondState::Accelerated
    })?;
    let moved = channel
        .take_events()
        .iter()
        .any(|(_, event)| event["event"] == "switched-over");
    ensure!(moved, "no event after the host read again");
    drop(channel);
    victim.unharmed("a host that never reads", BondState::Accelerated)
}

/// Sends requests until the guest takes no more; gives how many bytes it took.
fn write_until_full(stream: &mut UnixStream) -> Result<usize> {
    let request = b"{\"execute\":\"guest-info\"}\n";
    let mut taken = 0;
    while taken < TOO_MANY_BYTES {
        match stream.write(request) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
            Err(error) => return Err(error).context("the port broke off"),
        }
    }
    bail!("{taken} bytes of requests were taken and no answer was read: something has no bound")
}

fn read_until_silent(stream: &mut UnixStream) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(STALL))?;
    let mut bytes = vec![0; 1 << 16];
    let mut read = Vec::new();
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => bail!("the port was closed"),
            Ok(count) => read.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(read),
            Err(error) => return Err(error).context("the port broke off"),
        }
    }
}

/// After each kind of nonsense the next request is answered, on the same connection and on a new one.
fn garbage(victim: &mut Victim) -> Result<()> {
    let mut rng = Rng::new(SEED);
    let random: Vec<u8> = (0..RANDOM_WORDS)
        .flat_map(|_| rng.bits().to_le_bytes())
        .collect();
    let deep = "[".repeat(DEPTH) + &"]".repeat(DEPTH);
    let mebibyte = vec![b'x'; 1 << 20];
    let cases = [
        ("a line of 1 MiB", [&mebibyte[..], b"\n"].concat()),
        ("half a line of 1 MiB", mebibyte),
        (
            "no UTF-8",
            b"{\"execute\":\"guest-\xc3\x28\xed\xa0\x80\"}\n".to_vec(),
        ),
        ("deep JSON", format!("{deep}\n").into_bytes()),
        (
            "deep arguments",
            format!("{{\"execute\":\"tandem-status\",\"arguments\":{{\"a\":{deep}}}}}\n")
                .into_bytes(),
        ),
        (
            "deep identity",
            format!("{{\"execute\":\"tandem-status\",\"id\":{deep}}}\n").into_bytes(),
        ),
        (
            "half a message",
            b"{\"execute\":\"tandem-failover\"".to_vec(),
        ),
        ("random bytes", random),
    ];
    for (what, bytes) in cases {
        let mut channel = victim.guest.channel()?;
        channel.send_bytes(&bytes)?;
        channel
            .synchronise(STEP_LIMIT)
            .with_context(|| format!("after {what} (seed {SEED:#x})"))?;
        // Once more, and left unfinished for the next host.
        channel.send_bytes(&bytes)?;
        drop(channel);
        victim.unharmed(what, BondState::Accelerated)?;
    }
    Ok(())
}

/// Hosts connect, say something whole or half, and leave at once.
fn comes_and_goes(victim: &mut Victim) -> Result<()> {
    for round in 0..RECONNECTS {
        let mut stream = victim.guest.vm.channel()?;
        let said: &[u8] = match round % 3 {
            0 => b"",
            1 => b"{\"execute\":\"tandem-status\"}\n",
            _ => b"{\"execute\":\"tandem-fail",
        };
        stream.write_all(said)?;
    }
    victim.unharmed("hosts that come and go", BondState::Accelerated)
}

/// The VM moves while half a request is on its way and answers wait unread.
fn moves(victim: &mut Victim, setup: &Setup, there: &Host) -> Result<()> {
    let guest = &mut victim.guest;
    let mut channel = guest.channel()?;
    channel.call("tandem-prepare-unplug", json!({}), STEP_LIMIT)?;
    guest.vm.unplug_vf()?;
    guest.await_state(&mut channel, BondState::Standby)?;
    for _ in 0..UNREAD_ANSWERS {
        channel.send_bytes(b"{\"execute\":\"tandem-status\"}\n")?;
    }
    channel.send_bytes(b"{\"execute\":\"tandem-fail")?;
    guest.vm.migrate_to(there)?;
    drop(channel);
    victim.unharmed("a migration amid a request", BondState::Standby)?;

    let guest = &mut victim.guest;
    guest.vm.plug_vf(setup.model, setup.later_vfs[0])?;
    guest.await_state(&mut guest.channel()?, BondState::Accelerated)?;
    victim.unharmed("the next VF", BondState::Accelerated)
}

#[test]
fn the_host_configures_a_guest_that_has_no_file() {
    let Some(lab) = Lab::for_test("host config") else {
        return;
    };
    configured_by_host(&lab).unwrap();
}

fn configured_by_host(lab: &Lab) -> Result<()> {
    lab.client()?;
    let setup = Setup::new()?;
    let vm = setup.guest(lab)?.boot(&lab.host("a")?)?;
    vm.sh(&format!("rm {CONFIG}"))?;
    let mut guest = Guest::new(vm, setup.standby);
    guest.start(&[])?;
    let mut channel = guest.channel()?;
    let status = channel.status(STEP_LIMIT)?;
    ensure!(
        status.policy == Origin::None && status.bonds.is_empty(),
        "there are bonds that nobody configured: {status:#?}"
    );

    let mut wrong = policy(&setup);
    wrong["bonds"][0]["vfs"][0] = wrong["bonds"][0]["standby"].clone();
    refused(&mut channel, wrong, "invalid")?;

    let answer = channel.call("tandem-configure", policy(&setup), STEP_LIMIT)?;
    ensure!(
        answer == json!({ "bonds": [BOND], "changed": true }),
        "the guest answers {answer}"
    );
    by_host(&guest, &mut channel)?;
    let answer = channel.call("tandem-configure", policy(&setup), STEP_LIMIT)?;
    ensure!(
        answer["changed"] == json!(false),
        "the same again: {answer}"
    );
    drop(channel);

    // A restart of the service finds it again.
    guest.kill_service()?;
    guest.vm.sh("test -s /run/tandem/host-policy.json")?;
    guest.start(&[])?;
    by_host(&guest, &mut guest.channel()?)?;

    // The guest's administrator has the last word.
    guest.kill_service()?;
    guest
        .vm
        .write_file(CONFIG, b"host-may = \"commands\"\n", false)?;
    guest.start(&[])?;
    let mut channel = guest.channel()?;
    refused(&mut channel, policy(&setup), "not-allowed")?;
    let status = channel.status(STEP_LIMIT)?;
    ensure!(
        status.policy == Origin::None && status.bonds.is_empty(),
        "the host's bonds are used though that is forbidden: {status:#?}"
    );
    // What is there stays as it is.
    guest.vm.sh(&format!("ping -c 1 -W 10 {CLIENT_V4}"))?;

    // And the guest's own files come before the host.
    guest
        .vm
        .write_file(CONFIG, setup.config().as_bytes(), false)?;
    guest.signal(1)?;
    guest.await_state(&mut channel, BondState::Accelerated)?;
    refused(&mut channel, policy(&setup), "defined-by-file")?;
    let status = channel.status(STEP_LIMIT)?;
    ensure!(
        status.policy == Origin::File,
        "configured by {:?}",
        status.policy
    );
    guest.check()
}

/// The guest's network as the host describes it, addresses included.
fn policy(setup: &Setup) -> Value {
    json!({ "bonds": [{
        "name": BOND,
        "standby": { "mac": setup.standby.to_string() },
        "vfs": [{ "mac": setup.vf.to_string() }],
        "addressing": { "static": { "addresses": [
            { "ip": GUEST_V4, "prefix": 24 },
            { "ip": GUEST_V6, "prefix": 64 },
        ] } },
    }] })
}

fn refused(channel: &mut Channel, policy: Value, code: &str) -> Result<()> {
    let answer = channel.raw_call("tandem-configure", policy, STEP_LIMIT)?;
    ensure!(
        answer["error"]["code"] == json!(code) && answer["error"]["desc"].is_string(),
        "not refused as {code}: {answer}"
    );
    Ok(())
}

/// The host's policy is in effect: VF in use, the host's addresses on the bond and in use.
fn by_host(guest: &Guest, channel: &mut Channel) -> Result<()> {
    let status = guest.await_state(channel, BondState::Accelerated)?;
    ensure!(
        status.policy == Origin::Host,
        "configured by {:?}",
        status.policy
    );
    channel.await_status("with both addresses", STEP_LIMIT, |status| {
        status.bonds[0].addresses.len() >= 2
    })?;
    // Duplicate address detection takes the kernel about a second.
    guest.vm.wait_sh(
        &format!("test -z \"$(ip -6 address show tentative dev {BOND} scope global)\""),
        STEP_LIMIT,
    )?;
    guest.check()
}
