//! A domain with two bonds: one evacuation takes both VFs along, or begins with neither; one that does not come
//! is named, and keeps the other from nothing.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_core::types::Mac;
use tandem_lab::Lab;
use tandem_lab::libvirt::{
    DomainSpec, LibvirtGuest, LibvirtHost, SECOND_BOND, SECOND_VF_ALIAS, VF_ALIAS, file, operate,
    vf_xml,
};
use tandem_lab::tandem::BOND;

use crate::{DOMAIN, expect};

pub(crate) fn move_with_both(lab: &Lab) -> Result<()> {
    let (a, b) = LibvirtHost::pair(lab)?;
    let guest = LibvirtGuest::boot(lab, &a, DomainSpec::with_two_bonds(DOMAIN))?;
    guest.configure(&a)?;
    let second = guest.spec().second.context("a second bond")?;
    let other = *guest.spec().other_vfs.first().context("another VF")?;
    let (on_a, on_b) = ([guest.spec().vf, second.vf], [other, second.other_vf]);
    guest.check_bonds(&a, &b, &on_a.map(Some))?;

    let vfs = files(&guest, on_b)?;
    let arguments = |command| guest.arguments(command, &a, &b, &vfs);
    let ready =
        json!({"verdict": "ready", "runs-on": "source", "vf-attached": true, "cause": null});
    let report = expect(&guest.evacuate(&a, &b, &arguments("check")?)?, 0, &ready)?;
    names_both(&report)?;
    guest.check_bonds(&a, &b, &on_a.map(Some))?;
    guest.has_no_record(&a)?;

    let done = json!({"verdict": "done", "runs-on": "destination", "vf-attached": true,
        "guest": "uses-vf", "recovery-needed": false, "left": [], "cause": null});
    let ran = guest.evacuate(&a, &b, &arguments("migrate")?)?;
    let report = expect(&ran, 0, &done)?;
    eprintln!("two bonds to b: {report:#}");
    names_both(&report)?;
    guest.check_bonds(&b, &a, &on_b.map(Some))?;
    guest.has_no_record(&b)?;
    tells_of_both(&b)?;

    // The first VF could come, the second one never: so the first does not leave either. The lab's libvirt has no
    // networks at all.
    let mut vfs = files(&guest, on_a)?;
    let missing = format!(
        "<interface type='network'><mac address='{}'/><source network='nowhere'/></interface>",
        second.vf
    );
    vfs[1] = named(SECOND_BOND, &file(lab.folder(), "missing.xml", &missing)?);
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
    let xml = vf_xml(guest.spec().model, second.vf, SECOND_VF_ALIAS).replace("br0", "nowhere0");
    vfs[1] = named(SECOND_BOND, &file(lab.folder(), "no-bridge.xml", &xml)?);
    let mut arguments = guest.arguments("migrate", &b, &a, &vfs)?;
    arguments.extend(["--plug-timeout", "5"].map(str::to_owned));
    let degraded = json!({"verdict": "degraded", "runs-on": "destination", "vf-attached": false,
        "recovery-needed": true, "left": []});
    let report = expect(&guest.evacuate(&b, &a, &arguments)?, 12, &degraded)?;
    eprintln!("two bonds back to a: {report:#}");
    let devices = &report["devices"];
    ensure!(
        devices[0]["guest"] == "uses-vf"
            && devices[1]["attached"] == false
            && devices[1]["plug-failure"].is_string(),
        "{devices:#}"
    );
    guest.check_bonds(&a, &b, &[Some(on_a[0]), None])?;

    let mut arguments = guest.recover_arguments(&a);
    arguments.extend(["--vf".to_owned(), files(&guest, on_a)?.remove(1)]);
    let report = expect(&guest.evacuate(&a, &b, &arguments)?, 0, &done)?;
    names_both(&report)?;
    guest.check_bonds(&a, &b, &on_a.map(Some))?;
    guest.has_no_record(&a)
}

/// What `--vf` is given for each bond.
fn files(guest: &LibvirtGuest<'_>, vfs: [Mac; 2]) -> Result<Vec<String>> {
    let bonds = [(BOND, VF_ALIAS), (SECOND_BOND, SECOND_VF_ALIAS)];
    let files = bonds
        .iter()
        .zip(vfs)
        .map(|((bond, alias), vf)| Ok(named(bond, &guest.vf_file(alias, vf)?)));
    files.collect()
}

fn named(bond: &str, file: &str) -> String {
    format!("{bond}={file}")
}

/// A report of a domain that has both VFs, and uses them.
fn names_both(report: &Value) -> Result<()> {
    let devices = report["devices"].as_array().context("the devices")?;
    let told = devices.iter().map(|one| {
        let so = ["bond", "wanted", "attached", "guest"].map(|key| one[key].clone());
        (one["device"].as_str().unwrap_or_default(), so)
    });
    let told: Vec<_> = told.collect();
    let wanted = [(BOND, VF_ALIAS), (SECOND_BOND, SECOND_VF_ALIAS)].map(|(bond, alias)| {
        let so = [json!(bond), json!(true), json!(true), json!("uses-vf")];
        (format!("device {alias} of {bond}"), so)
    });
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
fn tells_of_both(host: &LibvirtHost) -> Result<()> {
    let told: Value = serde_json::from_str(&operate(host, &["status", DOMAIN, "--json"])?)?;
    let bonds = told["guest"]["status"]["bonds"].as_array();
    let bonds = bonds.with_context(|| format!("no bonds: {told:#}"))?;
    let traffic = bonds.iter().map(|bond| (&bond["name"], &bond["traffic"]));
    let traffic: Vec<_> = traffic.collect();
    let (first, second, vf) = (json!(BOND), json!(SECOND_BOND), json!("vf"));
    ensure!(
        traffic == [(&first, &vf), (&second, &vf)],
        "{traffic:?}: {told:#}"
    );
    Ok(())
}
