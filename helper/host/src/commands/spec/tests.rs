//! Which device is which.

use super::*;
use crate::hypervisor::NicKind;
use crate::xml::device::parse_device;

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
        spec_of(&args::parse_migrate(words), &facts, None, &[], &[])
    };
    let there = ["g1", "qemu+ssh://b/system"];
    let asked = spec(&there).unwrap();
    assert!(asked.asks_guest(Side::Source) && !asked.asks_guest(Side::Destination));
    assert!(
        spec(&["g1", "qemu+unix:///system?socket=/b"])
            .unwrap()
            .asks_guest(Side::Destination)
    );
    let from =
        |more: &[&'static str]| spec(&[&there[..], &["-c", "qemu+ssh://a/system"], more].concat());
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
fn a_carried_domain_needs_no_vf_and_no_guest() {
    let standby = nic("net0", "52:54:00:00:00:01", NicKind::Interface);
    let vf = nic("ua-vf", "52:54:00:00:00:02", NicKind::Hostdev);
    let spec = |nics: &[Nic], words: &[&str]| {
        let facts = DomainFacts {
            nics: nics.to_vec(),
            ..DomainFacts::absent("g1")
        };
        let words = [&["g1", "qemu+unix:///system?socket=/b"], words].concat();
        spec_of(&args::parse_migrate(&words), &facts, None, &[], &[]).unwrap()
    };
    let alone = spec(std::slice::from_ref(&standby), &["--carry"]);
    assert_eq!((alone.devices.len(), alone.agent), (0, AgentUse::Never));
    let plain = spec(std::slice::from_ref(&standby), &[]);
    assert_eq!((plain.devices.len(), plain.agent), (1, AgentUse::Required));
    let with_vf = spec(&[standby, vf], &["--carry=tap0"]);
    assert_eq!(
        (with_vf.devices.len(), with_vf.agent),
        (1, AgentUse::Required)
    );
}

#[test]
fn a_domain_without_a_bond_lets_a_device_go_without_a_guest() {
    let facts = DomainFacts {
        nics: vec![nic("hostdev0", "52:54:00:00:00:02", NicKind::Hostdev)],
        ..DomainFacts::absent("g1")
    };
    let words = [
        "g1",
        "qemu+unix:///system?socket=/b",
        "--detach",
        "hostdev0",
    ];
    let spec = spec_of(&args::parse_migrate(&words), &facts, None, &[], &[]).unwrap();
    assert_eq!((spec.devices.len(), spec.agent), (1, AgentUse::Never));
    assert_eq!(spec.devices[0].role, DeviceRole::LetGo);
}

#[test]
fn a_vf_of_a_network_comes_back_from_that_network() {
    const MAC: &str = "<mac address='52:54:00:00:00:02'/>";
    let in_guest = |bus: u8| {
        format!(
            "<alias name='ua-vf'/><address type='pci' domain='0' bus='{bus}' slot='0' function='0'/>"
        )
    };
    let live = format!(
        "<interface type='hostdev'>{MAC}<source><address type='pci' domain='0' bus='1' slot='2' function='1'/>\
         </source>{}</interface>",
        in_guest(9)
    );
    let configured = format!(
        "<interface type='network'>{MAC}<source network='vfs'/>{}</interface>",
        in_guest(5)
    );
    let live = parse_device(&live).unwrap();
    let facts = DomainFacts {
        nics: vec![live.clone()],
        ..DomainFacts::absent("g1")
    };
    let words = args::parse_migrate(&["g1", "qemu+unix:///system?socket=/b"]);
    let spec = spec_of(&words, &facts, None, &[], &[]).unwrap();
    let with = |configured: &str| {
        let mut spec = spec.clone();
        let nic = parse_device(configured).unwrap();
        from_their_networks(&mut spec, &[nic]);
        spec.devices[0].source.clone().unwrap()
    };
    // Its address in the guest may be taken meanwhile; the one that it has now is free once it has left.
    let vf = with(&configured);
    let kept = &live.xml[live.xml.find("<alias").unwrap()..];
    let device = format!("<interface type='network'><source network='vfs'/>{MAC}{kept}");
    assert_eq!(vf.device, device);
    assert!(vf.identity.is(&live) && vf.identity.pci.is_none());
    // Another one, or one that is configured by its function, changes nothing.
    let other = configured.replace("ua-vf", "ua-other");
    for same in [&other, &live.xml] {
        assert_eq!(Some(&with(same)), spec.devices[0].source.as_ref());
    }
}

/// libvirt would plug in a second one, with the MAC of the first.
#[test]
fn an_interface_of_a_network_is_told_from_others_by_an_alias_of_its_own() {
    let device = "<interface type='network'><mac address='52:54:00:00:00:02'/><source network='n'/></interface>";
    let named = with_own_alias(device, "bond0.5");
    let vf = vf_of_device(&named, &[], None).unwrap();
    assert_eq!(vf.identity.alias.as_deref(), Some("ua-tandem-vf-bond0_2e5"));
    let old = device.replace("</interface>", "<alias name='net7'/></interface>");
    let again = vf_of_device(&with_own_alias(&old, "bond0"), &[], None).unwrap();
    assert_eq!(again.identity.alias.as_deref(), Some("ua-tandem-vf-bond0"));
    assert!(!again.device.contains("net7"), "{}", again.device);
    for kept in [
        device.replace("</interface>", "<alias name='ua-vf'/></interface>"),
        "<interface type='hostdev'><source><address type='pci' domain='0' bus='1' slot='2' function='1'/></source>\
         </interface>"
            .to_owned(),
    ] {
        assert_eq!(with_own_alias(&kept, "bond0"), kept);
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

fn bonds() -> Bonds {
    let bond = |number: u8| {
        format!(
            "<bond name='bond{number}'><standby mac='52:54:00:00:0{number}:01'/>\
             <vf alias='ua-vf{number}' mac='52:54:00:00:0{number}:02'/></bond>"
        )
    };
    let text = format!(
        "<bonds xmlns='{}'>{}{}</bonds>",
        crate::xml::BONDS_NAMESPACE,
        bond(0),
        bond(1)
    );
    crate::xml::Document::parse(&text).unwrap().bonds
}

fn domain() -> DomainFacts {
    let vf = |number: u8| Nic {
        xml: format!("<interface type='hostdev' n='{number}'/>"),
        ..nic(
            &format!("ua-vf{number}"),
            &format!("52:54:00:00:0{number}:02"),
            NicKind::HostdevInterface,
        )
    };
    let gpu = nic("ua-gpu", "", NicKind::Hostdev);
    DomainFacts {
        nics: vec![vf(0), vf(1), gpu],
        ..DomainFacts::absent("g1")
    }
}

fn file(name: Option<&str>, text: &str) -> DeviceFile {
    DeviceFile {
        name: name.map(str::to_owned),
        text: text.to_owned(),
    }
}

fn several(words: &[&str], vfs: &[DeviceFile], back: &[DeviceFile]) -> anyhow::Result<Spec> {
    let words = [&["g1", "qemu+ssh://b/system"], words].concat();
    let bonds = bonds();
    spec_of(
        &args::parse_migrate(&words),
        &domain(),
        Some(&bonds),
        vfs,
        back,
    )
}

#[test]
fn all_bonds_and_what_is_let_go_are_evacuated() {
    let comes = |mac: &str| {
        format!("<interface type='network'><mac address='{mac}'/><source network='n'/></interface>")
    };
    let by_mac = file(None, &comes("52:54:00:00:01:02"));
    let by_name = file(Some("bond0"), &comes("52:54:00:00:00:99"));
    let gpu = file(
        Some("ua-gpu"),
        "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='9' \
                   slot='0' function='0'/></source></hostdev>",
    );
    let spec = several(&[], &[by_mac.clone(), by_name], &[gpu]).unwrap();
    let told: Vec<_> = spec
        .devices
        .iter()
        .map(|one| (one.describe(Side::Source), one.destination.is_some()))
        .collect();
    let expected = [
        "device ua-vf0 of bond0",
        "device ua-vf1 of bond1",
        "device ua-gpu",
    ];
    assert_eq!(told, expected.map(|name| (name.to_owned(), true)));
    assert_eq!(
        spec.devices[0].destination.as_ref().unwrap().guest_mac,
        "52:54:00:00:00:99".parse().ok()
    );
    let some = several(&["--detach", "ua-gpu", "--bond", "bond1"], &[by_mac], &[]).unwrap();
    assert_eq!(some.bonds(), ["bond1"]);
    assert!(some.devices[1].source.is_some() && some.devices[1].destination.is_none());
}

#[test]
fn only_what_could_come_back_is_let_go() {
    let mut facts = domain();
    facts.nics.push(nic("ua-usb", "", NicKind::OtherHostdev));
    let back = file(Some("ua-usb"), "<hostdev mode='subsystem' type='usb'/>");
    for (words, back) in [
        (&["--detach", "ua-usb"][..], vec![]),
        (&[], vec![back]),
        (&["--detach", "ua-gpu", "--detach", "ua-usb"], vec![]),
    ] {
        let words = [&["g1", "qemu+ssh://b/system"], words].concat();
        let arguments = args::parse_migrate(&words);
        let error = spec_of(&arguments, &facts, Some(&bonds()), &[], &back).unwrap_err();
        let error = format!("{error:#}");
        for said in [
            "only PCI devices",
            "virsh detach-device-alias g1 ua-usb --live",
        ] {
            assert!(error.contains(said), "{error}");
        }
    }
}

#[test]
fn what_is_not_clear_is_not_guessed() {
    let stranger = file(
        None,
        "<interface type='network'><mac address='52:54:00:00:00:99'/><source network='n'/></interface>",
    );
    let hostdev = file(
        Some("bond0"),
        "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='9' \
                       slot='0' function='0'/></source></hostdev>",
    );
    let twin = DeviceFile {
        name: Some("bond1".to_owned()),
        ..hostdev.clone()
    };
    for (words, vfs, back, said) in [
        (&[][..], vec![stranger.clone()], vec![], "--vf BOND=FILE"),
        (
            &[],
            vec![file(Some("bond7"), &stranger.text)],
            vec![],
            "no bond bond7",
        ),
        (
            &[],
            vec![hostdev.clone(), hostdev.clone()],
            vec![],
            "two files",
        ),
        (&[], vec![hostdev.clone(), twin], vec![], "named twice"),
        (
            &["--detach", "hostdev9"],
            vec![],
            vec![],
            "no pass-through device hostdev9",
        ),
        (
            &[],
            vec![],
            vec![file(None, &hostdev.text)],
            "--device ALIAS=FILE",
        ),
        (&["--source-vf", "ua-vf0"], vec![], vec![], "2 bonds"),
    ] {
        let error = several(words, &vfs, &back).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[test]
fn a_vf_without_a_mac_gets_the_one_that_the_guest_knows() {
    let known: Mac = "52:54:00:00:00:02".parse().unwrap();
    let bare = "<!-- > --><interface type='network' x='a>b'>\n<source network='n'/></interface>";
    let text = with_mac_of(bare, Some(known));
    let nic = read_device(&text).unwrap();
    assert_eq!(nic.mac, Some(known), "{text}");
    assert!(nic.xml.contains("<source network='n'/>"), "{text}");
    let own = "<interface type='network'><mac address='52:54:00:00:00:99'/><source network='n'/></interface>";
    for as_it_is in [
        own,
        "<hostdev mode='subsystem'><source/></hostdev>",
        "{\"id\": \"x\"}",
    ] {
        assert_eq!(with_mac_of(as_it_is, Some(known)), as_it_is);
    }
    assert_eq!(with_mac_of(bare, None), bare);
    let bare = "<interface type='network'><source network='n'/></interface>";
    let spec = several(&[], &[file(Some("bond0"), bare)], &[]).unwrap();
    let vfs = &spec.devices[0];
    assert!(vfs.destination.as_ref().unwrap().guest_mac.is_some());
    assert_eq!(
        vfs.destination.as_ref().unwrap().guest_mac,
        vfs.source.as_ref().unwrap().guest_mac
    );
}
