//! Whose the device of the channel's virtio-serial port is.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use tandem_wire::PORT_NAME;

use crate::nics::USER;
use crate::system_files::SystemFiles;

/// Gives the channel's port to the service's user. udev's rule does so when the port appears, unless the
/// user was made later: then udev knows it only after its rules were read again. Who sees no device of the system, as
/// the units beside the service, leaves it to the service's start.
pub(crate) fn give_to_service(files: &SystemFiles) -> Vec<String> {
    let Some(user) = files.user_id(USER) else {
        return Vec::new();
    };
    let ports = fs::read_dir(files.path("/sys/class/virtio-ports"));
    let ours = ports.into_iter().flatten().flatten().filter(|port| {
        let name = fs::read_to_string(port.path().join("name"));
        name.is_ok_and(|name| name.trim() == PORT_NAME)
    });
    ours.filter_map(|port| {
        let node = files.path("/dev").join(port.file_name());
        let owner = fs::metadata(&node).ok()?.uid();
        (owner != user).then(|| match chown(&node, Some(user), None) {
            Ok(()) => format!("gave {} to the user `{USER}`", node.display()),
            Err(error) => format!(
                "can't give {} to the user `{USER}`: {error}",
                node.display()
            ),
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::testing::Folder;

    #[test]
    fn the_channels_port_is_given_to_a_user_that_came_later() {
        let folder = Folder::new();
        folder.write(
            "/sys/class/virtio-ports/vport1p1/name",
            "org.tandem.agent.0\n",
        );
        folder.write("/sys/class/virtio-ports/vport1p2/name", "another\n");
        folder.write("/dev/vport1p1", "");
        folder.write("/dev/vport1p2", "");
        assert!(give_to_service(&folder.files()).is_empty());
        let owner = fs::metadata(folder.path("/dev/vport1p1")).unwrap().uid();
        folder.write(
            "/etc/passwd",
            &format!("tandem:x:{owner}:1::/:/bin/false\n"),
        );
        assert!(give_to_service(&folder.files()).is_empty());
        folder.write(
            "/etc/passwd",
            &format!("tandem:x:{}:1::/:/bin/false\n", owner + 1),
        );
        let said = give_to_service(&folder.files());
        // Only root may give a file away; who may not says so.
        assert!(said.len() == 1 && said[0].contains("vport1p1"), "{said:?}");
    }
}
