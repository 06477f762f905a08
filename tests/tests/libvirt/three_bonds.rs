//! A domain with three bonds: one evacuation takes all VFs along, or begins with none; one that does not come is named,
//! and keeps the others from nothing.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_core::types::Mac;
use tandem_lab::Lab;
use tandem_lab::libvirt::{
    DomainSpec, LibvirtGuest, LibvirtHost, MoreBond, VF_ALIAS, file, operate, vf_xml,
};
use tandem_lab::tandem::BOND;

use crate::{DOMAIN, expect};

pub(crate) fn move_with_all(lab: &Lab) -> Result<()> {
    let (a, b) = LibvirtHost::pair(lab)?;
    let guest = LibvirtGuest::boot(lab, &a, DomainSpec::with_three_bonds(DOMAIN))?;
    guest.configure(&a)?;
    let more = <[MoreBond; 2]>::try_from(guest.spec().more.as_slice())?;
    let second = more[0];
    let other = *guest.spec().other_vfs.first().context("another VF")?;
    let on_a = [guest.spec().vf, more[0].vf, more[1].vf];
    let on_b = [other, more[0].other_vf, more[1].other_vf];
    guest.check_bonds(&a, &b, &on_a.map(Some))?;

    let vfs = files(&guest, on_b)?;
    let arguments = |command| guest.arguments(command, &a, &b, &vfs);
    let ready =
        json!({"verdict": "ready", "runs-on": "source", "vf-attached": true, "cause": null});
    let report = expect(&guest.evacuate(&a, &b, &arguments("check")?)?, 0, &ready)?;
    names_all(guest.spec(), &report)?;
    guest.check_bonds(&a, &b, &on_a.map(Some))?;
    guest.has_no_record(&a)?;

    let done = json!({"verdict": "done", "runs-on": "destination", "vf-attached": true,
        "guest": "uses-vf", "recovery-needed": false, "left": [], "cause": null});
    let ran = guest.evacuate(&a, &b, &arguments("migrate")?)?;
    let report = expect(&ran, 0, &done)?;
    eprintln!("three bonds to b: {report:#}");
    names_all(guest.spec(), &report)?;
    guest.check_bonds(&b, &a, &on_b.map(Some))?;
    guest.has_no_record(&b)?;
    tells_of_all(guest.spec(), &b)?;

    // The first VF could come, the second one never: so none leaves. The lab's libvirt has no networks at all.
    let mut vfs = files(&guest, on_a)?;
    let missing = format!(
        "<interface type='network'><mac address='{}'/><source network='nowhere'/></interface>",
        second.vf
    );
    vfs[1] = named(second.name, &file(lab.folder(), "missing.xml", &missing)?);
    let refused = json!({"verdict": "refused", "runs-on": "source", "vf-attached": true,
        "recovery-needed": false, "left": []});
    for command in ["check", "migrate"] {
        let arguments = guest.arguments(command, &b, &a, &vfs)?;
        let report = expect(&guest.evacuate(&b, &a, &arguments)?, 10, &refused)?;
        let cause = &report["cause"];
        let said = cause["message"].as_str().unwrap_or_default();
        ensure!(
            cause["code"] == "vf-taken" && said.contains("nowhere"),
            "{command}: {cause:#}"
        );
        guest.check_bonds(&b, &a, &on_b.map(Some))?;
        guest.has_no_record(&b)?;
    }

    // What no host can know before: the bridge of the second VF is not there.
    let xml = vf_xml(guest.spec().model, second.vf, second.alias).replace("br0", "nowhere0");
    vfs[1] = named(second.name, &file(lab.folder(), "no-bridge.xml", &xml)?);
    let mut arguments = guest.arguments("migrate", &b, &a, &vfs)?;
    arguments.extend(["--plug-timeout", "5"].map(str::to_owned));
    let degraded = json!({"verdict": "degraded", "runs-on": "destination", "vf-attached": false,
        "recovery-needed": true, "left": []});
    let report = expect(&guest.evacuate(&b, &a, &arguments)?, 12, &degraded)?;
    eprintln!("three bonds back to a: {report:#}");
    let devices = &report["devices"];
    ensure!(
        devices[0]["guest"] == "uses-vf"
            && devices[1]["attached"] == false
            && devices[1]["plug-failure"].is_string()
            && devices[2]["guest"] == "uses-vf",
        "{devices:#}"
    );
    guest.check_bonds(&a, &b, &[Some(on_a[0]), None, Some(on_a[2])])?;

    let mut arguments = guest.recover_arguments(&a);
    arguments.extend(["--vf".to_owned(), files(&guest, on_a)?.remove(1)]);
    let report = expect(&guest.evacuate(&a, &b, &arguments)?, 0, &done)?;
    names_all(guest.spec(), &report)?;
    guest.check_bonds(&a, &b, &on_a.map(Some))?;
    guest.has_no_record(&a)
}

/// What `--vf` is given for each bond.
fn files(guest: &LibvirtGuest<'_>, vfs: [Mac; 3]) -> Result<Vec<String>> {
    let files = bonds(guest.spec())
        .zip(vfs)
        .map(|((bond, alias), vf)| Ok(named(bond, &guest.vf_file(alias, vf)?)));
    files.collect()
}

/// The bonds and the aliases of their VFs.
fn bonds(spec: &DomainSpec) -> impl Iterator<Item = (&'static str, &'static str)> {
    let more = spec.more.iter().map(|bond| (bond.name, bond.alias));
    std::iter::once((BOND, VF_ALIAS)).chain(more)
}

fn named(bond: &str, file: &str) -> String {
    format!("{bond}={file}")
}

/// A report of a domain that has all its VFs, and uses them.
fn names_all(spec: &DomainSpec, report: &Value) -> Result<()> {
    let devices = report["devices"].as_array().context("the devices")?;
    let told = devices.iter().map(|one| {
        let so = ["bond", "wanted", "attached", "guest"].map(|key| one[key].clone());
        (one["device"].as_str().unwrap_or_default(), so)
    });
    let told: Vec<_> = told.collect();
    let wanted = bonds(spec).map(|(bond, alias)| {
        let so = [json!(bond), json!(true), json!(true), json!("uses-vf")];
        (format!("device {alias} of {bond}"), so)
    });
    let wanted: Vec<_> = wanted.collect();
    let same = told
        .iter()
        .zip(&wanted)
        .all(|(one, other)| one.0 == other.0 && one.1 == other.1);
    ensure!(
        told.len() == wanted.len() && same,
        "{told:?}, not {wanted:?}"
    );
    Ok(())
}

/// `status`, where it is now.
fn tells_of_all(spec: &DomainSpec, host: &LibvirtHost) -> Result<()> {
    let told: Value = serde_json::from_str(&operate(host, &["status", DOMAIN, "--json"])?)?;
    let told_bonds = told["guest"]["status"]["bonds"].as_array();
    let told_bonds = told_bonds.with_context(|| format!("no bonds: {told:#}"))?;
    let traffic = told_bonds.iter();
    let traffic = traffic.map(|bond| (bond["name"].clone(), bond["traffic"].clone()));
    let traffic: Vec<_> = traffic.collect();
    let wanted = bonds(spec).map(|(bond, _)| (json!(bond), json!("vf")));
    ensure!(
        traffic == wanted.collect::<Vec<_>>(),
        "{traffic:?}: {told:#}"
    );
    Ok(())
}
