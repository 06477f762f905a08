//! Finds in a domain's XML what libvirt or QEMU refuse to migrate, and would tell only once the VFs have gone.
//!
//! libvirt's list is `qemuMigrationSrcIsAllowed` and `qemuMigrationSrcIsSafe` (`src/qemu/qemu_migration.c`, libvirt 11.3),
//! QEMU's are its callers of `migrate_add_blocker` (10.0): `v9fs_attach` in `hw/9pfs/9p.c`, `virtio_gpu_base_device_realize`
//! in `hw/display/virtio-gpu-base.c`, `sev_launch_finish` in `target/i386/sev.c`. Pass-through devices are looked for
//! elsewhere. What depends on more than the XML says is left to the hypervisor: vDPA and vhost-user NICs, as their back
//! ends can or can't log what they write, and whether the other host's processor has the features of this one's.

use roxmltree::Node;

use super::node::{attribute_of, child};
use crate::hypervisor::domain::{Unmigratable, UnmigratableKind as Kind};

/// Longest name of a device that is told, in characters.
const MAX_NAME: usize = 64;

/// What it finds, at most [`Unmigratable::MOST`].
pub(super) fn all(root: Node<'_, '_>) -> Vec<Unmigratable> {
    let devices = child(root, "devices").into_iter();
    let devices = devices.flat_map(|devices| devices.children());
    let devices = devices.filter_map(|node| Some(named(node, of_device(node)?)));
    let of_domain = [
        (has_invariant_tsc(root), "invtsc", Kind::InvariantTsc),
        (is_encrypted(root), "launchSecurity", Kind::EncryptedMemory),
    ];
    let of_domain = of_domain.into_iter().filter(|(is_so, ..)| *is_so);
    let of_domain = of_domain.map(|(_, name, kind)| Unmigratable {
        name: name.to_owned(),
        kind,
    });
    devices.chain(of_domain).take(Unmigratable::MOST).collect()
}

/// A disk by its name in the guest, as `virsh` takes it; anything else by its alias.
fn named(node: Node<'_, '_>, kind: Kind) -> Unmigratable {
    let name = match node.has_tag_name("disk") {
        true => attribute_of(node, "target", "dev"),
        false => attribute_of(node, "alias", "name"),
    };
    let name = name.chars().take(MAX_NAME).collect();
    Unmigratable { name, kind }
}

fn of_device(node: Node<'_, '_>) -> Option<Kind> {
    match node.tag_name().name() {
        "filesystem" if attribute_of(node, "driver", "type") == "virtiofs" => Some(Kind::Virtiofs),
        // Containers have others, but no VF.
        "filesystem" => Some(Kind::NinePfs),
        // Without a role it has libvirt's default, peer.
        "shmem" if node.attribute("role") != Some("master") => Some(Kind::SharedMemory),
        "disk" if child(node, "transient").is_some() => Some(Kind::TransientDisk),
        "disk" if child(node, "mirror").is_some() => Some(Kind::BlockJob),
        "disk" if node.attribute("type") == Some("nvme") && child(node, "readonly").is_none() => {
            Some(Kind::NvmeDisk)
        }
        "video" => {
            let model = child(node, "model")?;
            let renders = attribute_of(model, "acceleration", "accel3d") == "yes";
            renders.then_some(Kind::RenderingGpu)
        }
        _ => None,
    }
}

/// The TSC's frequency would be that of whatever host it is on.
fn has_invariant_tsc(root: Node<'_, '_>) -> bool {
    let has_it = |node: Node<'_, '_>| {
        let wanted = matches!(node.attribute("policy"), None | Some("require" | "force"));
        node.attribute("name") == Some("invtsc") && wanted
    };
    let is_known = |node: Node<'_, '_>| {
        node.attribute("name") == Some("tsc") && node.attribute("frequency").is_some()
    };
    let inside = |name| {
        child(root, name)
            .into_iter()
            .flat_map(|node| node.children())
    };
    inside("cpu").any(has_it) && !inside("clock").any(is_known)
}

fn is_encrypted(root: Node<'_, '_>) -> bool {
    let security = child(root, "launchSecurity");
    let kind = security.and_then(|node| node.attribute("type"));
    kind.is_some_and(|kind| kind.starts_with("sev"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(domain: &str) -> Vec<(String, Kind)> {
        let text = format!("<domain>{domain}</domain>");
        let document = roxmltree::Document::parse(&text).unwrap();
        let found = all(document.root_element()).into_iter();
        found.map(|one| (one.name, one.kind)).collect()
    }

    #[test]
    fn each_kind_is_found_and_what_migrates_is_not() {
        let devices = "<filesystem type='mount'><driver type='virtiofs'/><alias name='fs0'/></filesystem>\
            <filesystem type='mount'><source dir='/a'/><alias name='fs1'/></filesystem>\
            <shmem name='s'><model type='ivshmem-plain'/><alias name='shmem0'/></shmem>\
            <disk type='file'><target dev='vda'/><transient/></disk>\
            <disk type='file'><target dev='vdb'/><mirror type='file' job='copy'/></disk>\
            <disk type='nvme'><source type='pci'/><target dev='vdc'/></disk>\
            <video><model type='virtio'><acceleration accel3d='yes'/></model><alias name='video0'/></video>";
        let domain = format!(
            "<cpu><feature policy='require' name='invtsc'/></cpu><clock><timer name='tsc'/></clock>\
             <launchSecurity type='sev'/><devices>{devices}</devices>"
        );
        let kinds = [
            ("fs0", Kind::Virtiofs),
            ("fs1", Kind::NinePfs),
            ("shmem0", Kind::SharedMemory),
            ("vda", Kind::TransientDisk),
            ("vdb", Kind::BlockJob),
            ("vdc", Kind::NvmeDisk),
            ("video0", Kind::RenderingGpu),
            ("invtsc", Kind::InvariantTsc),
            ("launchSecurity", Kind::EncryptedMemory),
        ];
        let kinds = kinds.map(|(name, kind)| (name.to_owned(), kind));
        assert_eq!(found(&domain), kinds);
        let well = "<cpu><feature policy='disable' name='invtsc'/></cpu><devices><shmem role='master'/>\
            <disk type='file'><target dev='vda'/></disk><disk type='nvme'><readonly/></disk>\
            <video><model type='virtio'><acceleration accel3d='no'/></model></video><video><model type='vga'/></video>\
            <vsock/><tpm/></devices>";
        assert_eq!(found(well), []);
        let known =
            "<cpu><feature name='invtsc'/></cpu><clock><timer name='tsc' frequency='1'/></clock>";
        assert_eq!(found(known), []);
    }

    #[test]
    fn so_many_are_told_and_no_more() {
        let many = "<shmem/>".repeat(1_000);
        assert_eq!(
            found(&format!("<devices>{many}</devices>")).len(),
            Unmigratable::MOST
        );
    }
}
