//! What virsh means when it fails. libvirt has numbers for its errors, virsh prints
//! their texts only; those told apart here are libvirt's own, in the C locale (libvirt 9.0 and 11.3).

use crate::hypervisor::HostError;

/// The connection is not there, or was lost underway.
const UNREACHABLE: [&str; 9] = [
    "failed to connect to the hypervisor",
    "failed to reconnect to the hypervisor",
    "Failed to connect socket",
    "unable to connect to server",
    "End of file while reading data",
    "Cannot recv data",
    "Cannot write data",
    "client socket is closed",
    "Disconnected from",
];
const NO_SUCH_DOMAIN: [&str; 2] = ["failed to get domain", "Domain not found"];
const DEVICE_GONE: [&str; 2] = ["device not found", "no matching network device"];
const JOB_GONE: [&str; 2] = ["no job is active", "domain is not running"];
const THERE: [&str; 2] = ["non unique alias detected", "already exists"];
const UNPLUG_REFUSED: [&str; 2] = ["rejected by the guest", "Guest rejected"];
const CANCELLED: [&str; 3] = ["canceled by client", "job: canceled", "cancelled by client"];

/// Longest piece of virsh's words that is passed on, in characters.
const SHOWN: usize = 600;

/// The connection is not there, or was lost meanwhile, if only for a moment.
pub(super) fn is_unreachable(stderr: &str) -> bool {
    UNREACHABLE.iter().any(|text| stderr.contains(text))
}

/// Why a command about a domain failed. `domain` is empty if it was about none.
pub(super) fn of(host: &str, command: &str, domain: &str, stderr: &str) -> HostError {
    let says = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
    let reason = words(stderr);
    let (host, domain) = (host.to_owned(), domain.to_owned());
    if command == "migrate" {
        // Either host may be the one that can't be reached, and the job may have begun.
        return if says(&CANCELLED) {
            HostError::Cancelled { domain }
        } else {
            HostError::MigrationFailed { domain, reason }
        };
    }
    if is_unreachable(stderr) {
        return HostError::Unreachable { host, reason };
    }
    if says(&NO_SUCH_DOMAIN) && !domain.is_empty() {
        return HostError::NoSuchDomain { host, domain };
    }
    match command {
        "detach-device" if says(&DEVICE_GONE) => HostError::AlreadyGone {
            domain,
            what: "the device".to_owned(),
        },
        "domjobabort" if says(&JOB_GONE) => HostError::AlreadyGone {
            domain,
            what: "the job".to_owned(),
        },
        "detach-device" if says(&UNPLUG_REFUSED) => HostError::UnplugRefused {
            domain,
            device: "the device".to_owned(),
            reason,
        },
        "attach-device" if says(&THERE) => HostError::AlreadyThere {
            domain,
            what: "the device".to_owned(),
        },
        _ => HostError::Refused {
            host,
            what: format!("virsh {command}"),
            reason,
        },
    }
}

/// virsh's error lines as one, without its prefix.
fn words(stderr: &str) -> String {
    let lines = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines
        .map(|line| line.strip_prefix("error: ").unwrap_or(line))
        .collect();
    if lines.is_empty() {
        return "virsh failed without a word".to_owned();
    }
    shortened(&lines.join("; "))
}

/// Keeps messages readable whatever was printed.
pub(super) fn shortened(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(SHOWN).map(printable).collect()
}
