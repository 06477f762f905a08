//! What the operator asked for, put together with what the source shows.

use anyhow::{Context as _, bail};
use tandem_core::types::Mac;

use super::args;
use crate::evacuate::{AgentUse, Spec, Vf, VfIdentity};
use crate::hypervisor::{DomainFacts, Nic, NicKind, is_local_uri};
use crate::trust::check_device;
use crate::xml::domain::parse_device;
use crate::xml::{Bond, Bonds};

/// The spec of `migrate`. `device` is the text of `--vf FILE`.
///
/// # Errors
/// If it is not clear which NIC is the VF, or its description can't be read.
pub fn spec_of(
    arguments: &args::Evacuation,
    facts: &DomainFacts,
    bonds: Option<&Bonds>,
    device: Option<&str>,
) -> anyhow::Result<Spec> {
    let bond = choose_bond(arguments.bond.as_deref(), bonds)?;
    let source = source_vf(arguments.source_vf.as_deref(), bond, &facts.nics)?;
    let destination_vf = device
        .map(|text| vf_of_device(text, &facts.nics, source))
        .transpose()
        .context("--vf")?;
    let agent = agent_use(arguments)?;
    let name = bond.map(|bond| bond.name.to_string());
    let spec = Spec {
        domain: arguments.domain.clone(),
        source_uri: arguments.common.connect.uri.clone(),
        destination_uri: arguments.destination.clone(),
        bond: name.or_else(|| arguments.bond.clone()),
        source_vf: source.map(|nic| vf_of(nic, nic.xml.clone(), &facts.nics)),
        destination_vf,
        agent,
        reaches_destination_agent: is_local_uri(&arguments.destination),
        configure: bonds.is_some(),
        yes_degraded: arguments.yes_degraded,
    };
    spec.validate()?;
    Ok(spec)
}

/// The bond of the domain's XML that the evacuation is about.
pub(super) fn bond_of<'a>(spec: &Spec, bonds: Option<&'a Bonds>) -> Option<&'a Bond> {
    let named = |bond: &&Bond| spec.bond.as_deref() == Some(bond.name.as_str());
    bonds?.bonds.iter().find(named)
}

/// The destination's VF as a device of the domain, as far as its description tells.
pub(super) fn arriving(spec: &Spec) -> Vec<Nic> {
    let vf = spec.destination_vf.iter();
    vf.filter_map(|vf| read_nic(&vf.device).ok()).collect()
}

fn read_nic(text: &str) -> anyhow::Result<Nic> {
    if text.trim_start().starts_with('{') {
        return nic_of_json(text);
    }
    Ok(parse_device(text)?)
}

/// The path of a channel on another machine may be another domain's here, so it is never opened.
fn agent_use(arguments: &args::Evacuation) -> anyhow::Result<AgentUse> {
    let source = &arguments.common.connect.uri;
    match (arguments.no_agent, arguments.yes_degraded) {
        (true, _) => Ok(AgentUse::Never),
        (false, true) if !is_local_uri(source) => Ok(AgentUse::Never),
        (false, false) if !is_local_uri(source) => bail!(
            "the guest's channel is on the machine of {source}, which can't be opened from here: run \
             tandem-host there, or go on without the guest by --no-agent"
        ),
        (false, true) => Ok(AgentUse::IfThere),
        (false, false) => Ok(AgentUse::Required),
    }
}

pub(super) fn choose_bond<'a>(
    name: Option<&str>,
    bonds: Option<&'a Bonds>,
) -> anyhow::Result<Option<&'a Bond>> {
    let Some(bonds) = bonds else {
        return Ok(None);
    };
    match (name, bonds.bonds.as_slice()) {
        (None, [only]) => Ok(Some(only)),
        (None, several) => {
            bail!(
                "the domain's XML has {} bonds; name one with --bond",
                several.len()
            )
        }
        (Some(name), all) => {
            let found = all.iter().find(|bond| bond.name.as_str() == name);
            found.map(Some).with_context(|| {
                format!("the domain's XML has no bond {name}; see `tandem-host xml show`")
            })
        }
    }
}

/// The VF that the domain has now, if it has one.
fn source_vf<'a>(
    named: Option<&str>,
    bond: Option<&Bond>,
    nics: &'a [Nic],
) -> anyhow::Result<Option<&'a Nic>> {
    if let Some(named) = named {
        let mac: Option<Mac> = named.parse().ok();
        let fits = |nic: &&Nic| nic.alias == named || (mac.is_some() && nic.mac == mac);
        let fitting: Vec<&Nic> = nics.iter().filter(fits).collect();
        return match fitting.as_slice() {
            [one] => Ok(Some(one)),
            [] => bail!("--source-vf: the domain has no NIC {named}; see `virsh dumpxml`"),
            _ => bail!(
                "--source-vf: {named} fits {} NICs; name an alias",
                fitting.len()
            ),
        };
    }
    if let Some(bond) = bond {
        return Ok(bond.vf(nics));
    }
    let passed: Vec<&Nic> = nics.iter().filter(|nic| nic.kind.can_be_vf()).collect();
    match passed.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => bail!(
            "the domain has {} pass-through devices and no bond in its XML; name the VF with --source-vf",
            passed.len()
        ),
    }
}

fn vf_of(nic: &Nic, device: String, nics: &[Nic]) -> Vf {
    // A MAC that another NIC has too says nothing, such as one that VF and standby share.
    let same = nics.iter().filter(|other| other.mac == nic.mac);
    let others = same.filter(|other| other.alias != nic.alias || other.xml != nic.xml);
    let mac = nic.mac.filter(|_| others.count() == 0);
    // libvirt gives out other aliases again and again; QEMU's are all chosen by people.
    let chosen = nic.alias.starts_with("ua-") || device.trim_start().starts_with('{');
    Vf {
        identity: VfIdentity {
            pci: nic.pci_source,
            alias: Some(nic.alias.clone()).filter(|alias| chosen && !alias.is_empty()),
            mac,
        },
        guest_mac: nic.mac,
        device,
    }
}

/// The VF that a file describes. It may have the MAC of the source's.
pub(super) fn vf_of_device(text: &str, nics: &[Nic], source: Option<&Nic>) -> anyhow::Result<Vf> {
    check_device(text)?;
    let nic = read_nic(text)?;
    let others: Vec<Nic> = nics
        .iter()
        .filter(|nic| source.is_none_or(|source| source != *nic))
        .cloned()
        .collect();
    Ok(vf_of(&nic, text.to_owned(), &others))
}

/// What `device_add` would make of it, as far as it is of use to recognise the device.
fn nic_of_json(text: &str) -> anyhow::Result<Nic> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    let device = value.get("device").filter(|one| one.is_object());
    let device = device.unwrap_or(&value);
    let word = |key: &str| device.get(key).and_then(serde_json::Value::as_str);
    let pci_source = word("host").and_then(|text| text.parse().ok());
    Ok(Nic {
        alias: word("id").unwrap_or_default().to_owned(),
        mac: word("mac").and_then(|text| text.parse().ok()),
        kind: if pci_source.is_some() {
            NicKind::Hostdev
        } else {
            NicKind::Interface
        },
        pci_source,
        xml: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evacuate::Side;

    fn nic(alias: &str, mac: &str, kind: NicKind) -> Nic {
        Nic {
            alias: alias.to_owned(),
            mac: mac.parse().ok(),
            kind,
            pci_source: None,
            xml: format!("<interface id='{alias}'/>"),
        }
    }

    #[test]
    fn a_guest_on_another_machine_is_not_asked() {
        let spec = |words: &[&str]| {
            let standby = nic("net0", "52:54:00:00:00:01", NicKind::Interface);
            let facts = DomainFacts {
                nics: vec![standby],
                ..DomainFacts::absent("g1")
            };
            spec_of(&args::parse_migrate(words), &facts, None, None)
        };
        let there = ["g1", "qemu+ssh://b/system"];
        let asked = spec(&there).unwrap();
        assert!(asked.asks_guest(Side::Source) && !asked.asks_guest(Side::Destination));
        assert!(
            spec(&["g1", "qemu+unix:///system?socket=/b"])
                .unwrap()
                .asks_guest(Side::Destination)
        );
        let from = |more: &[&'static str]| {
            spec(&[&there[..], &["-c", "qemu+ssh://a/system"], more].concat())
        };
        let error = from(&[]).unwrap_err().to_string();
        assert!(
            error.contains("qemu+ssh://a/system") && error.contains("--no-agent"),
            "{error}"
        );
        for go_on in ["--no-agent", "--yes-degraded"] {
            assert_eq!(from(&[go_on]).unwrap().agent, AgentUse::Never);
        }
    }

    #[test]
    fn a_vf_is_never_recognised_by_what_another_nic_has_too() {
        let standby = nic("net0", "52:54:00:00:00:01", NicKind::Interface);
        let twin = nic("net1", "52:54:00:00:00:01", NicKind::Interface);
        let own = nic("ua-vf", "52:54:00:00:00:02", NicKind::Interface);
        let nics = [standby, twin.clone(), own.clone()];
        assert!(vf_of(&twin, twin.xml.clone(), &nics).identity.is_empty());
        let identity = vf_of(&own, own.xml.clone(), &nics).identity;
        assert_eq!(identity.alias.as_deref(), Some("ua-vf"));
        assert_eq!(identity.mac, own.mac);
        // The destination's VF may have the MAC of the source's, and not the standby's.
        let device = r#"{"id": "vf", "mac": "52:54:00:00:00:02", "driver": "igb"}"#;
        let there = vf_of_device(device, &nics, Some(&own)).unwrap();
        assert_eq!(there.identity.mac, own.mac);
        let taken = device.replace("00:02", "00:01");
        let there = vf_of_device(&taken, &nics, Some(&own)).unwrap();
        assert_eq!(there.identity.mac, None);
    }

    #[test]
    fn without_a_bond_the_only_pass_through_device_is_the_vf() {
        let standby = nic("net0", "52:54:00:00:00:01", NicKind::Interface);
        let vf = nic("hostdev0", "52:54:00:00:00:02", NicKind::HostdevInterface);
        let other = nic("hostdev1", "52:54:00:00:00:03", NicKind::Hostdev);
        let nics = [standby, vf.clone()];
        assert_eq!(source_vf(None, None, &nics).unwrap(), Some(&vf));
        let both = [vf.clone(), other];
        assert!(source_vf(None, None, &both).is_err());
        assert_eq!(source_vf(Some("hostdev0"), None, &both).unwrap(), Some(&vf));
        assert!(source_vf(Some("52:54:00:00:00:09"), None, &both).is_err());
    }
}
