use std::path::PathBuf;

use proptest::prelude::*;
use tandem_core::policy::{AddressingPolicy, HostMay, MacPolicy, Origin};
use tandem_wire::reply::ConfigureErrorCode;

use super::{Config, ConfigError, load, merge};

const STANDBY: &str = "standby = { mac = \"52:54:00:00:00:01\" }";
const VF: &str = "vfs = [{ mac = \"52:54:00:00:00:02\" }]";

fn parse(text: &str) -> Result<Config, ConfigError> {
    merge(&[(PathBuf::from("tandem.toml"), text.to_string())])
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn a_whole_file() {
    let config = parse(
        r#"
host-may = "commands"
[[bond]]
name = "bond0"
mac = "follow"
standby = { mac = "52:54:00:00:00:01" }
vfs = [{ mac = "52:54:00:00:00:02" }, { driver = "igbvf", pci = "0000:02:00.0" }]
addressing = "static"
addresses = ["192.0.2.5/24", "2001:db8::5/64"]
routes = [{ to = "0.0.0.0/0", via = "192.0.2.1" }]
timing = { hold-ms = 500 }
"#,
    )
    .unwrap();
    assert_eq!(config.host_may, HostMay::Commands);
    assert_eq!(config.policy.origin, Origin::File);
    let bond = &config.policy.bonds[0];
    assert_eq!(bond.mac, MacPolicy::Follow);
    assert_eq!(bond.vfs.len(), 2);
    assert_eq!(bond.timing.hold_ms, 500);
    let AddressingPolicy::Static { addresses, routes } = &bond.addressing else {
        panic!("not static: {:?}", bond.addressing);
    };
    assert_eq!((addresses.len(), routes.len()), (2, 1));
}

#[test]
fn no_file_leaves_it_to_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let config = load(&folder.path().join("tandem.toml")).unwrap();
    assert_eq!(config.host_may, HostMay::Bonds);
    assert_eq!(config.policy.origin, Origin::None);
}

#[test]
fn own_bonds_come_before_the_host_and_its_rights_before_its_bonds() {
    let bond = format!("[[bond]]\nname = \"bond0\"\n{STANDBY}\n{VF}\n");
    for (may, refused) in [
        ("", None),
        ("host-may = \"bonds\"\n", None),
        (
            "host-may = \"commands\"\n",
            Some(ConfigureErrorCode::NotAllowed),
        ),
        (
            "host-may = \"none\"\n",
            Some(ConfigureErrorCode::NotAllowed),
        ),
    ] {
        assert_eq!(parse(may).unwrap().host_bonds_refused(), refused, "{may}");
        let own = parse(&format!("{may}{bond}")).unwrap();
        let refused = own.host_bonds_refused();
        assert_eq!(refused, Some(ConfigureErrorCode::DefinedByFile), "{may}");
    }
}

#[test]
fn drop_ins_add_bonds_in_order() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("conf.d")).unwrap();
    std::fs::write(
        folder.path().join("tandem.toml"),
        "host-may = \"commands\"\n",
    )
    .unwrap();
    for (file, name, last) in [("20.toml", "bond1", 3), ("10.toml", "bond0", 1)] {
        let text = format!(
            "[[bond]]\nname = \"{name}\"\nstandby = {{ mac = \"52:54:00:00:01:0{last}\" }}\n\
             vfs = [{{ mac = \"52:54:00:00:02:0{last}\" }}]\n"
        );
        std::fs::write(folder.path().join("conf.d").join(file), text).unwrap();
    }
    let config = load(&folder.path().join("tandem.toml")).unwrap();
    let names: Vec<_> = config
        .policy
        .bonds
        .iter()
        .map(|bond| bond.name.to_string())
        .collect();
    assert_eq!(names, ["bond0", "bond1"]);
    assert_eq!(config.host_may, HostMay::Commands);
}

#[test]
fn errors_name_file_line_and_key() {
    let unknown = error(&format!(
        "[[bond]]\nname = \"bond0\"\n{STANDBY}\n{VF}\nhold = 3\n"
    ));
    assert!(unknown.starts_with("tandem.toml:5:1: "), "{unknown}");
    assert!(unknown.contains("`hold`"), "{unknown}");

    let mac = error(&format!(
        "[[bond]]\nname = \"bond0\"\n{VF}\nstandby = {{ mac = \"5254\" }}\n"
    ));
    assert!(mac.starts_with("tandem.toml:4:"), "{mac}");
    assert!(
        mac.contains("bond.standby.mac") && mac.contains("not a MAC address"),
        "{mac}"
    );

    let missing = error(&format!("[[bond]]\nname = \"bond0\"\n{VF}\n"));
    assert!(missing.contains("standby"), "{missing}");

    let addresses = error(&format!(
        "[[bond]]\nname = \"bond0\"\n{STANDBY}\n{VF}\naddresses = [\"192.0.2.5/24\"]\n"
    ));
    assert!(addresses.starts_with("tandem.toml:5:1: "), "{addresses}");

    let prefix = error(&format!(
        "[[bond]]\nname = \"bond0\"\n{STANDBY}\n{VF}\naddressing = \"static\"\naddresses = [\"192.0.2.5/33\"]\n"
    ));
    assert!(prefix.starts_with("tandem.toml:6:"), "{prefix}");

    // Not passed over, as it would be in what the host sends.
    for (timing, place) in [
        ("[bond.timing]\nnew-ms = 1\n", "tandem.toml:6:1: "),
        (
            "timing = { hold-ms = 5, new-ms = 1 }\n",
            "tandem.toml:5:25: ",
        ),
    ] {
        let text = format!("[[bond]]\nname = \"bond0\"\n{STANDBY}\n{VF}\n{timing}");
        let unknown = error(&text);
        assert!(unknown.starts_with(place), "{unknown}");
        assert!(unknown.contains("`bond.timing.new-ms`"), "{unknown}");
    }

    let word = error("\nhost-may = \"everything\"\n");
    assert!(word.starts_with("tandem.toml:2:"), "{word}");
    assert!(
        word.contains("`host-may`") && word.contains("\"commands\""),
        "{word}"
    );
    let old = error("\naccept-host-config = false\n");
    assert!(old.starts_with("tandem.toml:2:"), "{old}");
    assert!(
        old.contains("`accept-host-config`") && old.contains("host-may = \"commands\""),
        "{old}"
    );

    let syntax = error("[[bond]\n");
    assert!(syntax.starts_with("tandem.toml:1:"), "{syntax}");
}

#[test]
fn contradictions_name_their_line() {
    let same = error(
        "[[bond]]\nname = \"bond0\"\nstandby = { mac = \"52:54:00:00:00:01\" }\n\
         vfs = [{ mac = \"52:54:00:00:00:07\" }, { mac = \"52:54:00:00:00:07\" }]\n",
    );
    assert!(same.starts_with("tandem.toml:4:1: "), "{same}");
    assert!(same.contains("52:54:00:00:00:07"), "{same}");

    let both = error(
        "[[bond]]\nname = \"bond0\"\nvfs = [{ mac = \"52:54:00:00:00:01\" }]\n\
         standby = { mac = \"52:54:00:00:00:01\" }\n",
    );
    assert!(both.contains("52:54:00:00:00:01"), "{both}");
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(text in "(\\[\\[bond\\]\\]\n)?[ -~\n]{0,200}") {
        let _ = parse(&text);
    }
}
