//! The parser of `<bonds>` and `schema/bonds.rng` take and refuse the same documents.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tandem_host::xml::{BONDS_NAMESPACE, Document};

/// What is expected of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Parser and schema take it.
    Sound,
    /// Parser and schema refuse it.
    Faulty,
    /// A contradiction that only the parser sees.
    FaultyToParser,
}

use Verdict::{Faulty, FaultyToParser, Sound};

const STANDBY: &str = "<standby mac='52:54:00:aa:00:01'/>";
const VF: &str = "<vf mac='52:54:00:aa:00:02'/>";
const IP: &str = "<ip address='192.0.2.5' prefix='24'/>";

/// What stands inside `<bond name='bond0'>` beside standby and VF; `IP` for an address.
const PARTS: &[(Verdict, &str)] = &[
    (Sound, ""),
    (Sound, "<!-- why --><?also why?>"),
    (
        Sound,
        "<vf alias='ua-vf1'/><vf pci='0000:02:00.0'/><vf driver='igbvf'/>",
    ),
    (
        Sound,
        "<vf alias='h0' mac='52:54:00:AA:00:0f' pci='00010000:2:1f.7' driver='mlx5_core'/>",
    ),
    (Sound, "<mtu size='9000'/>"),
    (Sound, "IP"),
    (
        Sound,
        "<ip family='ipv6' address='2001:db8::1:5' prefix='064'/>",
    ),
    (Sound, "<ip address='1:2:3:4:5:6:7:8' prefix='128'/>"),
    (Sound, "<ip address='::ffff:192.0.2.1' prefix='96'/>"),
    (
        Sound,
        "IP<route address='::' prefix='0' gateway='fe80::1' metric='7'/>",
    ),
    (
        Sound,
        "<route address='0.0.0.0' prefix='0' gateway='192.0.2.1'/>IP",
    ),
    (
        Sound,
        "<timing miimon-ms='50' hold-ms='1' announcements='0'/>",
    ),
    (Sound, "<timing/>"),
    (Faulty, "some text"),
    (Faulty, "<dhcp/>"),
    (Faulty, "<other xmlns='urn:other'/>"),
    (Faulty, "<vf/>"),
    (Faulty, "<vf name='eth0'/>"),
    (
        Faulty,
        "<vf mac='52:54:00:aa:00:03'><alias name='ua-vf0'/></vf>",
    ),
    (Faulty, "<vf mac='52:54:00:aa:00:03'>text</vf>"),
    (Faulty, "<vf mac='52:54:00:aa:00'/>"),
    (Faulty, "<vf mac='52:54:00:aa:00:0g'/>"),
    (Faulty, "<vf mac='2:54:00:aa:00:03'/>"),
    (Faulty, "<vf mac=' 52:54:00:aa:00:03'/>"),
    (Faulty, "<vf alias=''/>"),
    (Faulty, "<vf alias='a/b'/>"),
    (Faulty, "<vf pci='02:00.0'/>"),
    (Faulty, "<vf driver='two words'/>"),
    (Faulty, "<standby mac='52:54:00:aa:00:09'/>"),
    (Faulty, "<mtu/>"),
    (Faulty, "<mtu size='big'/>"),
    (Faulty, "<mtu size='+1500'/>"),
    (Faulty, "<mtu size='1500'/><mtu size='1500'/>"),
    (Faulty, "<ip address='192.0.2.5'/>"),
    (Faulty, "<ip prefix='24'/>"),
    (Faulty, "<ip address='192.0.2.5' prefix='33'/>"),
    (Faulty, "<ip address='2001:db8::5' prefix='129'/>"),
    (Faulty, "<ip address='192.0.2.05' prefix='24'/>"),
    (Faulty, "<ip address='192.0.2.256' prefix='24'/>"),
    (Faulty, "<ip address='192.0.2.5/24' prefix='24'/>"),
    (Faulty, "<ip address='1:2:3:4:5:6:7' prefix='64'/>"),
    (Faulty, "<ip address='1::2::3' prefix='64'/>"),
    (Faulty, "<ip address='fe80::1%eth0' prefix='64'/>"),
    (
        Faulty,
        "<ip family='ipv6' address='192.0.2.5' prefix='24'/>",
    ),
    (
        Faulty,
        "<route address='0.0.0.0' prefix='0' gateway='192.0.2.1'/>",
    ),
    (
        Faulty,
        "IP<route address='0.0.0.0' prefix='0' gateway='fe80::1'/>",
    ),
    (
        Faulty,
        "IP<route address='0.0.0.0' prefix='0' metric='-1'/>",
    ),
    (Faulty, "<timing hold='1'/>"),
    (Faulty, "<timing hold-ms='1s'/>"),
    (Faulty, "<timing/><timing/>"),
    (FaultyToParser, "<vf mac='52:54:00:aa:00:02'/>"),
    (FaultyToParser, "<vf mac='52:54:00:aa:00:01'/>"),
    (FaultyToParser, "<vf mac='01:54:00:aa:00:03'/>"),
    (FaultyToParser, "<mtu size='10'/>"),
    (FaultyToParser, "<ip address='127.0.0.1' prefix='8'/>"),
    (FaultyToParser, "<timing hold-ms='99' hold-max-ms='1'/>"),
];

/// Attributes of `<bond>`, and what stands inside beside standby and VF.
const BONDS: &[(Verdict, &str, &str)] = &[
    (Sound, "name='b'", ""),
    (
        Sound,
        "name='a.b-c_d' mac='standby' ownership='create' addresses='inherit'",
        "",
    ),
    (
        Sound,
        "name='b' mac='follow' ownership='adopt' addresses='none'",
        "",
    ),
    (Sound, "name='b' addresses='dhcp'", ""),
    (Sound, "name='b' path-check='standby'", ""),
    (Sound, "name='b' path-check='none'", ""),
    (Sound, "name='b' path-check='auto'", ""),
    (Faulty, "name='b' path-check='gateway'", ""),
    (Sound, "name='b' addresses='static'", "IP"),
    (Faulty, "", ""),
    (Faulty, "name=''", ""),
    (Faulty, "name='a/b'", ""),
    (Faulty, "name='0123456789abcdef'", ""),
    (Faulty, "name='b\u{f6}nd'", ""),
    (Sound, "name='b-0'", ""),
    (Sound, "name='lo0'", ""),
    (Faulty, "name='b%d'", ""),
    (Faulty, "name='--refresh'", ""),
    (Faulty, "name='all'", ""),
    (Faulty, "name='default'", ""),
    (Faulty, "name='lo'", ""),
    (Faulty, "name='bonding_masters'", ""),
    (Faulty, "name='b' mac='random'", ""),
    (Faulty, "name='b' mac=' follow '", ""),
    (Faulty, "name='b' ownership='mine'", ""),
    (Faulty, "name='b' addresses='static'", ""),
    (Sound, "name='b' addresses='auto'", ""),
    (Faulty, "name='b' addresses='automatic'", ""),
    (Faulty, "name='b' addresses='dhcp'", "IP"),
    (Faulty, "name='b' mode='802.3ad'", ""),
    (Faulty, "name='b' x:mac='follow' xmlns:x='urn:x'", ""),
    (FaultyToParser, "name='..'", ""),
];

/// Whole documents: `NS` for the namespace, `STANDBY` and `VF` for such elements.
const DOCUMENTS: &[(Verdict, &str)] = &[
    (
        Sound,
        "<t:bonds xmlns:t='NS'><t:bond name='b'><t:standby alias='s'/><t:vf alias='v'/></t:bond></t:bonds>",
    ),
    (Faulty, "<bonds xmlns='NS'/>"),
    (
        Faulty,
        "<bonds xmlns='NS'><bond name='b'>STANDBY</bond></bonds>",
    ),
    (Faulty, "<bonds xmlns='NS'><bond name='b'>VF</bond></bonds>"),
    (Faulty, "<bond xmlns='NS' name='b'>STANDBYVF</bond>"),
    (Faulty, "<bonds><bond name='b'>STANDBYVF</bond></bonds>"),
    (
        Faulty,
        "<bonds xmlns='NSx'><bond name='b'>STANDBYVF</bond></bonds>",
    ),
    (
        Faulty,
        "<bonds xmlns='NS' version='1'><bond name='b'>STANDBYVF</bond></bonds>",
    ),
    (
        FaultyToParser,
        "<bonds xmlns='NS'><bond name='b'>STANDBYVF</bond><bond name='c'>STANDBY<vf alias='v'/></bond></bonds>",
    ),
];

fn samples() -> Vec<(Verdict, String)> {
    let whole = |attributes: &str, part: &str| {
        let part = part.replace("IP", IP);
        format!(
            "<bonds xmlns='{BONDS_NAMESPACE}'>\n<bond {attributes}>\n{STANDBY}{VF}\n{part}\n</bond>\n</bonds>"
        )
    };
    let parts = PARTS
        .iter()
        .map(|(verdict, part)| (*verdict, whole("name='bond0'", part)));
    let bonds = BONDS
        .iter()
        .map(|(verdict, attributes, part)| (*verdict, whole(attributes, part)));
    let documents = DOCUMENTS.iter().map(|(verdict, text)| {
        let text = text.replace("NS", BONDS_NAMESPACE);
        (*verdict, text.replace("STANDBY", STANDBY).replace("VF", VF))
    });
    parts.chain(bonds).chain(documents).collect()
}

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/examples");
    let files = fs::read_dir(folder).expect("the examples are there");
    files
        .map(|entry| entry.expect("the folder can be read").path())
        .collect()
}

/// Whether the schema takes a file; `None` without `xmllint`.
fn schema_takes(file: &Path) -> Option<bool> {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/bonds.rng");
    let status = Command::new("xmllint")
        .args(["--noout", "--nonet", "--relaxng"])
        .arg(schema)
        .arg(file)
        .stderr(Stdio::null())
        .status();
    let status = match status {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "xmllint is missing; install the package libxml2-utils");
            println!("SKIPPED: xmllint is missing; install the package libxml2-utils");
            return None;
        }
        status => status.expect("xmllint can be run"),
    };
    // xmllint(1): 3 is a document that does not validate, 0 one that does.
    match status.code() {
        Some(0) => Some(true),
        Some(3) => Some(false),
        _ => panic!("xmllint can't check {}: {status}", file.display()),
    }
}

#[test]
fn examples_are_sound_to_parser_and_schema() {
    let examples = examples();
    assert!(examples.len() >= 4, "{examples:?}");
    for file in examples {
        let text = fs::read_to_string(&file).unwrap();
        let document =
            Document::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let again = Document::parse(&document.bonds.to_xml()).unwrap();
        assert_eq!(again.bonds, document.bonds, "{}", file.display());
        assert_ne!(schema_takes(&file), Some(false), "{}", file.display());
    }
}

#[test]
fn the_parser_judges_the_samples() {
    for (verdict, text) in samples() {
        let parsed = Document::parse(&text);
        assert_eq!(parsed.is_ok(), verdict == Sound, "{text}\n{parsed:?}");
    }
}

#[test]
fn the_schema_judges_the_samples() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sample.xml");
    for (verdict, text) in samples() {
        fs::write(&file, &text).unwrap();
        let Some(takes) = schema_takes(&file) else {
            return;
        };
        assert_eq!(takes, verdict != Faulty, "{text}");
    }
}

#[test]
fn what_is_written_parser_and_schema_take() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("written.xml");
    for (_, text) in samples().iter().filter(|(verdict, _)| *verdict == Sound) {
        let bonds = Document::parse(text).unwrap().bonds;
        let written = bonds.to_xml();
        assert_eq!(Document::parse(&written).unwrap().bonds, bonds, "{text}");
        fs::write(&file, &written).unwrap();
        assert_ne!(schema_takes(&file), Some(false), "{written}");
    }
}
