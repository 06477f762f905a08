//! What one look at the domain shows that would end an evacuation after it had begun.

use crate::evacuate::{Cause, CauseCode, Device, Obstacles, Spec};
use crate::hypervisor::{DomainFacts, Nic};
use crate::words::{printable, quoted};
use crate::xml::domain::{is_transient, is_usb, kind_of};
use crate::xml::{Bond, Bonds};

/// Each with the device that it is about, and what to do. `migratable` are aliases of devices that the operator
/// knows to be migrated by the hypervisor itself.
pub(super) fn obstacles(
    spec: &Spec,
    facts: &DomainFacts,
    bonds: Option<&Bonds>,
    migratable: &[String],
) -> Obstacles {
    let stays = staying(spec, facts, migratable);
    let bond_of = |device: &Device| {
        let named = |bond: &&Bond| device.bond() == Some(bond.name.as_str());
        bonds?.bonds.iter().find(named)
    };
    let devices = spec.devices.iter().enumerate();
    let unknown = devices.filter_map(|(number, device)| {
        let cause = unknown_vf(spec, bond_of(device)?, device, &facts.nics)?;
        Some((number, cause))
    });
    Obstacles {
        certain: stays.into_iter().collect(),
        unknown_vfs: unknown.collect(),
    }
}

/// Devices that would be left in the domain. libvirt and QEMU refuse to migrate with a device that they can't
/// migrate, and tell so only once the VFs have gone.
fn staying(spec: &Spec, facts: &DomainFacts, migratable: &[String]) -> Option<Cause> {
    let leaves = |nic: &Nic| {
        let mut sources = spec.devices.iter().filter_map(|one| one.source.as_ref());
        sources.any(|vf| vf.identity.is(nic))
    };
    let stays: Vec<&Nic> = facts
        .nics
        .iter()
        .filter(|nic| nic.kind.is_passed_through() && !leaves(nic))
        .filter(|nic| !migratable.contains(&nic.alias) && !stays_well(&nic.xml))
        .collect();
    let first = stays.first()?;
    let names: Vec<String> = stays.iter().map(|nic| described(nic)).collect();
    let domain = quoted(&spec.domain);
    let alias = quoted(&first.alias);
    let without = spec.devices.iter().find(|one| one.source.is_none());
    let hint = match without.and_then(Device::bond) {
        Some(bond) => format!(
            " If one of them is the VF of {}, of whose <vf> elements none means it, name it by --source-vf {alias}, \
             or give it an alias of your own and write that into the bonds: `<vf alias='ua-vf0'/>`.",
            printable(bond)
        ),
        None => String::new(),
    };
    let message = format!(
        "a migration takes no pass-through device along, and of domain {} would stay attached: {}.{hint} Let go of \
         what stays by --detach {alias} (what takes its place on the destination: --device {alias}=FILE), detach it \
         by hand (`virsh detach-device-alias {domain} {alias} --live`), or name it by --migratable if the hypervisor \
         can migrate it",
        printable(&spec.domain),
        names.join(", "),
    );
    Some(Cause::new(CauseCode::DeviceStays, message))
}

/// The hypervisor migrates with such a device.
fn stays_well(xml: &str) -> bool {
    is_transient(xml) || is_usb(xml)
}

/// A device for people: alias, what it is, and where it is.
fn described(nic: &Nic) -> String {
    let mut what: Vec<String> = kind_of(&nic.xml).into_iter().collect();
    what.extend(nic.pci_source.map(|pci| format!("PCI function {pci}")));
    what.extend(nic.mac.map(|mac| format!("MAC {mac}")));
    let alias = match nic.alias.as_str() {
        "" => "a device without an alias",
        alias => alias,
    };
    if what.is_empty() {
        return printable(alias);
    }
    printable(&format!("{alias} ({})", what.join(", ")))
}

/// A VF of a MAC that the guest was never told of stays unused in it.
fn unknown_vf(spec: &Spec, bond: &Bond, device: &Device, nics: &[Nic]) -> Option<Cause> {
    let nic = &device.arriving()?;
    if bond.may_mean(nic, nics) {
        return None;
    }
    let mac = nic.mac?;
    let message = format!(
        "the destination's VF ({}) has the MAC {mac}, and no <vf> of bond {} has that MAC or its alias, so the guest \
         would not use it; add `<vf mac='{mac}'/>` to the bond (`tandem-host xml set {}`), or give the VF in the \
         file the MAC of one that is there",
        described(nic),
        bond.name,
        quoted(&spec.domain)
    );
    Some(Cause::new(CauseCode::UnknownVf, message))
}

#[cfg(test)]
mod tests {
    use super::super::args::parse_migrate;
    use super::super::spec::spec_of;
    use super::super::text_file::DeviceFile;
    use super::*;
    use crate::xml::BONDS_NAMESPACE;
    use crate::xml::domain::DomainXml;

    const STANDBY: &str = "<interface type='bridge'><mac address='52:54:00:00:00:01'/><alias name='net0'/></interface>";
    const VF: &str = "<interface type='hostdev'><mac address='52:54:00:00:00:02'/><source><address type='pci' \
                      domain='0' bus='0x3b' slot='2' function='1'/></source><alias name='ua-vf0'/></interface>";
    const GPU: &str = "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='0x3b' slot='0' \
                       function='0'/></source><alias name='hostdev1'/></hostdev>";
    const USB: &str = "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/></source>\
                       <alias name='hostdev2'/></hostdev>";
    const MDEV: &str = "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='u'/></source>\
                        <alias name='hostdev3'/></hostdev>";

    /// What stands in the way of a domain with these devices and `<vf>` elements.
    fn found(devices: &str, vfs: &str, words: &[&str], file: Option<&str>) -> Vec<Cause> {
        let xml = format!(
            "<domain><name>g1</name><metadata><bonds xmlns='{BONDS_NAMESPACE}'><bond name='bond0'>\
             <standby mac='52:54:00:00:00:01'/>{vfs}</bond></bonds></metadata><devices>{STANDBY}{devices}\
             </devices></domain>"
        );
        let domain = DomainXml::parse(&xml).unwrap();
        let facts = DomainFacts {
            nics: domain.nics,
            ..DomainFacts::absent("g1")
        };
        let bonds = domain.bonds.unwrap().unwrap().bonds;
        let words = [&["g1", "qemu+ssh://b/system"], words].concat();
        let arguments = parse_migrate(&words);
        let file = file.map(|text| DeviceFile {
            name: None,
            text: text.to_owned(),
        });
        let files: Vec<DeviceFile> = file.into_iter().collect();
        let spec = spec_of(&arguments, &facts, Some(&bonds), &files, &[]).unwrap();
        let found = obstacles(&spec, &facts, Some(&bonds), &arguments.migratable);
        let certain = found.certain.into_iter();
        certain.chain(found.unknown_vfs.into_values()).collect()
    }

    #[test]
    fn each_device_that_would_stay_is_named() {
        let known = "<vf alias='ua-vf0'/>";
        assert_eq!(found(VF, known, &[], None), []);
        let all = found(&[VF, GPU, USB, MDEV].concat(), known, &[], None);
        let [cause] = all.as_slice() else {
            panic!("{all:?}")
        };
        assert_eq!(cause.code, CauseCode::DeviceStays);
        for words in [
            "hostdev1 (<hostdev type='pci'>, PCI function 0000:3b:00.0)",
            "hostdev3 (<hostdev type='mdev'>)",
            "virsh detach-device-alias g1 hostdev1 --live",
        ] {
            assert!(cause.message.contains(words), "{}", cause.message);
        }
        assert!(!cause.message.contains("ua-vf0"), "{}", cause.message);
        // libvirt migrates with it.
        assert!(!cause.message.contains("hostdev2"), "{}", cause.message);
        assert_eq!(found(&[VF, USB].concat(), known, &[], None), []);
        let some = found(
            &[VF, GPU, MDEV].concat(),
            known,
            &["--migratable", "hostdev3"],
            None,
        );
        assert!(!some[0].message.contains("hostdev3"), "{}", some[0].message);
        let named = GPU.replace("hostdev1", "ua-gpu");
        assert_eq!(
            found(&[VF, &named].concat(), known, &["--detach", "ua-gpu"], None),
            []
        );
        // The hypervisor itself takes it away.
        let teamed = GPU.replace("<source>", "<teaming type='transient'/><source>");
        assert_eq!(found(&[VF, &teamed].concat(), known, &[], None), []);
    }

    #[test]
    fn a_vf_that_no_element_means_is_said_to_stay() {
        let hostdev = GPU.replace("hostdev1", "hostdev0");
        let vfs = "<vf mac='52:54:00:00:00:02' driver='igbvf'/>";
        let found_here = found(&hostdev, vfs, &[], None);
        let message = &found_here[0].message;
        for words in ["hostdev0", "VF of bond0", "--source-vf hostdev0"] {
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(found(&hostdev, vfs, &["--source-vf", "hostdev0"], None), []);
    }

    #[test]
    fn the_guest_has_to_know_the_vf_that_comes() {
        let file = |mac: &str, alias: &str| {
            format!(
                "<interface type='hostdev'><mac address='{mac}'/><source><address type='pci' domain='0' bus='4' \
                 slot='2' function='1'/></source>{alias}</interface>"
            )
        };
        let vfs = "<vf alias='ua-vf0' mac='52:54:00:00:00:02'/><vf mac='52:54:00:00:00:03'/>";
        let foreign = file("52:54:00:00:00:99", "");
        let causes = found(VF, vfs, &[], Some(&foreign));
        assert_eq!(causes[0].code, CauseCode::UnknownVf);
        assert!(causes[0].message.contains("<vf mac='52:54:00:00:00:99'/>"));
        for known in [
            file("52:54:00:00:00:02", ""),
            file("52:54:00:00:00:03", ""),
            // Its MAC is handed over before it comes.
            file("52:54:00:00:00:99", "<alias name='ua-vf0'/>"),
        ] {
            assert_eq!(found(VF, vfs, &[], Some(&known)), [], "{known}");
        }
        // The guest is told the MAC of the VF that it has.
        let same = file("52:54:00:00:00:02", "");
        let by_alias = "<vf alias='ua-vf0'/>";
        assert_eq!(found(VF, by_alias, &[], Some(&same)), []);
        let causes = found(VF, by_alias, &[], Some(&foreign));
        assert_eq!(causes[0].code, CauseCode::UnknownVf);
        // The guest may know it by its driver.
        let by_driver = "<vf alias='ua-vf0'/><vf driver='igbvf'/>";
        assert_eq!(found(VF, by_driver, &[], Some(&foreign)), []);
    }
}
