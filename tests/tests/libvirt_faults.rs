//! What goes wrong between two real libvirt hosts, and how it ends: the same check after each.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_core::status::BondState;
use tandem_lab::libvirt::{
    DomainSpec, EVACUATION_LIMIT, LibvirtGuest, LibvirtHost, Ran, file, tandem_host, vf_xml,
};
use tandem_lab::{Lab, Mac};

const DOMAIN: &str = "g1";
/// Two hosts, and a guest with a VF on the first.
struct World<'lab> {
    lab: &'lab Lab,
    guest: LibvirtGuest<'lab>,
    a: LibvirtHost,
    b: LibvirtHost,
    other: Mac,
}

impl<'lab> World<'lab> {
    fn new(lab: &'lab Lab) -> Result<Self> {
        let (a, b) = LibvirtHost::pair(lab)?;
        let guest = LibvirtGuest::boot(lab, &a, DomainSpec::new(DOMAIN))?;
        guest.configure(&a)?;
        guest.await_state(BondState::Accelerated)?;
        let other = Mac::test(3);
        Ok(Self {
            lab,
            guest,
            a,
            b,
            other,
        })
    }

    fn has_no_record(&self, host: &LibvirtHost) -> Result<()> {
        let xml = host.virsh(&["dumpxml", DOMAIN])?;
        ensure!(!xml.contains("progress"), "a record was left: {xml}");
        Ok(())
    }

    fn arguments(&self, more: &[&str]) -> Result<Vec<String>> {
        let mut arguments = self.guest.migrate_arguments(&self.a, &self.b, self.other)?;
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        Ok(arguments)
    }

    /// `tandem-host recover`, asked on this host.
    fn recover(&self, host: &LibvirtHost) -> Result<Ran> {
        let state = self.guest.state_folder();
        let uri = host.uri();
        let words = [
            "recover",
            DOMAIN,
            "-c",
            &uri,
            "--state-dir",
            state,
            "--json",
        ];
        tandem_host(&words, EVACUATION_LIMIT)
    }
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The report, held against what it must say.
fn expect(ran: &Ran, code: i32, wanted: &Value) -> Result<Value> {
    ensure!(ran.code == Some(code), "wanted exit code {code}: {ran:?}");
    let report = ran.json()?;
    for (key, value) in wanted.as_object().context("an object")? {
        ensure!(&report[key] == value, "{key} is not {value}: {report:#}");
    }
    Ok(report)
}

fn degraded_and_recovered(world: &World<'_>) -> Result<()> {
    let missing = vf_xml(world.guest.spec().model, world.other).replace("br0", "br1");
    let mut arguments = world.arguments(&["--plug-timeout", "5"])?;
    let at = arguments
        .iter()
        .position(|word| word == "--vf")
        .context("--vf")?;
    arguments[at + 1] = file(world.lab.folder(), "missing.xml", &missing)?;
    world.guest.pause();
    let ran = tandem_host(&words(&arguments), EVACUATION_LIMIT)?;
    world.guest.follow(&[&world.b, &world.a])?;
    let degraded = json!({"verdict": "degraded", "runs-on": "destination", "vf-attached": false});
    expect(&ran, 12, &degraded)?;
    world.guest.check(&world.b, &world.a, None)?;
    // The host is mended: the bridge that the VF's XML names joins the other one.
    world.b.host().namespace().exec(
        "ip link add br1 type bridge && ip link add mend0 type veth peer name mend1 && \
         ip link set mend0 master br0 up && ip link set mend1 master br1 up && ip link set br1 up",
    )?;
    let done = json!({"verdict": "done", "runs-on": "destination", "vf-attached": true, "guest": "uses-vf"});
    expect(&world.recover(&world.b)?, 0, &done)?;
    world.guest.check(&world.b, &world.a, Some(world.other))?;
    world.has_no_record(&world.b)
}

#[test]
fn a_vf_that_cannot_be_plugged_in_leaves_the_domain_degraded() {
    let Some(lab) = Lab::for_libvirt_test("libvirt degraded") else {
        return;
    };
    degraded_and_recovered(&World::new(&lab).unwrap()).unwrap();
}
