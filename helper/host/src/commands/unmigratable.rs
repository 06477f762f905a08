//! What the hypervisor would refuse to migrate, in words, with what to do.

use crate::evacuate::{Cause, CauseCode, Spec};
use crate::hypervisor::{DomainFacts, MigrateOptions, Unmigratable, UnmigratableKind as Kind};
use crate::words::{printable, quoted};

use super::storage::is_copied;

/// Snapshots that are named.
const MOST_NAMED: usize = 3;

/// Each of them; `migratable` are those of which the operator knows better.
pub(super) fn unmigratable(
    spec: &Spec,
    facts: &DomainFacts,
    options: &MigrateOptions,
    migratable: &[String],
) -> Vec<Cause> {
    let stands = |one: &&Unmigratable| match one.kind {
        Kind::Virtiofs | Kind::NinePfs | Kind::RenderingGpu => !migratable.contains(&one.name),
        Kind::NvmeDisk => !options.is_unsafe && !is_copied(options, &one.name),
        _ => true,
    };
    let found = facts.unmigratable.iter().filter(stands);
    found.map(|one| cause(spec, one)).collect()
}

fn cause(spec: &Spec, one: &Unmigratable) -> Cause {
    let domain = printable(&spec.domain);
    let virsh_domain = quoted(&spec.domain);
    let (name, virsh_name) = match one.name.as_str() {
        "" => ("one without a name".to_owned(), "ALIAS".to_owned()),
        name => (printable(name), quoted(name)),
    };
    let detach = format!("`virsh detach-device-alias {virsh_domain} {virsh_name} --live`");
    let (code, message) = match one.kind {
        Kind::Virtiofs => (
            CauseCode::NotMigratable,
            format!(
                "domain {domain} has a file system by virtiofs ({name}), with which libvirt migrates only where its \
                 virtiofsd can, and older versions never: unmount it in the guest and detach it ({detach}), or name it by \
                 --migratable {virsh_name}"
            ),
        ),
        Kind::NinePfs => (
            CauseCode::NotMigratable,
            format!(
                "domain {domain} has a 9p file system ({name}), and QEMU does not migrate while the guest has it mounted: \
                 unmount it in the guest, then say so by --migratable {virsh_name}"
            ),
        ),
        Kind::SharedMemory => (
            CauseCode::NotMigratable,
            format!(
                "domain {domain} has shared memory ({name}) whose role is not `master`, which libvirt does not migrate: \
                 detach it ({detach})"
            ),
        ),
        Kind::TransientDisk => (
            CauseCode::NotMigratable,
            format!(
                "disk {name} of domain {domain} is <transient/>, which libvirt does not migrate: detach it (`virsh \
                 detach-disk {virsh_domain} {virsh_name} --live`), or start the domain without that element"
            ),
        ),
        Kind::BlockJob => (
            CauseCode::JobUnderWay,
            format!(
                "a job copies disk {name} of domain {domain}, and libvirt does not migrate meanwhile: wait for its end, or \
                 end it (`virsh blockjob {virsh_domain} {virsh_name}` shows it, with --abort it ends)"
            ),
        ),
        Kind::NvmeDisk => (
            CauseCode::DiskNotShared,
            format!(
                "disk {name} of domain {domain} is an NVMe drive of this host, and libvirt migrates only with \
                 --copy-storage-all or --copy-storage-inc, or with --unsafe if the destination has the same content at the \
                 same PCI address"
            ),
        ),
        Kind::InvariantTsc => (
            CauseCode::NotMigratable,
            format!(
                "the processor of domain {domain} has the feature invtsc, and its XML does not say at which frequency, so \
                 that libvirt does not migrate it: start it with `<timer name='tsc' frequency='HZ'/>` in <clock>, or \
                 without the feature"
            ),
        ),
        Kind::RenderingGpu => (
            CauseCode::NotMigratable,
            format!(
                "the video device {name} of domain {domain} has accel3d='yes', which QEMU does not migrate: start the \
                 domain without it, or name it by --migratable {virsh_name} if your QEMU can"
            ),
        ),
        Kind::EncryptedMemory => (
            CauseCode::NotMigratable,
            format!(
                "the memory of domain {domain} is encrypted (<launchSecurity>, SEV), which QEMU does not migrate: only a \
                 shutdown and a start move it"
            ),
        ),
    };
    Cause::new(code, message)
}

/// libvirt refuses to migrate a domain that has any (`qemuMigrationSrcIsAllowed`, `src/qemu/qemu_migration.c`, libvirt
/// 11.3): they would not come along.
pub(super) fn snapshots(spec: &Spec, names: &[String]) -> Option<Cause> {
    let first = names.first()?;
    let named = names.iter().take(MOST_NAMED).map(|name| printable(name));
    let named: Vec<String> = named.collect();
    let more = match names.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!(
        "domain {} has snapshots ({}{more}), and libvirt migrates none that has: delete them, or only what libvirt knows of \
         them (`virsh snapshot-delete {} {} --metadata`)",
        printable(&spec.domain),
        named.join(", "),
        quoted(&spec.domain),
        quoted(first),
    );
    Some(Cause::new(CauseCode::NotMigratable, message))
}
