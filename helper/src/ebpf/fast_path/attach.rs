//! Programs on devices: tcx links since kernel 6.6, which end with this process;
//! filters of a `clsact` queueing discipline before, which would not, so that
//! those of an earlier run are replaced. They take the kernel modules `sch_ingress`
//! and `cls_bpf`, which the kernel loads itself where they are installed. The discipline itself stays: somebody else
//! may use it by then.

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{
            NlOptions, SchedClassifierLink, TcAttachOptions, TcError, qdisc_add_clsact,
            qdisc_detach_program,
        },
    },
    util::KernelVersion,
};

use super::system;
use crate::ebpf::{hooks::Program, load::reason_of};

/// The first kernel with tcx links.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);
/// A name that is given to another link between looking it up and using it is
/// looked up again, this often.
const NAME_ATTEMPTS: u32 = 3;

/// A device and the program to be on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) ifindex: u32,
    pub(super) program: Program,
}

/// A program on a device. Dropping it detaches the program.
pub(super) struct Attached {
    pub(super) place: Place,
    link: SchedClassifierLink,
}

impl Attached {
    /// Attaches the program; on failure one line for people.
    pub(super) fn new(ebpf: &mut Ebpf, place: Place) -> Result<Self, String> {
        let program: &mut SchedClassifier = ebpf
            .program_mut(place.program.name())
            .ok_or("it is not part of the object")?
            .try_into()
            .map_err(|error| reason_of(&error))?;
        // aya takes names, which may change hands in between.
        for _ in 0..NAME_ATTEMPTS {
            let name = system::name_of(place.ifindex)
                .map_err(|error| format!("the link is gone ({error})"))?;
            let link = attach(program, place.program, &name);
            if system::index_of(&name).ok() == Some(place.ifindex) {
                let link = link.map_err(|error| reason_of(&error))?;
                return Ok(Self { place, link });
            }
        }
        Err("the link was renamed again and again".to_owned())
    }

    /// Whether the device is still there.
    pub(super) fn is_alive(&self) -> bool {
        system::name_of(self.place.ifindex).is_ok()
    }
}

/// Has filters find room on a link that is down, on kernels where they need it: while it is up, this takes its queues out of
/// work for some ms (`qdisc_graft`, `net/sched/sch_api.c`, 6.1), in which frames that it sends are lost.
pub(super) fn make_room(link: &str) -> Result<(), String> {
    if !needs_clsact() {
        return Ok(());
    }
    add_clsact(link).map_err(|error| reason_of(&error))
}

/// The kernel has no tcx: programs are filters.
pub(super) fn needs_clsact() -> bool {
    KernelVersion::current().is_ok_and(|version| version < TCX_SINCE)
}

fn attach(
    classifier: &mut SchedClassifier,
    program: Program,
    name: &str,
) -> Result<SchedClassifierLink, ProgramError> {
    let direction = match program {
        Program::PortIngress => TcAttachType::Ingress,
        _ => TcAttachType::Egress,
    };
    let options = if needs_clsact() {
        add_clsact(name)?;
        remove_earlier(name, direction, program)?;
        TcAttachOptions::Netlink(NlOptions::default())
    } else {
        // After all others: a filter that refuses a frame has its say first.
        TcAttachOptions::TcxOrder(LinkOrder::last())
    };
    let id = classifier.attach_with_options(name, direction, options)?;
    classifier.take_link(id)
}

/// Adds the queueing discipline, unless it is there already, by whomever.
fn add_clsact(name: &str) -> Result<(), ProgramError> {
    match qdisc_add_clsact(name) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => Ok(other?),
    }
}

/// Removes what a run before this one left behind when it was killed.
fn remove_earlier(
    name: &str,
    direction: TcAttachType,
    program: Program,
) -> Result<(), ProgramError> {
    match qdisc_detach_program(name, direction, program.name()) {
        Ok(()) => Ok(()),
        Err(TcError::IoError(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached")
            .field("place", &self.place)
            .field("link", &self.link)
            .finish()
    }
}
