//! `tandem-host` moves a domain between two real libvirt hosts.

mod carried;
mod operator;
mod options;
mod three_bonds;

use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tandem_core::status::BondState;
use tandem_lab::libvirt::{DomainSpec, LibvirtGuest, LibvirtHost, Ran, Running, serve};
use tandem_lab::net::{GUEST_V4, GUEST_V6};
use tandem_lab::probe::{FrameOptions, StreamProbe};
use tandem_lab::tandem::{BOND, STEP_LIMIT};
use tandem_lab::{Lab, test_mac};

const DOMAIN: &str = "g1";
const RECORD_INTERVAL: Duration = Duration::from_millis(20);

/// `tandem-host serve` configured a guest; in its log.
const CONFIGURED: &str = "the guest has its bonds";

/// A report of `tandem-host migrate`, held against what it must say.
fn expect(ran: &Ran, code: i32, wanted: &Value) -> Result<Value> {
    ensure!(ran.code == Some(code), "wanted exit code {code}: {ran:?}");
    let report = ran.json()?;
    for (key, value) in wanted.as_object().context("an object")? {
        ensure!(&report[key] == value, "{key} is not {value}: {report:#}");
    }
    Ok(report)
}

/// `tandem-host serve` on one host.
struct Served {
    running: Running,
    log: Receiver<String>,
    configured: usize,
}

impl Served {
    fn start(host: &LibvirtHost) -> Result<Self> {
        let (running, log) = serve(host)?;
        Ok(Self {
            running,
            log,
            configured: 0,
        })
    }

    /// How often it has configured a guest by now.
    fn configured(&mut self) -> Result<usize> {
        ensure!(self.running.runs()?, "tandem-host serve has ended");
        let lines = self.log.try_iter();
        self.configured += lines.filter(|line| line.contains(CONFIGURED)).count();
        Ok(self.configured)
    }

    /// Ends it in order.
    fn stop(self) -> Result<()> {
        self.running.signal(Signal::TERM)?;
        let ran = self.running.wait(STEP_LIMIT)?;
        ensure!(ran.code == Some(0), "tandem-host serve: {ran:?}");
        Ok(())
    }
}

/// Has the VF's bond from the domain's XML, with its addresses and routes.
fn has_all_of_the_xml(guest: &LibvirtGuest<'_>) -> Result<()> {
    guest.await_state(BondState::Accelerated)?;
    let configuration = guest.agent().sh("ls /etc/tandem 2>/dev/null | wc -l")?;
    ensure!(configuration == "0", "the guest has a configuration");
    let shown = guest
        .agent()
        .sh(&format!("ip address show {BOND}; ip route"))?;
    let route = format!("198.51.100.0/24 via 10.77.0.1 dev {BOND}");
    for wanted in [format!("{GUEST_V4}/24"), format!("{GUEST_V6}/64"), route] {
        ensure!(shown.contains(&wanted), "no {wanted}: {shown}");
    }
    Ok(())
}

/// The whole story: nothing is configured in the guest, and nobody asks for it but the hosts' services.
fn there_and_back(lab: &Lab) -> Result<()> {
    let (a, b) = LibvirtHost::pair(lab)?;
    let (mut on_a, mut on_b) = (Served::start(&a)?, Served::start(&b)?);
    let guest = LibvirtGuest::boot(lab, &a, DomainSpec::new(DOMAIN))?;
    has_all_of_the_xml(&guest)?;
    let (first, second) = (guest.spec().vf, test_mac(3));
    guest.check(&a, &b, Some(first))?;
    ensure!(
        on_a.configured()? == 1,
        "configured {} times",
        on_a.configured
    );
    operator::handles_xml(lab, &a, &guest)?;
    operator::sees_a_guest(&a)?;
    operator::sees_the_steps(&guest, &a, &b, second)?;
    guest.check(&a, &b, Some(first))?;

    let client = lab.client()?;
    let stream = StreamProbe::start(
        client.agent(),
        (guest.agent(), GUEST_V4.into()),
        RECORD_INTERVAL,
        STEP_LIMIT,
    )?;
    let mut frames = guest.probe_frames(FrameOptions::default())?;
    frames.mark("to b");
    let watch = operator::watch(&a)?;
    let done = json!({"verdict": "done", "runs-on": "destination", "vf-attached": true,
        "guest": "uses-vf", "recovery-needed": false, "left": []});
    let report = expect(&guest.migrate(&a, &b, second, &[])?, 0, &done)?;
    eprintln!("to b: {report:#}");
    operator::was_told_of_the_gap(&report)?;
    a.await_metric(operator::ON_VF, false)?;
    operator::saw_it_leave(watch)?;
    b.await_metric(operator::ON_VF, true)?;
    guest.check(&b, &a, Some(second))?;
    stream.wait_progress(STEP_LIMIT)?;

    frames.mark("back to a");
    let converge = ["--auto-converge", "--bandwidth", "200"];
    let report = expect(&guest.migrate(&b, &a, first, &converge)?, 0, &done)?;
    eprintln!("back to a: {report:#}");
    guest.check(&a, &b, Some(first))?;
    stream.wait_progress(STEP_LIMIT)?;
    let stream = stream.finish()?;
    ensure!(stream.broken().is_none(), "{stream:?}");
    let frames = frames.finish()?;
    for name in ["to b", "back to a"] {
        for way in [&frames.to_guest, &frames.to_client] {
            let phase = way.phase(name).context("the probe knows the phase")?;
            eprintln!("{name}: {phase:?}");
            ensure!(phase.sent > phase.lost, "no frame came through: {phase:?}");
        }
    }

    // The service of a hears of the reboot although its libvirtd was killed.
    a.restart_libvirtd()?;
    guest.reboot(&a)?;
    guest.await_boot(&a)?;
    has_all_of_the_xml(&guest)?;
    guest.check(&a, &b, Some(first))?;
    // Once per boot: neither the migrations nor the looks in between were taken for one.
    let configured = (on_a.configured()?, on_b.configured()?);
    ensure!(
        configured == (2, 0),
        "configured {configured:?} times on a and b"
    );
    for host in [&a, &b] {
        // On b the domain only came in; neither was kept from starting it.
        let asked = host.asked_of_systemd();
        let wanted = "start --no-block tandem-host.service";
        ensure!(
            asked.first().is_some_and(|line| line == wanted),
            "by the hook: {asked:?}"
        );
        ensure!(
            asked.iter().all(|line| line == wanted),
            "by the hook: {asked:?}"
        );
    }
    on_a.stop()?;
    on_b.stop()
}

#[test]
fn a_domain_has_its_bond_from_its_xml_there_and_back_and_after_a_reboot() {
    let Some(lab) = Lab::for_libvirt_test("libvirt there and back") else {
        return;
    };
    there_and_back(&lab).unwrap();
}

#[test]
fn a_domain_with_three_bonds_moves_with_all_vfs() {
    let Some(lab) = Lab::for_libvirt_test("libvirt three bonds") else {
        return;
    };
    three_bonds::move_with_all(&lab).unwrap();
}

#[test]
fn a_disk_is_copied_and_a_slow_migration_switches_to_post_copy() {
    let Some(lab) = Lab::for_libvirt_test("libvirt options") else {
        return;
    };
    options::copy_and_switch(&lab).unwrap();
}

#[test]
fn an_evacuation_whose_frames_are_carried_loses_none() {
    let Some(lab) = Lab::for_libvirt_test("libvirt carried") else {
        return;
    };
    carried::loses_nothing(&lab).unwrap_or_else(|error| panic!("{error:?}"));
}
