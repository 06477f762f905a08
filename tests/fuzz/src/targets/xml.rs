//! XML of domains, bonds and devices; `{PIECE*COUNT}` in it is written out, so that long texts are tried too.

use std::path::Path;

use tandem_host::execute::fuzzing::with_progress;
use tandem_host::hypervisor::{NamedBy, Nic, NicKind};
use tandem_host::libvirt::fuzzing::channel_of;
use tandem_host::trust::check_device;
use tandem_host::xml::device::parse_device;
use tandem_host::xml::domain::{DomainXml, MAX_BYTES};
use tandem_host::xml::{Document, XmlError};

use crate::expand::expand;
use crate::harmless;
use crate::shown::is_printable;

/// With all that has a meaning in XML.
const RECORD: &str = r#"{"a":"]]>&<!--'\"ü"}"#;
const MAX_MESSAGE: usize = 2_000;
/// Bounds that a text may be just below, so that a record more is too much.
const BOUNDS: [&str; 3] = ["elements", "namespaces", "longer"];
const FOLDERS: [&str; 2] = [
    "/run/libvirt/qemu/channel/",
    "/var/lib/libvirt/qemu/channel/",
];

pub(super) fn run(bytes: &[u8]) {
    let text = expand(&super::text(bytes));
    let domain = DomainXml::parse(&text);
    match &domain {
        Ok(domain) => {
            sound(&text, domain);
            with_a_record(&text, domain);
        }
        Err(error) => shown(error),
    }
    match Document::parse(&text) {
        Ok(document) => {
            let again = Document::parse(&document.bonds.to_xml()).expect("what is written is read");
            assert_eq!(again.bonds, document.bonds);
        }
        Err(error) => shown(&error),
    }
    if let Err(error) = parse_device(&text) {
        shown(&error);
    }
    match check_device(&text) {
        Ok(()) => harmless::device(&text),
        Err(error) => is_printable(&error.to_string(), MAX_MESSAGE),
    }
}

fn shown(error: &XmlError) {
    is_printable(&error.to_string(), MAX_MESSAGE);
}

fn sound(text: &str, domain: &DomainXml) {
    nics_are_its_own(text, domain);
    match &domain.bonds {
        Some(Ok(document)) => {
            if let Ok(policy) = document.bonds.policy(&domain.nics) {
                policy.validate().expect("a policy is valid");
            }
            for bond in &document.bonds.bonds {
                let standby = bond.standby_device(&domain.nics);
                let vf = bond.vf(&domain.nics);
                let both = standby
                    .zip(vf)
                    .filter(|(one, other)| std::ptr::eq(*one, *other));
                assert!(both.is_none(), "one device is standby and VF");
            }
        }
        Some(Err(error)) => shown(error),
        None => {}
    }
    let channel = channel_of(domain);
    if let Some(refused) = channel
        .as_ref()
        .and_then(|channel| channel.refused.as_ref())
    {
        assert!(
            channel
                .as_ref()
                .is_some_and(|channel| channel.socket.is_none()),
            "{refused}"
        );
    }
    if let Some(socket) = channel.and_then(|channel| channel.socket) {
        let path = socket.path.to_string_lossy().into_owned();
        let inside = FOLDERS
            .iter()
            .any(|folder| path.starts_with(folder) && path.len() > folder.len());
        let plain = path
            .split('/')
            .skip(1)
            .all(|part| !matches!(part, "" | "." | ".."));
        assert!(inside && plain, "{path} is opened");
        assert!(
            text.contains("bind") || text.contains("&#"),
            "{path} is opened, and the domain only connects to it"
        );
        let owner = socket.path.parent().and_then(Path::file_name);
        let owner = owner.and_then(|folder| number_of(&folder.to_string_lossy()));
        let is_its_own = owner.is_none() || domain.id.is_none() || owner == domain.id;
        assert!(
            is_its_own,
            "{path} is opened for the domain {:?}",
            domain.id
        );
        assert!(matches!(socket.named_by, NamedBy::Domain(_)));
    }
}

/// Each NIC's text is the domain's. `<interface>`s come in their order, then `<hostdev>`s in theirs, so that none is looked
/// for from the beginning: of some 20,000 that would take minutes.
fn nics_are_its_own(text: &str, domain: &DomainXml) {
    let is_interface =
        |nic: &Nic| matches!(nic.kind, NicKind::Interface | NicKind::HostdevInterface);
    let (interfaces, hostdevs): (Vec<&Nic>, Vec<&Nic>) =
        domain.nics.iter().partition(|nic| is_interface(nic));
    for nics in [interfaces, hostdevs] {
        let mut rest = text;
        for nic in nics {
            let found = rest.split_once(nic.xml.as_str());
            rest = found.expect("a NIC's text is the domain's").1;
        }
    }
}

/// Which domain a folder of libvirt's is of: `4-g1` and `domain-4-g1`.
fn number_of(folder: &str) -> Option<u32> {
    let mut parts = folder.split('-');
    let first = parts.next().filter(|first| *first != "domain");
    let number = first.or_else(|| parts.next())?;
    // There is something behind it.
    parts.next()?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| is_number)
}

/// The record is found again, and all else is as it was.
fn with_a_record(text: &str, before: &DomainXml) {
    if text.len() > MAX_BYTES / 2 {
        return;
    }
    let Ok(with) = with_progress(text, RECORD) else {
        // `<domain/>`: nothing is in it.
        assert!(before.nics.is_empty() && before.name.is_empty() && before.bonds.is_none());
        return;
    };
    match DomainXml::parse(&with) {
        Ok(after) => {
            assert_eq!(after.progress.as_deref(), Some(RECORD), "{with}");
            let bonds = |domain: &DomainXml| {
                domain
                    .bonds
                    .clone()
                    .map(|bonds| bonds.ok().map(|one| one.bonds))
            };
            assert_eq!(
                (&after.name, &after.uuid, after.id),
                (&before.name, &before.uuid, before.id)
            );
            assert_eq!((&after.nics, bonds(&after)), (&before.nics, bonds(before)));
            assert_eq!(after.channel, before.channel);
        }
        Err(error) => {
            let at_a_bound = BOUNDS.iter().any(|bound| error.problem.contains(bound));
            assert!(at_a_bound, "{error}: {with}");
        }
    }
}
