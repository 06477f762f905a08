//! `tandem-host` moves a domain between two real libvirt hosts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_core::status::BondState;
use tandem_lab::libvirt::{DomainSpec, LibvirtGuest, LibvirtHost, Ran};
use tandem_lab::net::GUEST_V4;
use tandem_lab::probe::{FrameOptions, StreamProbe};
use tandem_lab::tandem::{BOND, STEP_LIMIT};
use tandem_lab::{Lab, Mac};

const DOMAIN: &str = "g1";
const RECORD_INTERVAL: Duration = Duration::from_millis(20);

/// A guest without a configuration file, its bond up from the domain's XML alone, on the first of two hosts.
fn configured<'lab>(lab: &'lab Lab, a: &LibvirtHost) -> Result<LibvirtGuest<'lab>> {
    let guest = LibvirtGuest::boot(lab, a, DomainSpec::new(DOMAIN))?;
    guest.configure(a)?;
    guest.await_state(BondState::Accelerated)?;
    Ok(guest)
}

/// A report of `tandem-host migrate`, held against what it must say.
fn expect(ran: &Ran, code: i32, wanted: &Value) -> Result<Value> {
    ensure!(ran.code == Some(code), "wanted exit code {code}: {ran:?}");
    let report = ran.json()?;
    for (key, value) in wanted.as_object().context("an object")? {
        ensure!(&report[key] == value, "{key} is not {value}: {report:#}");
    }
    Ok(report)
}

fn there_and_back(lab: &Lab) -> Result<()> {
    let (a, b) = LibvirtHost::pair(lab)?;
    let guest = configured(lab, &a)?;
    let (first, second) = (guest.spec().vf, Mac::test(3));
    guest.check(&a, &b, Some(first))?;
    let routes = guest.agent().sh("ip route")?;
    ensure!(
        routes.contains(&format!("198.51.100.0/24 via 10.77.0.1 dev {BOND}")),
        "the XML's route is missing: {routes}"
    );

    let client = lab.client()?;
    let stream = StreamProbe::start(
        client.agent(),
        (guest.agent(), GUEST_V4.into()),
        RECORD_INTERVAL,
        STEP_LIMIT,
    )?;
    let mut frames = guest.probe_frames(FrameOptions::default())?;
    frames.mark("to b");
    let done = json!({"verdict": "done", "runs-on": "destination", "vf-attached": true,
        "guest": "uses-vf", "recovery-needed": false, "left": []});
    let report = expect(&guest.migrate(&a, &b, second, &[])?, 0, &done)?;
    eprintln!("to b: {report:#}");
    guest.check(&b, &a, Some(second))?;
    stream.wait_progress(STEP_LIMIT)?;

    frames.mark("back to a");
    let report = expect(&guest.migrate(&b, &a, first, &[])?, 0, &done)?;
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
    Ok(())
}

#[test]
fn a_domain_keeps_its_connection_there_and_back() {
    let Some(lab) = Lab::for_libvirt_test("libvirt there and back") else {
        return;
    };
    there_and_back(&lab).unwrap();
}
