//! Where a half runs: on the host whose tap it guards, which another host's URI names too.

use std::path::Path;

use crate::hypervisor::is_local_uri;
use crate::words::{printable, shell_word};

/// Where a half runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What runs `tandem-host` there: words, the first of them a program.
    pub program: Vec<String>,
    /// Its own hypervisor, as it is named there.
    pub uri: String,
}

impl Place {
    /// The host of that hypervisor: what `given` leads to, or this one, or the one that libvirt reaches over SSH.
    ///
    /// # Errors
    /// Why it can't be told how to get there.
    pub fn of(uri: &str, given: Option<&str>) -> Result<Self, String> {
        if let Some(given) = given {
            let program = given.split_whitespace().map(str::to_owned).collect();
            let uri = uri_there(uri);
            return Ok(Self { program, uri });
        }
        if is_local_uri(uri) {
            let path = std::env::current_exe().map_err(|error| error.to_string())?;
            let program = vec![path.display().to_string()];
            return Ok(Self {
                program,
                uri: uri.to_owned(),
            });
        }
        let program = over_ssh(uri).ok_or_else(|| {
            format!(
                "it is not known how to run tandem-host on the host of {}: say so by --carry-from or --carry-to",
                printable(uri)
            )
        })?;
        Ok(Self {
            program,
            uri: uri_there(uri),
        })
    }
}

/// The same hypervisor, as it is named on its own host.
fn uri_there(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://").filter(|_| !is_local_uri(uri)) else {
        return uri.to_owned();
    };
    let driver = scheme.split('+').next().unwrap_or(scheme);
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let socket = query.split('&').find(|one| one.starts_with("socket="));
    match socket {
        Some(socket) => format!("{driver}+unix:///{path}?{socket}"),
        None => format!("{driver}:///{path}"),
    }
}

/// As libvirt itself gets there; only where nothing else has to be told to ssh.
fn over_ssh(uri: &str) -> Option<Vec<String>> {
    let (scheme, rest) = uri.split_once("://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let is_known = |one: &str| one.is_empty() || one.starts_with("socket=");
    if !scheme.ends_with("+ssh") || !query.split('&').all(is_known) {
        return None;
    }
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let (host, port) = match host.strip_prefix('[') {
        Some(host) => host.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    // Nobody is there to be asked for a password.
    let mut words = ["ssh", "-T", "-oBatchMode=yes"].map(str::to_owned).to_vec();
    match port.strip_prefix(':') {
        Some(port) => words.extend(["-p".to_owned(), port.parse::<u16>().ok()?.to_string()]),
        None if port.is_empty() => {}
        None => return None,
    }
    words.push("--".to_owned());
    words.push(match user {
        Some(user) => format!("{user}@{host}"),
        None => host.to_owned(),
    });
    words.push("tandem-host".to_owned());
    (!host.is_empty()).then_some(words)
}

/// Program and words; ssh gives them to a shell on the other host.
pub(super) fn command(program: &[String], words: Vec<String>) -> Vec<String> {
    let first = program.first().map(Path::new).and_then(Path::file_name);
    let is_ssh = first.is_some_and(|name| name == "ssh");
    let words = words
        .into_iter()
        .map(|word| if is_ssh { shell_word(&word) } else { word });
    program.iter().cloned().chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    /// The tap that another host names is that host's: of the same name, one here is another domain's, or the source's own.
    #[test]
    fn a_half_for_another_host_never_runs_on_this_one() {
        for (uri, program, there) in [
            (
                "qemu+ssh://root@b/system",
                "ssh -T -oBatchMode=yes -- root@b tandem-host",
                "qemu:///system",
            ),
            (
                "qemu+ssh://b:2222/system?socket=/run/a",
                "ssh -T -oBatchMode=yes -p 2222 -- b tandem-host",
                "qemu+unix:///system?socket=/run/a",
            ),
            (
                "qemu+ssh://[2001:db8::1]:22/session",
                "ssh -T -oBatchMode=yes -p 22 -- 2001:db8::1 tandem-host",
                "qemu:///session",
            ),
        ] {
            let place = Place::of(uri, None).unwrap();
            assert_eq!(place.program, words(program), "{uri}");
            assert_eq!(place.uri, there, "{uri}");
        }
        for uri in [
            "qemu+tls://b/system",
            "qemu+ssh://b/system?keyfile=/k",
            "qemu+ssh://b:x/system",
        ] {
            assert!(Place::of(uri, None).is_err(), "{uri}");
        }
        let given = Place::of("qemu+tls://b/system", Some("ssh b tandem-host")).unwrap();
        assert_eq!(given.program, words("ssh b tandem-host"));
        assert_eq!(given.uri, "qemu:///system");
    }

    #[test]
    fn this_host_is_this_program() {
        for uri in ["qemu:///system", "qmp:/run/a.qmp"] {
            let place = Place::of(uri, None).unwrap();
            assert_eq!((place.program.len(), place.uri.as_str()), (1, uri));
        }
    }

    #[test]
    fn what_ssh_is_given_its_shell_takes_for_words() {
        let told = command(&words("/usr/bin/ssh b"), vec!["it's $(x)".to_owned()]);
        assert_eq!(told, ["/usr/bin/ssh", "b", r"'it'\''s $(x)'"]);
        let told = command(&words("ip netns exec b"), vec!["a b".to_owned()]);
        assert_eq!(told.last().unwrap(), "a b");
    }
}
