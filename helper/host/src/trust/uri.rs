//! URIs that may be opened. libvirt's client runs programs for some (`ext`, and `ssh` with `command=` or
//! `netcat=`), as the user who opens them.

use crate::qemu::URI_PREFIX;
use crate::words::printable;

/// Longest URI, in bytes.
const MAX_BYTES: usize = 1024;
/// Ways to libvirt's QEMU driver that run no program named in the URI (libvirt 11.3, `docs/uri.rst`).
const SCHEMES: [&str; 7] = [
    "qemu",
    "qemu+unix",
    "qemu+ssh",
    "qemu+libssh",
    "qemu+libssh2",
    "qemu+tls",
    "qemu+tcp",
];
/// What may be said of the way: nothing that names a program, a key or a folder of certificates.
const KEYS: [&str; 8] = [
    "socket",
    "mode",
    "no_verify",
    "no_tty",
    "no_sanity",
    "known_hosts_verify",
    "sshauth",
    "tls_hostname",
];

/// Who named a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UriOrigin {
    /// Whoever runs this program.
    CommandLine,
    /// A record of this host.
    OwnRecord,
}

/// A URI that is not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the URI {} is not opened: {reason}; use qemu:///system, qemu+ssh://HOST/system or another of \
     libvirt's ways to QEMU",
    printable(uri)
)]
pub struct UriError {
    uri: String,
    reason: String,
}

/// Refuses what is not known to be harmless.
///
/// # Errors
/// If scheme, authority or query are none of those that may be opened.
pub fn check_uri(uri: &str, origin: UriOrigin) -> Result<(), UriError> {
    check(uri, origin).map_err(|reason| UriError {
        uri: uri.to_owned(),
        reason,
    })
}

fn check(uri: &str, origin: UriOrigin) -> Result<(), String> {
    if uri.len() > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    if uri.chars().any(char::is_control) {
        return Err("it has control characters".to_owned());
    }
    if uri.starts_with(URI_PREFIX) {
        return Ok(());
    }
    if !uri.bytes().all(|byte| byte.is_ascii_graphic()) || uri.contains(['#', '`', '"', '\\']) {
        return Err("it has characters that no URI has".to_owned());
    }
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Err("it has no scheme".to_owned());
    };
    // libvirt's driver without a hypervisor: it reads one file of XML, and runs nothing.
    if scheme == "test" && origin == UriOrigin::CommandLine && !rest.contains('?') {
        return Ok(());
    }
    if !SCHEMES.contains(&scheme) {
        let known = SCHEMES.join(", ");
        return Err(format!("its scheme is none of {known}"));
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    if !is_authority(authority) {
        return Err("its host is no plain name or address".to_owned());
    }
    if !matches!(path, "system" | "session") {
        return Err("its path is neither /system nor /session".to_owned());
    }
    // libvirt takes both for separators, and names in any case and escaped (`virURIParseParams`).
    for one in query.split(['&', ';']).filter(|one| !one.is_empty()) {
        let key = one.split('=').next().unwrap_or_default();
        if !KEYS.contains(&key) {
            let known = KEYS.join(", ");
            return Err(format!("its query has `{key}`, which is none of {known}"));
        }
    }
    Ok(())
}

/// `[USER@]HOST[:PORT]`, or nothing; nothing that ssh could take for an option.
fn is_authority(authority: &str) -> bool {
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let plain = |text: &str, more: &[char]| {
        let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(&c);
        !text.starts_with('-') && text.chars().all(fits)
    };
    let is_user = user.is_none_or(|user| !user.is_empty() && plain(user, &['-', '_', '.']));
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => plain(address, &[':', '.']) && is_port(port),
        None => {
            let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
            plain(name, &['-', '_', '.']) && is_port(port)
        }
    };
    is_user && is_host
}

fn is_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok(),
        None => text.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libvirts_ways_to_qemu_are_opened() {
        for uri in [
            "qemu:///system",
            "qemu:///session",
            "qemu+unix:///system?socket=/run/b/libvirt-sock",
            "qemu+ssh://root@b.example/system",
            "qemu+ssh://b:2222/system?no_tty=1&mode=direct",
            "qemu+tls://192.0.2.1/system?no_verify=1",
            "qemu+tcp://[2001:db8::1]:16509/system",
            "qmp:/run/vm1/qmp.sock,agent=/run/vm1/agent.sock",
        ] {
            for origin in [UriOrigin::CommandLine, UriOrigin::OwnRecord] {
                assert_eq!(check_uri(uri, origin), Ok(()), "{uri}");
            }
        }
        assert_eq!(check_uri("test:///a.xml", UriOrigin::CommandLine), Ok(()));
        assert!(check_uri("test:///a.xml", UriOrigin::OwnRecord).is_err());
    }

    #[test]
    fn nothing_that_runs_a_program_is_opened() {
        for uri in [
            "qemu+ext:///system?command=/tmp/p",
            "qemu+ssh://b/system?command=/tmp/p",
            "qemu+ssh://b/system?COMMAND=/tmp/p",
            "qemu+ssh://b/system?%63ommand=/tmp/p",
            "qemu+ssh://b/system?no_tty=1;command=/tmp/p",
            "qemu+ssh://b/system?netcat=/tmp/p",
            "qemu+ssh://b/system?keyfile=/tmp/k",
            "qemu+tls://b/system?pkipath=/tmp",
            "qemu+ssh://-oProxyCommand=id/system",
            "qemu+ssh://-oProxyCommand@b/system",
            "qemu+ssh://b%20-o/system",
            "qemu+ssh://b:x/system",
            "qemu+ssh://b/system#x",
            "qemu+ssh://b/tmp/x",
            "QEMU+EXT:///system",
            "xen:///system",
            "lxc:///system",
            "esx://b/?no_verify=1",
            "qemu:///system\n?socket=/a",
            "/system",
            "",
        ] {
            for origin in [UriOrigin::CommandLine, UriOrigin::OwnRecord] {
                assert!(check_uri(uri, origin).is_err(), "{uri}");
            }
        }
        let long = format!("qmp:/{}", "a".repeat(MAX_BYTES));
        assert!(check_uri(&long, UriOrigin::CommandLine).is_err());
    }
}
