//! Which of the sockets that a domain's XML names may be opened. Pure, but for the user's own folders.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::hypervisor::{AgentChannel, ChannelSocket, DomainSocket, NamedBy, is_local_uri};
use crate::xml::domain::{ChannelXml, DomainXml};

/// Where the system's libvirt makes channels: 11.3, and 9.0 (`channelTargetDir`, `src/qemu/qemu_conf.c`).
const SYSTEM: [&str; 2] = ["/run/libvirt/qemu/channel", "/var/lib/libvirt/qemu/channel"];
/// Where it keeps the numbers of its QEMUs (`stateDir`, same file).
const SYSTEM_STATE: &str = "/run/libvirt/qemu";

/// What the domain's channel is, for who reaches this libvirt by `uri`. `more` are folders of channels
/// that the operator named.
pub(super) fn of(xml: &DomainXml, uri: &str, more: &[PathBuf]) -> Option<AgentChannel> {
    let channel = xml.channel.as_ref()?;
    let nothing = AgentChannel {
        socket: None,
        refused: None,
        opened: channel.opened,
    };
    // The path of a channel on another machine may be another domain's here.
    let (true, Some(path)) = (is_local_uri(uri), &channel.path) else {
        return Some(nothing);
    };
    Some(
        match folder_of(channel, path, xml.id, &folders(uri, more)) {
            Ok((path, folder)) => AgentChannel {
                socket: Some(ChannelSocket {
                    path,
                    named_by: NamedBy::Domain(DomainSocket {
                        folder,
                        uuid: xml.uuid.clone(),
                        pid_file: state_folder(uri)
                            .map(|state| state.join(format!("{}.pid", xml.name))),
                    }),
                }),
                ..nothing
            },
            Err(reason) => AgentChannel {
                refused: Some(reason),
                ..nothing
            },
        },
    )
}

/// The socket's path and the folder of channels below which it is; or why it is not opened.
fn folder_of(
    channel: &ChannelXml,
    path: &Path,
    id: Option<u32>,
    folders: &[PathBuf],
) -> Result<(PathBuf, PathBuf), String> {
    let shown = path.display();
    if !channel.listens {
        return Err(format!(
            "its channel has another process's socket ({shown}); make it <source mode='bind'/>, or leave <source> out"
        ));
    }
    let path =
        plain(path).ok_or_else(|| format!("its channel's path {shown} is not a plain one"))?;
    let Some(folder) = folders.iter().find(|folder| is_below(&path, folder)) else {
        return Err(format!(
            "its channel's socket {shown} is in no folder of channels; leave <source> out of its XML, or name the \
             folder by --channel-folder"
        ));
    };
    // libvirt's own folder of one domain: `4-g1`, or `domain-4-g1`.
    let owner = path
        .parent()
        .and_then(Path::file_name)
        .and_then(|name| numbered(&name.to_string_lossy()));
    match (owner, id) {
        (Some(owner), Some(id)) if owner != id => Err(format!(
            "its channel's socket {shown} is in the folder of the domain with the number {owner}, and its own is {id}; \
             leave <source> out of its XML"
        )),
        _ => Ok((path.clone(), folder.clone())),
    }
}

/// The path, if it is absolute and nothing in it leads up or is left out. `/var/run` is `/run`
/// (Filesystem Hierarchy Standard 3.0, 5.13).
fn plain(path: &Path) -> Option<PathBuf> {
    let mut parts = path.components();
    let absolute = parts.next() == Some(Component::RootDir);
    let plain = parts.all(|part| matches!(part, Component::Normal(_)));
    // Components leave `//` and `/./` out.
    let written = path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
    let run = |rest: &Path| Path::new("/run").join(rest);
    let known = path
        .strip_prefix("/var/run")
        .map_or_else(|_| path.to_owned(), run);
    (absolute && plain && written).then_some(known)
}

fn is_below(path: &Path, folder: &Path) -> bool {
    path != folder && path.starts_with(folder)
}

fn numbered(folder: &str) -> Option<u32> {
    let name = folder.strip_prefix("domain-").unwrap_or(folder);
    let (number, _) = name.split_once('-')?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| number.parse().ok()).flatten()
}

/// All folders of channels, for that connection.
fn folders(uri: &str, more: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    if is_session(uri) {
        let user = User::of(|name| std::env::var_os(name));
        folders.extend(user.runtime.map(|run| run.join("libvirt/qemu/run/channel")));
        folders.extend(user.cache.map(|it| it.join("libvirt/qemu/run/channel")));
        folders.extend(user.config.map(|it| it.join("libvirt/qemu/lib/channel")));
    }
    folders.extend(more.iter().cloned());
    folders
}

/// Where libvirt keeps numbers of processes, if the URI leads to the machine's usual one.
fn state_folder(uri: &str) -> Option<PathBuf> {
    if uri.contains('?') {
        return None;
    }
    if is_session(uri) {
        let user = User::of(|name| std::env::var_os(name));
        return user.runtime.map(|run| run.join("libvirt/qemu/run"));
    }
    uri.ends_with("/system").then(|| SYSTEM_STATE.into())
}

fn is_session(uri: &str) -> bool {
    uri.split('?')
        .next()
        .unwrap_or_default()
        .ends_with("/session")
}

/// The folders of who runs this program (XDG Base Directory Specification 0.8), as libvirt has them.
struct User {
    runtime: Option<PathBuf>,
    cache: Option<PathBuf>,
    config: Option<PathBuf>,
}

impl User {
    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let named = |name| {
            let path = variable(name).map(PathBuf::from);
            path.filter(|path| path.is_absolute())
        };
        let home = |name: &str| named("HOME").map(|home| home.join(name));
        Self {
            runtime: named("XDG_RUNTIME_DIR"),
            cache: named("XDG_CACHE_HOME").or_else(|| home(".cache")),
            config: named("XDG_CONFIG_HOME").or_else(|| home(".config")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(source: &str) -> DomainXml {
        let text = format!(
            "<domain id='4'><name>g1</name><uuid>u</uuid><devices><channel type='unix'>{source}\
             <target type='virtio' name='org.tandem.agent.0' state='connected'/></channel></devices></domain>"
        );
        DomainXml::parse(&text).unwrap()
    }

    fn at(path: &str) -> AgentChannel {
        let xml = domain(&format!("<source mode='bind' path='{path}'/>"));
        of(&xml, "qemu:///system", &["/srv/channels".into()]).unwrap()
    }

    #[test]
    fn sockets_that_libvirt_made_are_opened() {
        for (path, folder) in [
            (
                "/run/libvirt/qemu/channel/4-g1/org.tandem.agent.0",
                SYSTEM[0],
            ),
            (
                "/var/run/libvirt/qemu/channel/4-g1/org.tandem.agent.0",
                SYSTEM[0],
            ),
            (
                "/var/lib/libvirt/qemu/channel/target/domain-4-g1/org.tandem.agent.0",
                SYSTEM[1],
            ),
            ("/var/lib/libvirt/qemu/channel/g1.sock", SYSTEM[1]),
            ("/srv/channels/g1", "/srv/channels"),
        ] {
            let channel = at(path);
            let socket = channel.socket.unwrap();
            assert_eq!(socket.path, Path::new(&path.replace("/var/run", "/run")));
            assert_eq!(channel.opened, Some(true));
            assert_eq!(
                socket.named_by,
                NamedBy::Domain(DomainSocket {
                    folder: folder.into(),
                    uuid: "u".to_owned(),
                    pid_file: Some("/run/libvirt/qemu/g1.pid".into()),
                })
            );
        }
    }

    #[test]
    fn a_socket_of_another_process_is_not_opened() {
        let path = "/run/libvirt/qemu/channel/4-g1/org.tandem.agent.0";
        // Without a mode libvirt connects, and says so in what it prints.
        for mode in ["mode='connect'", ""] {
            let xml = domain(&format!("<source {mode} path='{path}'/>"));
            let channel = of(&xml, "qemu:///system", &[]).unwrap();
            assert_eq!(channel.socket, None);
            let refused = channel.refused.unwrap();
            assert!(refused.contains("mode='bind'"), "{refused}");
        }
    }

    #[test]
    fn a_socket_of_another_domain_or_place_is_not_opened() {
        for (path, why) in [
            (
                "/run/libvirt/qemu/channel/7-victim/org.tandem.agent.0",
                "number 7",
            ),
            (
                "/run/libvirt/qemu/channel/7-4-g1/org.tandem.agent.0",
                "number 7",
            ),
            (
                "/var/lib/libvirt/qemu/channel/target/domain-7-v/a",
                "number 7",
            ),
            ("/run/libvirt/libvirt-sock", "no folder of channels"),
            ("/run/docker.sock", "no folder of channels"),
            ("/run/libvirt/qemu/channel", "no folder of channels"),
            ("/srv/channels2/g1", "no folder of channels"),
            ("/run/libvirt/qemu/channel/../../libvirt-sock", "plain"),
            ("/run/libvirt/qemu/channel/4-g1/./a", "plain"),
            ("/run/libvirt/qemu/channel//4-g1/a", "plain"),
            ("4-g1/a", "plain"),
        ] {
            let channel = at(path);
            assert_eq!(channel.socket, None, "{path}");
            let refused = channel.refused.unwrap();
            assert!(refused.contains(why), "{path}: {refused}");
        }
    }

    #[test]
    fn a_channel_of_another_machine_or_of_another_kind_has_no_socket_here() {
        let xml = domain("<source mode='bind' path='/run/libvirt/qemu/channel/4-g1/a'/>");
        let channel = of(&xml, "qemu+ssh://b/system", &[]).unwrap();
        assert_eq!((channel.socket, channel.refused), (None, None));
        let channel = of(&domain(""), "qemu:///system", &[]).unwrap();
        assert_eq!((channel.socket, channel.refused), (None, None));
    }

    #[test]
    fn a_user_s_libvirt_has_the_user_s_folders() {
        let user = User::of(|name| match name {
            "HOME" => Some("/users/u".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/1000".into()),
            "XDG_CACHE_HOME" => Some("relative".into()),
            _ => None,
        });
        assert_eq!(user.runtime.unwrap(), Path::new("/run/user/1000"));
        assert_eq!(user.cache.unwrap(), Path::new("/users/u/.cache"));
        assert_eq!(user.config.unwrap(), Path::new("/users/u/.config"));
        assert!(is_session("qemu:///session") && !is_session("qemu:///system?x=/session"));
        let own_socket = "qemu+unix:///system?socket=/a";
        assert_eq!(state_folder(own_socket), None, "it has files of its own");
    }
}
