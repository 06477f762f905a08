//! Whether a VF can have its bond's MAC, as far as this host sees: the guest learns it only when it tries.

use std::collections::HashMap;

use tandem_core::policy::MacPolicy;
use tandem_core::types::PciAddress;

use crate::hypervisor::{Nic, NicKind, is_local_uri};
use crate::pf::{VfSetting, leads_to, vf_setting};
use crate::words::printable;
use crate::xml::domain::uplink_of;
use crate::xml::{Bond, Bonds};

/// Says on standard error what may keep a VF that the domain has from carrying traffic, and returns it; stops nothing.
pub(super) async fn warn(domain: &str, uri: &str, bonds: &Bonds, nics: &[Nic]) -> Vec<String> {
    let mut settings = HashMap::new();
    if is_local_uri(uri) {
        let vfs = bonds
            .bonds
            .iter()
            .filter_map(|bond| bond.vf(nics)?.pci_source);
        for vf in vfs {
            settings.extend(vf_setting(vf).await.map(|setting| (vf, setting)));
        }
    }
    let mut warnings = Vec::new();
    for bond in &bonds.bonds {
        let Some(vf) = bond.vf(nics).filter(|vf| vf.kind.can_be_vf()) else {
            continue;
        };
        let mac = doubt(bond, vf, nics, &settings);
        warnings.extend(mac);
        warnings.extend(one_switch(bond, vf, nics, &settings, leads_to));
    }
    tell(domain, &warnings);
    warnings
}

fn tell(domain: &str, warnings: &[String]) {
    for text in warnings {
        eprintln!("tandem-host: domain {}: {text}", printable(domain));
    }
}

/// The same of a VF that will come: its PF is on the other host, which is not asked.
pub(super) fn warn_of_arriving(
    domain: &str,
    bond: &Bond,
    arriving: &Nic,
    nics: &[Nic],
) -> Option<String> {
    let text = doubt(bond, arriving, nics, &HashMap::new())?;
    let text = format!("on the destination: {text}");
    tell(domain, std::slice::from_ref(&text));
    Some(text)
}

/// The PF's switch knows one place for a MAC: the VF's, from the moment that it is attached.
fn one_switch(
    bond: &Bond,
    vf: &Nic,
    nics: &[Nic],
    settings: &HashMap<PciAddress, VfSetting>,
    leads_to: impl Fn(&str, &str) -> bool,
) -> Option<String> {
    let setting = settings.get(&vf.pci_source?)?;
    let standby = bond.standby_device(nics)?;
    let uplink = uplink_of(&standby.xml)?;
    let same_mac = standby.mac.is_some() && vf.mac.or(setting.mac) == standby.mac;
    if !same_mac || !leads_to(&uplink, &setting.pf) {
        return None;
    }
    Some(format!(
        "{}: the VF {} has the MAC of its standby, and the standby's way out ({}) is the VF's own PF {}: its switch sends \
         all frames for the guest to the VF as soon as that is attached, and they are lost until the guest uses it. Give \
         the standby another uplink, or the VF a MAC of its own and trust",
        bond.name,
        printable(&vf.alias),
        printable(&uplink),
        printable(&setting.pf)
    ))
}

/// Why a VF may not get the MAC of its bond.
fn doubt(
    bond: &Bond,
    vf: &Nic,
    nics: &[Nic],
    settings: &HashMap<PciAddress, VfSetting>,
) -> Option<String> {
    if bond.mac != MacPolicy::Standby {
        return None;
    }
    let standby = bond.standby_device(nics).and_then(|nic| nic.mac);
    let standby = standby.or(bond.standby.guest.mac)?;
    let setting = vf.pci_source.and_then(|vf| settings.get(&vf));
    let mac = vf.mac.or(setting.and_then(|setting| setting.mac));
    if mac == Some(standby) || setting.and_then(|setting| setting.trusted) == Some(true) {
        return None;
    }
    let whose = match mac {
        Some(mac) => format!("the MAC {mac}, and its bond that of the standby"),
        None => "an unknown MAC, and its bond that of the standby".to_owned(),
    };
    let pf = match setting {
        Some(VfSetting {
            pf,
            number,
            trusted: Some(_),
            ..
        }) => {
            format!("{} does not trust its VF {number}", printable(pf))
        }
        Some(VfSetting { pf, number, .. }) => {
            format!(
                "{} does not say whether it trusts its VF {number}",
                printable(pf)
            )
        }
        None => "whether its PF trusts it is unknown".to_owned(),
    };
    let give = match vf.kind {
        NicKind::Hostdev => format!("`ip link set PF vf N mac {standby}`"),
        _ => format!("`<mac address='{standby}'/>` in its XML"),
    };
    Some(format!(
        "{}: the VF {} has {whose}; {pf}. An untrusted VF is mostly not let have another MAC, and stays unused in the \
         guest (mac-refused). Give it the standby's ({give}), trust it (`ip link set PF vf N trust on`), or write \
         mac='follow' into the bond",
        bond.name,
        printable(&vf.alias),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::Document;
    use crate::xml::domain::DomainXml;

    const BOND: &str = "<standby mac='52:54:00:00:00:01'/><vf alias='ua-vf0'/>";

    fn bonds_of(attributes: &str) -> String {
        format!(
            "<bonds xmlns='https://github.com/tandem-vf/tandem/xmlns/bonds/1'><bond name='bond0' {attributes}>{BOND}</bond></bonds>"
        )
    }

    fn nics_of(mac: &str) -> Vec<Nic> {
        let domain = format!(
            "<domain><devices><interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/>
             <alias name='net0'/></interface><interface type='hostdev'><mac address='{mac}'/><source><address type='pci' domain='0' bus='1' slot='16'
             function='0'/></source><alias name='ua-vf0'/></interface></devices></domain>"
        );
        DomainXml::parse(&domain).unwrap().nics
    }

    fn doubt_of(attributes: &str, mac: &str, setting: Option<Option<bool>>) -> Option<String> {
        let document = Document::parse(&bonds_of(attributes)).unwrap();
        let nics = nics_of(mac);
        let bond = &document.bonds.bonds[0];
        let vf = bond.vf(&nics).unwrap();
        let settings = setting.map(|trusted| {
            let setting = VfSetting {
                pf: "pf0".to_owned(),
                number: 0,
                mac: vf.mac,
                trusted,
            };
            (vf.pci_source.unwrap(), setting)
        });
        doubt(bond, vf, &nics, &settings.into_iter().collect())
    }

    #[test]
    fn a_vf_that_would_be_refused_its_bonds_mac_is_told_with_what_to_do() {
        let own = "52:54:00:00:00:02";
        let text = doubt_of("", own, Some(Some(false))).unwrap();
        for part in [
            "bond0",
            "ua-vf0",
            own,
            "pf0 does not trust its VF 0",
            "mac-refused",
            "52:54:00:00:00:01",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let unknown = doubt_of("", own, None).unwrap();
        assert!(
            unknown.contains("whether its PF trusts it is unknown"),
            "{unknown}"
        );
        assert!(
            doubt_of("", own, Some(None))
                .unwrap()
                .contains("pf0 does not say")
        );
    }

    #[test]
    fn a_pf_that_is_the_standbys_way_out_too_is_told() {
        let document = Document::parse(&bonds_of("")).unwrap();
        let bond = &document.bonds.bonds[0];
        let told = |mac: &str, joins: bool| {
            let nics = nics_of(mac);
            let vf = bond.vf(&nics).unwrap();
            let setting = VfSetting {
                pf: "pf0".to_owned(),
                number: 0,
                mac: vf.mac,
                trusted: Some(true),
            };
            let settings = [(vf.pci_source.unwrap(), setting)].into();
            one_switch(bond, vf, &nics, &settings, |uplink, pf| {
                joins && (uplink, pf) == ("br0", "pf0")
            })
        };
        let text = told("52:54:00:00:00:01", true).unwrap();
        for part in ["br0", "pf0", "another uplink"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(told("52:54:00:00:00:02", true), None);
        assert_eq!(told("52:54:00:00:00:01", false), None);
    }

    #[test]
    fn forms_that_work_are_not_doubted() {
        let own = "52:54:00:00:00:02";
        assert_eq!(doubt_of("", "52:54:00:00:00:01", Some(Some(false))), None);
        assert_eq!(doubt_of("", "52:54:00:00:00:01", None), None);
        assert_eq!(doubt_of("", own, Some(Some(true))), None);
        assert_eq!(doubt_of("mac='follow'", own, Some(Some(false))), None);
    }
}
