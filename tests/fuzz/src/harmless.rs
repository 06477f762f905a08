//! What must never be opened or plugged in, told by other means than the product's lists (`docs/trust.md`).

use serde_json::Value;

/// Words of a URI's query with which libvirt's client runs a program or reads a file of the writer's choice.
const PROGRAMS: [&str; 4] = ["command", "netcat", "keyfile", "pkipath"];
/// Elements of a device with which the hypervisor runs a program, and attributes that name files and devices.
const ELEMENTS: [&str; 4] = ["script", "backend", "target", "filterref"];
const ATTRIBUTES: [&str; 6] = ["path", "dev", "file", "tap", "vhost", "logfile"];
/// Keys of a plain QEMU's device that do so.
const KEYS: [&str; 4] = ["helper", "br", "sysfsdev", "path"];

/// A URI that was accepted.
///
/// # Panics
/// If opening it could run a program that the URI names.
pub(crate) fn uri(uri: &str) {
    assert!(!uri.chars().any(char::is_control), "{uri:?}");
    if uri.starts_with("qmp:") {
        return;
    }
    let plain = unescaped(uri).to_ascii_lowercase();
    let (scheme, rest) = plain.split_once("://").unwrap_or_default();
    assert!(scheme == "qemu" || scheme.starts_with("qemu+"), "{uri:?}");
    assert!(!scheme.contains("ext"), "{uri:?}");
    // A value may have any words; libvirt takes the escapes out of what stands between the marks.
    let query = uri.split_once('?').unwrap_or_default().1;
    for parameter in query.split(['&', ';']) {
        let key = parameter.split('=').next().unwrap_or_default();
        let key = unescaped(key).to_ascii_lowercase();
        for program in PROGRAMS {
            assert!(!key.contains(program), "{uri:?} has {program}");
        }
    }
    let authority = rest.split('/').next().unwrap_or_default();
    assert!(
        !authority.split('@').any(|part| part.starts_with('-')),
        "{uri:?} is an option of ssh"
    );
    assert!(!plain.contains(char::is_whitespace), "{uri:?}");
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let escaped = after.get(..2).filter(|_| *byte == b'%');
        let escaped = escaped
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() {
            &after[2..]
        } else {
            after
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A device that was accepted.
///
/// # Panics
/// If plugging it in could run a program or open a file that it names.
pub(crate) fn device(text: &str) {
    if text.trim_start().starts_with('{') {
        return device_of_qemu(text);
    }
    let tags = tags(text);
    for tag in &tags {
        let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        let name = name
            .rsplit(':')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        assert!(
            !ELEMENTS.contains(&name.trim_end_matches('/')),
            "<{tag}> in {text:?}"
        );
        for attribute in names(attributes) {
            let attribute = attribute.to_ascii_lowercase();
            assert!(
                !ATTRIBUTES.contains(&attribute.as_str()),
                "{attribute} in {text:?}"
            );
        }
    }
    assert!(
        tags.first()
            .is_some_and(|tag| tag.starts_with("hostdev") || tag.starts_with("interface")),
        "{text:?}"
    );
}

/// What stands between `<` and `>`, comments and instructions left out. No attribute holds a `<`.
fn tags(text: &str) -> Vec<&str> {
    let mut tags = Vec::new();
    let mut rest = text;
    while let Some((_, tag)) = rest.split_once('<') {
        let passed = [("!--", "-->"), ("![CDATA[", "]]>"), ("?", "?>")];
        if let Some((_, end)) = passed.iter().find(|(begin, _)| tag.starts_with(begin)) {
            rest = tag.split_once(end).unwrap_or_default().1;
            continue;
        }
        let mut quote = None;
        let end = tag.find(|c: char| {
            match quote {
                Some(open) if c == open => quote = None,
                None if matches!(c, '"' | '\'') => quote = Some(c),
                _ => {}
            }
            quote.is_none() && c == '>'
        });
        let Some(end) = end else { break };
        if !tag.starts_with('/') {
            tags.push(&tag[..end]);
        }
        rest = &tag[end + 1..];
    }
    tags
}

/// Names of attributes: what stands before each `=` outside of quotes.
fn names(attributes: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = attributes;
    while let Some((name, value)) = rest.split_once('=') {
        let name = name.trim();
        names.push(name.rsplit([':', ' ']).next().unwrap_or(name));
        let value = value.trim_start();
        let Some(quote) = value.chars().next() else {
            break;
        };
        rest = value[quote.len_utf8()..]
            .split_once(quote)
            .unwrap_or_default()
            .1;
    }
    names
}

fn device_of_qemu(text: &str) {
    let value: Value = serde_json::from_str(text).expect("it was read before");
    let netdev = value.get("device").and(value.get("netdev"));
    let device = value
        .get("device")
        .filter(|device| device.is_object())
        .unwrap_or(&value);
    for map in [Some(device), netdev]
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
    {
        for (key, value) in map {
            assert!(!KEYS.contains(&key.as_str()), "{text:?} has {key}");
            let file = matches!(key.as_str(), "script" | "downscript" | "romfile");
            let is_none = matches!(value.as_str(), Some("" | "no"));
            assert!(
                !file || is_none || key == "romfile" && value == "",
                "{text:?} has {key}"
            );
        }
    }
    let kind = netdev.map(|netdev| netdev["type"].as_str().unwrap_or_default());
    assert!(
        kind.is_none_or(|kind| matches!(kind, "tap" | "vhost-vdpa")),
        "{text:?}"
    );
}
