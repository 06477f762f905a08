use super::*;
use crate::nics::testing::{Folder, RELEASE};

const BOND: Ifindex = Ifindex(4);
const ADDRESS: [u8; 4] = [192, 0, 2, 5];

fn link(
    ifindex: Ifindex,
    name: &str,
    kind: LinkKind,
    last: u8,
    controller: Option<Ifindex>,
) -> Link {
    let mac = Some(format!("52:54:00:00:00:{last:02x}").parse().unwrap());
    Link {
        mac,
        permanent_mac: mac.filter(|_| kind == LinkKind::Physical),
        admin_up: true,
        carrier: true,
        controller,
        ..Link::named(ifindex, name.parse().unwrap(), kind)
    }
}

/// What is said of the bond of [`Folder::complete`], with or without its VF.
fn said(folder: &Folder, has_vf: bool, permanent: &[[u8; 4]]) -> Vec<(ProblemCode, String)> {
    let policy = Policy {
        bonds: vec![folder.bond()],
        ..Policy::default()
    };
    let mut links = vec![
        link(Ifindex(2), "eth0", LinkKind::Physical, 1, Some(BOND)),
        link(BOND, "bond0", LinkKind::Bond, 1, None),
    ];
    if has_vf {
        links.push(link(Ifindex(3), "eth1", LinkKind::Physical, 2, Some(BOND)));
    }
    let permanent: Vec<_> = permanent
        .iter()
        .map(|ip| (BOND, IpAddr::from(*ip)))
        .collect();
    let found = concerns(&folder.files(), &policy, &links, &permanent);
    found
        .into_iter()
        .map(|concern| (concern.problem.code, concern.problem.message))
        .collect()
}

#[test]
fn nothing_is_said_where_nothing_is_wrong() {
    let folder = Folder::complete();
    assert_eq!(said(&folder, true, &[ADDRESS]), []);
    assert_eq!(said(&folder, false, &[ADDRESS]), []);
}

#[test]
fn a_bond_that_networkd_leaves_alone_is_told() {
    let folder = Folder::complete();
    let state = |text: &str| folder.write("/run/systemd/netif/links/4", text);
    state("ADMIN_STATE=unmanaged\nOPER_STATE=degraded\n");
    // Tandem configures it.
    assert_eq!(said(&folder, true, &[]), []);
    folder.write("/run/systemd/network/02-tandem-bond0.network", "");
    assert_eq!(
        said(&folder, true, &[])[0].0,
        ProblemCode::ManagerIgnoresBond
    );
    state("ADMIN_STATE=configured\nOPER_STATE=routable\n");
    assert_eq!(said(&folder, true, &[]), []);
}

#[test]
fn a_bond_that_network_manager_leaves_alone_is_told() {
    let folder = Folder::complete();
    let state = |text: &str| folder.write("/run/NetworkManager/devices/4", text);
    state("[device]\nmanaged=false\n");
    // It was not told of it.
    assert_eq!(said(&folder, true, &[]), []);
    folder.write(
        "/run/tandem-nics/network-manager.json",
        r#"{"bond0": "its automatic profile"}"#,
    );
    let found = said(&folder, true, &[]);
    assert!(
        matches!(&found[..], [(ProblemCode::ManagerIgnoresBond, text)] if text.contains("NetworkManager")),
        "{found:?}"
    );
    state("[device]\nmanaged=true\n");
    assert_eq!(said(&folder, true, &[]), []);
}

#[test]
fn a_lease_of_the_initramfs_that_nobody_renews_is_told() {
    let folder = Folder::complete();
    folder.write(
        "/run/net-eth0.conf",
        "DEVICE='eth0'\nPROTO='dhcp'\nIPV4ADDR='192.0.2.5'\n",
    );
    let found = said(&folder, true, &[ADDRESS]);
    assert!(
        matches!(&found[..], [(ProblemCode::LeaseUnrenewed, text)] if text.contains("192.0.2.5")),
        "{found:?}"
    );
    // Somebody has it by now, and gave it an end; or another address is used.
    assert_eq!(said(&folder, true, &[]), []);
    assert_eq!(said(&folder, true, &[[192, 0, 2, 6]]), []);
    folder.write(
        "/run/net-eth0.conf",
        "DEVICE='eth0'\nPROTO='static'\nIPV4ADDR='192.0.2.5'\n",
    );
    assert_eq!(said(&folder, true, &[ADDRESS]), []);
}

#[test]
fn what_a_bond_keeps_of_its_standby_is_told() {
    let folder = Folder::complete();
    let told = |tries: u32| {
        let moved = r#"{"bond": "bond0", "standby": "eth0", "crosses": true}"#;
        folder.write(
            "/run/tandem-nics/network-manager-told.json",
            &format!(r#"{{"moved": [{moved}], "tries": {tries}, "not_before": 0}}"#),
        );
        said(&folder, true, &[ADDRESS])
    };
    // It is still told.
    assert_eq!(told(3), []);
    let found = told(4);
    assert!(
        matches!(&found[..], [(ProblemCode::LeaseUnrenewed, text)]
            if text.contains("192.0.2.5") && text.contains("tandem-refresh")),
        "{found:?}"
    );
    // Somebody has ended it.
    assert_eq!(said(&folder, true, &[]), []);
}

#[test]
fn a_device_without_a_driver_is_told_where_a_vf_is_missed() {
    let folder = Folder::complete();
    let device = "/sys/bus/pci/devices/0000:06:00.0";
    let write = |file: &str, text: &str| folder.write(&format!("{device}/{file}"), text);
    write("class", "0x020000\n");
    write("vendor", "0x8086\n");
    write("device", "0x1520\n");
    let modalias = "pci:v00008086d00001520sv00008086sd0000A03Cbc02sc00i00\n";
    write("modalias", modalias);
    // Others have one, or are no NIC.
    folder.write("/sys/bus/pci/devices/0000:05:00.0/class", "0x010802\n");
    assert_eq!(said(&folder, true, &[]), []);
    let found = said(&folder, false, &[]);
    assert!(
        matches!(&found[..], [(ProblemCode::VfWithoutDriver, text)]
            if text.contains("0000:06:00.0 (8086:1520)") && text.contains(RELEASE)),
        "{found:?}"
    );
    folder.write(
        &format!("/lib/modules/{RELEASE}/modules.alias"),
        "alias pci:v00008086d000010CAsv*sd*bc*sc*i* other\n\
         alias pci:v00008086d00001520sv*sd*bc*sc*i* igbvf\n",
    );
    let found = said(&folder, false, &[]);
    assert!(found[0].1.contains("igbvf is not loaded"), "{found:?}");
    write("driver", "");
    assert_eq!(said(&folder, false, &[]), []);
}

#[test]
fn who_waits_for_a_port_is_told() {
    let folder = Folder::complete();
    let unit = "systemd-networkd-wait-online.service";
    folder.write(
        &format!("/usr/lib/systemd/system/{unit}"),
        "[Service]\nExecStart=/wait --interface=\"eth0\"\n",
    );
    // Nothing starts it.
    assert_eq!(said(&folder, true, &[]), []);
    folder.write(
        &format!("/etc/systemd/system/network-online.target.wants/{unit}"),
        "",
    );
    assert_eq!(
        said(&folder, true, &[])[0].0,
        ProblemCode::WaitOnlineNamesPort
    );
    folder.write(
        &format!("/run/systemd/system/{unit}.d/99-tandem.conf"),
        "[Service]\nExecStart=\nExecStart=/wait -i bond0\n",
    );
    assert_eq!(said(&folder, true, &[]), []);
}
