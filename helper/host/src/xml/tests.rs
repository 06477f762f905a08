//! What a domain's XML means, and what hostile XML does not do.

use proptest::prelude::*;
use tandem_core::Policy;
use tandem_core::link::{Address, Route};
use tandem_core::policy::{
    AddressingPolicy, BondPolicy, MacPolicy, Origin, Ownership, PathCheck, PortMatch, Timing,
};
use tandem_core::types::{Mac, PciAddress};

use super::domain::DomainXml;
use super::*;
use crate::hypervisor::{Claim, Nic, NicKind};

fn nic(alias: &str, mac: Option<u8>, kind: NicKind) -> Nic {
    Nic {
        alias: alias.to_owned(),
        mac: mac.map(mac_of),
        kind,
        pci_source: None,
        xml: String::new(),
    }
}

fn mac_of(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0xaa, 0, last])
}

fn by_mac(last: u8) -> PortMatch {
    PortMatch {
        mac: Some(mac_of(last)),
        ..PortMatch::default()
    }
}

fn bond(standby: &str, vfs: &str) -> Bond {
    let text = format!(
        "<bonds xmlns='{BONDS_NAMESPACE}'><bond name='bond0'><standby {standby}/>{vfs}</bond></bonds>"
    );
    Document::parse(&text).unwrap().bonds.bonds.remove(0)
}

fn policy(bond: &Bond, nics: &[Nic]) -> BondPolicy {
    let bonds = Bonds {
        bonds: vec![bond.clone()],
    };
    let mut policy = bonds.policy(nics).unwrap();
    assert_eq!(policy.origin, Origin::Host);
    policy.bonds.remove(0)
}

#[test]
fn aliases_become_what_the_guest_can_see() {
    let nics = [
        nic("ua-s", Some(1), NicKind::Interface),
        nic("ua-vf0", Some(2), NicKind::HostdevInterface),
    ];
    let bond = bond("alias='ua-s'", "<vf alias='ua-vf0'/>");
    assert_eq!(bond.vf(&nics).unwrap().alias, "ua-vf0");
    assert_eq!(bond.standby_device(&nics).unwrap().alias, "ua-s");
    let policy = policy(&bond, &nics);
    assert_eq!(policy.standby, by_mac(1));
    assert_eq!(policy.vfs, [by_mac(2)]);
}

#[test]
fn the_mac_that_a_vf_has_now_is_told_too() {
    let nics = [
        nic("net0", Some(1), NicKind::Interface),
        nic("ua-vf0", Some(9), NicKind::HostdevInterface),
    ];
    let bond = bond(
        "mac='52:54:00:aa:00:01'",
        "<vf alias='ua-vf0' mac='52:54:00:aa:00:02'/><vf mac='52:54:00:aa:00:03'/>",
    );
    assert_eq!(policy(&bond, &nics).vfs, [by_mac(2), by_mac(9), by_mac(3)]);
    assert_eq!(policy(&bond, &nics[..1]).vfs, [by_mac(2), by_mac(3)]);
    // After a migration the alias is the other host's VF, which is an entry of its own.
    let moved = [
        nic("net0", Some(1), NicKind::Interface),
        nic("ua-vf0", Some(3), NicKind::HostdevInterface),
    ];
    assert_eq!(policy(&bond, &moved).vfs, [by_mac(2), by_mac(3)]);
}

#[test]
fn a_hostdev_is_recognised_by_what_is_written() {
    let nics = [
        nic("net0", Some(1), NicKind::Interface),
        nic("ua-h0", None, NicKind::Hostdev),
    ];
    let bond = bond(
        "mac='52:54:00:aa:00:01'",
        "<vf alias='ua-h0' driver='iavf'/>",
    );
    assert_eq!(bond.vf(&nics).unwrap().alias, "ua-h0");
    let driver = PortMatch {
        driver: Some("iavf".to_owned()),
        ..PortMatch::default()
    };
    assert_eq!(policy(&bond, &nics).vfs, [driver]);
}

#[test]
fn a_vf_with_the_standbys_mac_is_the_one_passed_through() {
    let nics = [
        nic("hostdev0", Some(1), NicKind::HostdevInterface),
        nic("net0", Some(1), NicKind::Interface),
    ];
    let mac = "mac='52:54:00:aa:00:01'";
    let bond = bond(
        &format!("{mac} driver='virtio_net'"),
        &format!("<vf {mac} driver='igbvf'/>"),
    );
    assert_eq!(bond.standby_device(&nics).unwrap().alias, "net0");
    assert_eq!(bond.vf(&nics).unwrap().alias, "hostdev0");
    assert_eq!(bond.vf(&nics[1..]), None);
}

#[test]
fn a_bond_whose_only_vf_can_not_be_described_is_refused() {
    let bond = bond("mac='52:54:00:aa:00:01'", "<vf alias='ua-vf0'/>");
    let bonds = Bonds { bonds: vec![bond] };
    let error = bonds.policy(&[]).unwrap_err();
    assert_eq!((error.index, error.key), (0, "vfs"));
}

#[test]
fn faults_name_line_and_element() {
    let fault = |text: &str| {
        let text = text.replace("NS", BONDS_NAMESPACE);
        Document::parse(&text).unwrap_err().to_string()
    };
    let start = "<bonds xmlns='NS'>\n <bond name='b'>\n  <standby mac='52:54:00:aa:00:01'/>\n";
    let end = " </bond>\n</bonds>";
    let unknown = fault(&format!("{start}  <vf mca='x'/>\n{end}"));
    assert_eq!(
        unknown,
        "line 4, column 7, <vf>: unknown attribute `mca`; it may have alias, mac, pci, driver"
    );
    let twice = fault(&format!(
        "{start}  <vf alias='a'/>\n  <timing\n hold-ms='9' hold-max-ms='1'/>\n{end}"
    ));
    assert!(twice.starts_with("line 5, column 3, <timing>: "), "{twice}");
    let missing = fault(&format!("{start}{end}"));
    assert!(
        missing.starts_with("line 2, column 2, <bond>: "),
        "{missing}"
    );
    let other = fault("<bond/>");
    assert!(
        other.starts_with("line 1, column 1, <bond>: it must be <bonds"),
        "{other}"
    );
    let broken = fault("<bonds xmlns='NS'>\n <a></b>");
    assert!(broken.starts_with("line 2"), "{broken}");
}

#[test]
fn hostile_documents_are_refused_without_harm() {
    let deep = format!("{}{}", "<a>".repeat(30_000), "</a>".repeat(30_000));
    assert!(DomainXml::parse(&deep).is_err());
    let deep = format!(
        "<domain>{}{}</domain>",
        "<a>".repeat(210),
        "</a>".repeat(210)
    );
    assert_eq!(DomainXml::parse(&deep).unwrap().nics, []);
    let many = format!("<domain>{}</domain>", "<a/>".repeat(200_000));
    let error = DomainXml::parse(&many).unwrap_err();
    assert!(error.problem.contains("more elements"), "{error}");
    let long = " ".repeat(domain::MAX_BYTES + 1);
    assert!(DomainXml::parse(&long).is_err());
    let laughs = "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]><domain>&b;</domain>";
    let error = DomainXml::parse(laughs).unwrap_err();
    assert!(error.problem.contains("DTD"), "{error}");
    let bonds = format!(
        "<bonds xmlns='{BONDS_NAMESPACE}'>{}</bonds>",
        " ".repeat(bonds::MAX_BYTES)
    );
    assert!(Document::parse(&bonds).is_err());
}

/// Each compares every one with all before it: some 10^9 steps of the parser, for a text below the bound.
#[test]
fn what_would_keep_the_parser_busy_never_gets_there() {
    let attributes: String = (0..60_000).map(|number| format!(" a{number}=''")).collect();
    let metadata = format!("<domain><name>a</name><metadata><x {attributes}/></metadata></domain>");
    let error = DomainXml::parse(&metadata).unwrap_err();
    assert!(error.problem.contains("64 attributes"), "{error}");
    assert!(
        error.place.column < 1000,
        "it read on beyond the 65th: {error}"
    );
    let declared: String = (0..1_000)
        .map(|number| format!("<a xmlns:n{number}='u'/>"))
        .collect();
    let error = DomainXml::parse(&format!("<domain>{declared}</domain>")).unwrap_err();
    assert!(error.problem.contains("256 namespaces"), "{error}");
    let few: String = (0..100).map(|number| format!(" a{number}=''")).collect();
    for error in [
        device::parse_device(&format!("<interface{few}/>")).unwrap_err(),
        Document::parse(&format!("<bonds{few}/>")).unwrap_err(),
    ] {
        assert!(error.problem.contains("64 attributes"), "{error}");
    }
    // A chain of disk images as long as libvirt takes nests as deep.
    let chain = format!(
        "{}{}",
        "<backingStore type='file'>".repeat(200),
        "</backingStore>".repeat(200)
    );
    let disk = format!("<domain><devices><disk>{chain}</disk></devices></domain>");
    DomainXml::parse(&disk).unwrap();
}

#[test]
fn a_domain_shows_bonds_progress_and_what_is_wrong() {
    let domain = |metadata: &str| {
        let text = format!(
            "<domain id='3'><name>g</name><uuid>u</uuid><metadata><x:y xmlns:x='urn:x'/>{metadata}</metadata>\
             <devices><interface type='network'><mac address='52:54:00:aa:00:01'/></interface>\
             <hostdev type='usb'/></devices></domain>"
        );
        DomainXml::parse(&text).unwrap()
    };
    let none = domain("");
    assert_eq!((none.id, none.bonds, none.progress), (Some(3), None, None));
    let kinds: Vec<NicKind> = none.nics.iter().map(|nic| nic.kind).collect();
    assert_eq!(kinds, [NicKind::Interface, NicKind::OtherHostdev]);
    let record = "{\"a\": \"<&>\"}";
    let progress = write::progress_to_metadata(record).replace(
        "<progress>",
        &format!("<progress xmlns='{PROGRESS_NAMESPACE}'>"),
    );
    assert_eq!(domain(&progress).progress.as_deref(), Some(record));
    // Of several who claim it each has its own element.
    let claim = |token: &str, word: &str| {
        let claim = write::claim_to_metadata(word);
        claim.replace(
            "<claim>",
            &format!("<claim xmlns='{CLAIM_NAMESPACE}{token}'>"),
        )
    };
    let odd = [
        claim("", "a"),
        claim("a/b", "b"),
        claim(&"x".repeat(65), "c"),
    ]
    .concat();
    let claims = domain(&[claim("t1", "<&>"), odd, claim("t2", "")].concat()).claims;
    let claims: Vec<(&str, &str)> = claims
        .iter()
        .map(|one| (one.token.as_str(), one.text.as_str()))
        .collect();
    assert_eq!(claims, [("t1", "<&>"), ("t2", "")]);
    let many: String = (0..100)
        .map(|number| claim(&number.to_string(), "x"))
        .collect();
    assert_eq!(domain(&many).claims.len(), Claim::MOST);
    let bonds = format!("\n<t:bonds xmlns:t='{BONDS_NAMESPACE}'>\n<t:bond/>\n</t:bonds>");
    let error = domain(&bonds).bonds.unwrap().unwrap_err();
    assert_eq!((error.place.line, error.element.as_str()), (3, "<bond>"));
}

fn ports() -> impl Strategy<Value = (PortMatch, Vec<PortMatch>)> {
    let entry = (any::<bool>(), any::<bool>(), any::<bool>());
    prop::collection::vec(entry, 2..8).prop_map(|entries| {
        let mut ports: Vec<PortMatch> = entries
            .iter()
            .zip(1..)
            .map(|((pci, driver, without_mac), last)| PortMatch {
                mac: (!*without_mac || !*pci).then(|| mac_of(last)),
                pci: pci.then_some(PciAddress {
                    domain: 0,
                    bus: last,
                    device: 0,
                    function: 1,
                }),
                driver: driver.then(|| "mlx5<&\">".to_owned()),
            })
            .collect();
        let standby = ports.remove(0);
        (standby, ports)
    })
}

fn addressings() -> impl Strategy<Value = AddressingPolicy> {
    let fixed = (1u8..200, 0u8..=32, any::<Option<u32>>()).prop_map(|(host, prefix, metric)| {
        let ip = [192, 0, 2, host].into();
        let destination = Address { ip, prefix };
        AddressingPolicy::Static {
            addresses: vec![
                destination,
                Address {
                    ip: "2001:db8::1".parse().unwrap(),
                    prefix: 64,
                },
            ],
            routes: vec![Route {
                destination,
                gateway: metric.map(|_| ip),
                metric,
            }],
        }
    });
    prop_oneof![
        Just(AddressingPolicy::Auto),
        Just(AddressingPolicy::Inherit),
        Just(AddressingPolicy::None),
        fixed
    ]
}

/// The same bond as a policy has; what only a domain has, aliases, is left out.
fn bond_of(policy: &BondPolicy) -> Bond {
    let port = |guest: &PortMatch| BondDevice {
        alias: None,
        guest: guest.clone(),
    };
    Bond {
        name: policy.name.clone(),
        mac: policy.mac,
        ownership: policy.ownership,
        path_check: policy.path_check,
        standby: port(&policy.standby),
        vfs: policy.vfs.iter().map(port).collect(),
        mtu: policy.mtu,
        addressing: match &policy.addressing {
            AddressingPolicy::Auto => Addressing::Auto,
            AddressingPolicy::Inherit => Addressing::Inherit,
            AddressingPolicy::Static { addresses, routes } => Addressing::Static {
                addresses: addresses.clone(),
                routes: routes.clone(),
            },
            AddressingPolicy::None => Addressing::None,
        },
        timing: policy.timing,
    }
}

proptest! {
    #[test]
    fn policies_survive_the_way_through_xml(
        (standby, vfs) in ports(),
        addressing in addressings(),
        mtu in prop::option::of(1280u32..9000),
        follow: bool,
        adopt: bool,
        checks_path: bool,
        hold_ms in 0u64..60_000,
    ) {
        let policy = Policy {
            origin: Origin::Host,
            bonds: vec![BondPolicy {
                name: "bond0".parse().unwrap(),
                standby,
                vfs,
                mac: if follow { MacPolicy::Follow } else { MacPolicy::Standby },
                ownership: if adopt { Ownership::Adopt } else { Ownership::Create },
                addressing,
                manager_takes_standby: false,
                undecided: false,
                expects_ipv4: false,
                mtu,
                path_check: if checks_path { PathCheck::Standby } else { PathCheck::None },
                timing: Timing { hold_ms, announcements: 7, ..Timing::default() },
            }],
        };
        let bonds = Bonds { bonds: policy.bonds.iter().map(bond_of).collect() };
        let text = bonds.to_xml();
        let document = Document::parse(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(document.policy(&[]), Ok(policy));
    }

    #[test]
    fn any_text_is_taken_or_refused(text in ".{0,200}", inside in "[<>/='\" a-z]{0,80}") {
        let _ = Document::parse(&text);
        let _ = DomainXml::parse(&text);
        let _ = device::parse_device(&text);
        let _ = Document::parse(&format!("<bonds xmlns='{BONDS_NAMESPACE}'><bond {inside}</bond></bonds>"));
        let _ = DomainXml::parse(&format!("<domain><devices><interface {inside}</devices></domain>"));
    }
}

#[test]
fn what_stands_in_a_damaged_text_does_not_move_the_cursor() {
    for damaged in [
        "<bonds></bonds\0>",
        "<bonds></bonds\u{202e}>",
        "<bonds a\u{9b}=''/>",
    ] {
        let error = Document::parse(damaged).unwrap_err().to_string();
        let moves = |c: char| c.is_control() || c == '\u{202e}';
        assert!(!error.contains(moves), "{error:?}");
    }
}

#[test]
fn a_vf_with_the_standby_s_mac_is_told_apart_by_the_virtio_driver() {
    let mut nics = vec![
        nic("net0", Some(1), NicKind::Interface),
        nic("ua-vf", Some(1), NicKind::HostdevInterface),
    ];
    nics[0].xml = "<interface type='bridge'><model type='virtio'/></interface>".to_owned();
    let standby = PortMatch {
        driver: Some("virtio_net".to_owned()),
        ..by_mac(1)
    };
    let by_alias = bond(&format!("mac='{}'", mac_of(1)), "<vf alias='ua-vf'/>");
    let bonds = Bonds {
        bonds: vec![by_alias.clone()],
    };
    assert_eq!(by_alias.vf(&nics), Some(&nics[1]));
    let policy = bonds.policy(&nics).unwrap();
    assert_eq!(policy.bonds[0].standby, standby);
    assert_eq!(policy.bonds[0].vfs, [by_mac(1)]);
    // A VF of another MAC needs no such word, nor one that is named by its driver.
    nics[1].mac = Some(mac_of(2));
    assert_eq!(bonds.policy(&nics).unwrap().bonds[0].standby, by_mac(1));
    // What is coming counts too.
    let arriving = [nic("ua-vf", Some(1), NicKind::HostdevInterface)];
    let policy = bonds.policy_with(&nics, &arriving).unwrap();
    assert_eq!(policy.bonds[0].standby, standby);
    nics[1].mac = Some(mac_of(1));
    nics[0].xml = nics[0].xml.replace("virtio", "e1000e");
    let plain = bonds.policy(&nics).unwrap_err().to_string();
    assert!(plain.contains("driver"), "{plain}");
}
