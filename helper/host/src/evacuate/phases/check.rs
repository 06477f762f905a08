//! Everything that can be known before the start. Changes nothing.

use super::helpers::is_gone;
use super::step::{Next, Step};
use crate::evacuate::action::{ActionKey, ActionKind, GuestCall};
use crate::evacuate::cause::{Cause, CauseCode};
use crate::evacuate::input::{FailureKind, Namesake, RecordFact, SideFacts};
use crate::evacuate::phase::Phase;
use crate::evacuate::spec::{AgentUse, Side, VfIdentity};
use crate::evacuate::state::Evacuation;
use crate::evacuate::view::has_job;
use crate::hypervisor::{DomainState, JobOperation, Nic};
use crate::words::{printable, quoted};

/// What stands in the way, as far as it was looked for.
#[derive(Debug, Default)]
struct Found {
    causes: Vec<Cause>,
}

impl Found {
    /// Takes a refusal down and goes on; any other step comes first.
    fn note<T>(&mut self, room: Result<T, Step>) -> Result<Option<T>, Step> {
        match room {
            Ok(found) => Ok(Some(found)),
            Err(Step::Fail(cause)) => {
                self.causes.push(cause);
                Ok(None)
            }
            Err(step) => Err(step),
        }
    }

    /// Nothing will follow, so that nothing at all may be changed.
    fn only_looks(&self, it: &Evacuation) -> bool {
        it.notes.check_only || !self.causes.is_empty()
    }
}

/// All that stands in the way is told at once; of a domain that does not run, or that another evacuation has, only that.
pub(super) fn next(it: &Evacuation) -> Next {
    let mut found = Found::default();
    let patience_ms = it.limits.unreachable_ms;
    let source = found.note(it.see(Side::Source, patience_ms))?;
    let source_is_usable = source.is_some_and(|source| {
        let unusable = unusable(it, source);
        let is_usable = unusable.is_none();
        found.causes.extend(unusable);
        is_usable
    });
    if source_is_usable {
        found
            .causes
            .extend(it.notes.obstacles.certain.iter().cloned());
    }
    if let Some(source) = source.filter(|_| source_is_usable) {
        found.causes.extend(under_way(it, source));
        found.causes.extend(ambiguous(it, source));
        found.causes.extend(no_vf_named(it));
    }
    let destination = found.note(it.see(Side::Destination, patience_ms))?;
    if let Some(destination) = destination {
        found.causes.extend(occupied(it, destination));
    }
    if source_is_usable {
        guest(it, &mut found)?;
        unknown_vfs(it, &mut found);
    }
    if !found.only_looks(it) {
        return Ok(Step::Go(Phase::Claim));
    }
    if source_is_usable {
        let rival = it.rival(Side::Source, it.peek(Side::Source)?);
        found.causes.extend(rival);
    }
    if destination.is_some() {
        destination_vfs(it, &mut found)?;
    }
    if found.causes.is_empty() {
        return Ok(Step::End);
    }
    Ok(Step::Refuse(found.causes))
}

/// A plain QEMU waits for the domain from the start.
fn occupied(it: &Evacuation, destination: &SideFacts) -> Option<Cause> {
    if let Some(namesake) = &destination.in_the_way {
        let message = in_the_way(it, namesake);
        return Some(Cause::new(CauseCode::OnDestination, message));
    }
    if is_gone(destination) || destination.state == DomainState::Incoming {
        return None;
    }
    let message = format!(
        "the destination has a domain {} already; if this one was migrated there, ask it on {}",
        printable(it.record.spec.name(Side::Destination)),
        printable(&it.record.spec.destination_uri)
    );
    Some(Cause::new(CauseCode::OnDestination, message))
}

fn in_the_way(it: &Evacuation, namesake: &Namesake) -> String {
    let spec = &it.record.spec;
    let uri = printable(&spec.destination_uri);
    match namesake {
        Namesake::OfName(uuid) => {
            let name = spec.name(Side::Destination);
            format!(
                "the destination has another domain by the name {} (UUID {}), and libvirt takes no second one: rename \
                 or undefine that one on {uri} (`virsh domrename {} NEW-NAME`), or have this one come under another name \
                 by --dname",
                printable(name),
                printable(uuid),
                quoted(name)
            )
        }
        Namesake::OfUuid(name) => format!(
            "the destination has this domain's UUID under the name {}: if it is what is left of this one, undefine it on \
             {uri} (`virsh undefine {name}`) or have this one come under that name (--dname {name}); if not, one of them \
             needs another UUID",
            printable(name),
            name = quoted(name)
        ),
    }
}

/// A guest with bonds of its own knows best which VFs it would use; of all others the domain's XML tells.
fn unknown_vfs(it: &Evacuation, found: &mut Found) {
    for device in it.record.spec.of_bonds() {
        let guest = it.notes.devices[device].guest.as_ref();
        let cause = match guest.and_then(|guest| guest.knows_vf) {
            Some(true) => None,
            Some(false) => {
                let message = format!(
                    "the guest's own files define {}, and none of its VFs there is {}, so the guest would not use \
                     it; add its MAC to `vfs` in the guest (/etc/tandem), or give the VF in the file a MAC that is there",
                    it.record.spec.devices[device]
                        .bond()
                        .map_or_else(|| "its bond".to_owned(), printable),
                    it.name(Side::Destination, device)
                );
                Some(Cause::new(CauseCode::UnknownVf, message))
            }
            None => it.notes.obstacles.unknown_vfs.get(&device).cloned(),
        };
        found.causes.extend(cause);
    }
}

fn no_vf_named(it: &Evacuation) -> Option<Cause> {
    let spec = &it.record.spec;
    let lacks = |device: &usize| spec.devices[*device].destination.is_none();
    let lacking: Vec<usize> = spec.of_bonds().filter(lacks).collect();
    if lacking.is_empty() || spec.yes_degraded {
        return None;
    }
    let bonds = lacking
        .iter()
        .filter_map(|device| spec.devices[*device].bond());
    let options = bonds
        .clone()
        .map(|bond| format!("--vf {}=FILE", quoted(bond)));
    let options: Vec<String> = options.collect();
    let bonds: Vec<String> = bonds.map(printable).collect();
    let (what, option) = match spec.of_bonds().count() {
        0 | 1 => (String::new(), "--vf FILE".to_owned()),
        _ => (format!(" for {}", bonds.join(", ")), options.join(" ")),
    };
    let message = format!(
        "no VF is named for the destination{what}; name one with {option}, or agree to go on without with \
         --yes-degraded"
    );
    Some(Cause::new(CauseCode::NoVfNamed, message))
}

/// What [`ActionKind::ClaimVf`] would find, for one who does not go that far.
fn destination_vfs(it: &Evacuation, found: &mut Found) -> Result<(), Step> {
    for device in it.devices() {
        found.note(it.room_for(device, ActionKind::CheckVf { device }))?;
    }
    Ok(())
}

/// Why nothing may be begun, as the source shows the domain.
pub(super) fn source_refuses(it: &Evacuation, source: &SideFacts) -> Option<Cause> {
    let refuses = unusable(it, source).or_else(|| under_way(it, source));
    refuses.or_else(|| ambiguous(it, source))
}

/// It does not run, or another evacuation has it: nothing else that could be found has a meaning.
fn unusable(it: &Evacuation, source: &SideFacts) -> Option<Cause> {
    let domain = printable(&it.record.spec.domain);
    if source.state != DomainState::Running {
        let message = format!(
            "domain {domain} does not run on the source ({:?}); a VF can be unplugged only from a \
             guest that runs",
            source.state
        );
        return Some(Cause::new(CauseCode::NotRunning, message));
    }
    match &source.record {
        RecordFact::Absent => {}
        RecordFact::Unreadable(why) => {
            return Some(Cause::new(CauseCode::RecordUnreadable, why.clone()));
        }
        RecordFact::Present(record) => {
            let (code, what) = match record.owner {
                Some(_) => (
                    CauseCode::Claimed,
                    "is being evacuated, or was and was killed",
                ),
                None => (CauseCode::RecoveryNeeded, "was evacuated and lacks its VF"),
            };
            let owner = record.owner_in_words();
            let message = format!(
                "domain {domain} {what}: driven by {owner}; if that is over, run `tandem-host \
                 recover {}`",
                quoted(&it.record.spec.domain)
            );
            return Some(Cause::new(code, message));
        }
    }
    None
}

fn under_way(it: &Evacuation, source: &SideFacts) -> Option<Cause> {
    if has_job(source) {
        let job = source.job.operation;
        let message = format!(
            "{} of domain {} is under way; wait until it has ended, or end it (`virsh domjobinfo {name}` \
             shows it, `virsh domjobabort {name}` ends it)",
            job.describe(),
            printable(&it.record.spec.domain),
            name = quoted(&it.record.spec.domain)
        );
        let code = match job {
            JobOperation::Migration => CauseCode::MigrationUnderWay,
            _ => CauseCode::JobUnderWay,
        };
        return Some(Cause::new(code, message));
    }
    None
}

/// A device that could be taken for another one would make every later look a guess.
fn ambiguous(it: &Evacuation, source: &SideFacts) -> Option<Cause> {
    let fits = |identity: &VfIdentity| {
        let fits = source.nics.iter().filter(|nic| identity.is(nic));
        fits.collect::<Vec<_>>()
    };
    let leaves = |nic: &Nic| {
        let mut leaving = it.record.spec.devices.iter();
        leaving.any(|one| one.source.as_ref().is_some_and(|vf| vf.identity.is(nic)))
    };
    for (device, one) in it.record.spec.devices.iter().enumerate() {
        let own = one.source.as_ref().map(|vf| &vf.identity);
        let other = one.destination.as_ref().map(|vf| &vf.identity);
        // Both hosts may give a device one and the same name, also that of another one that leaves; nothing that stays
        // in the domain may have it.
        let strangers = other.map_or(0, |other| {
            let strangers = fits(other).into_iter();
            strangers.filter(|nic| !leaves(nic)).count()
        });
        let side = match (own.map_or(0, |own| fits(own).len()), strangers) {
            (0 | 1, 0) => continue,
            (0 | 1, _) => Side::Destination,
            _ => Side::Source,
        };
        let message = format!(
            "{} is meant on the {}, and another device of the domain would be taken for it; give it an alias of \
             its own (`<alias name='ua-vf'/>`)",
            it.name(side, device),
            side.as_str()
        );
        return Some(Cause::new(CauseCode::AmbiguousVf, message));
    }
    None
}

/// A guest that could not keep its traffic is not touched.
fn guest(it: &Evacuation, found: &mut Found) -> Result<(), Step> {
    if it.record.spec.agent == AgentUse::Never || !it.has_bonds() {
        return Ok(());
    }
    // Whether a VF is unknown, the guest's status shows; it gets nothing before.
    let only_looks = found.only_looks(it) || !it.notes.obstacles.unknown_vfs.is_empty();
    let answers = found.note(answers(it, only_looks))?;
    if answers != Some(true) {
        return Ok(());
    }
    let told = found.note(status(it, only_looks))?;
    if told != Some(true) {
        return Ok(());
    }
    let lacking = it.record.spec.of_bonds();
    let lacking = lacking.filter(|device| !is_ready(it, *device, only_looks));
    for device in lacking {
        let bond = it.record.spec.devices[device].bond();
        let of = bond.map(|bond| format!(" for {}", printable(bond)));
        let reason = it.notes.devices[device].guest.as_ref();
        let message = format!(
            "the guest has no standby{} that could carry its traffic: {}; see `tandem status` in the guest",
            of.unwrap_or_default(),
            reason.map_or("it told no status", |guest| guest.reason.as_str())
        );
        let cause = Cause::new(CauseCode::GuestNotReady, message);
        found.causes.push(cause);
    }
    Ok(())
}

/// It is there, is understood, and has its bonds. False if it is to be done without it.
fn answers(it: &Evacuation, only_looks: bool) -> Result<bool, Step> {
    let mut calls = vec![GuestCall::Hello];
    if it.record.spec.configure && !only_looks {
        calls.push(GuestCall::Configure);
    }
    for call in calls {
        let tries = it.tries(ActionKey::Guest(call));
        if tries.accepted_ms.is_some() {
            continue;
        }
        if let Some(failure) = &tries.last
            && (!it.asks_guest(call) || failure.kind == FailureKind::AgentHostile)
        {
            // To go on without it was agreed for a guest that does not answer, not for one that says no.
            if it.guest_is_optional() && failure.kind != FailureKind::AgentRefused {
                return Ok(false);
            }
            return Err(Step::Fail(Cause::of_agent(failure)));
        }
        return Err(it.call(Side::Source, call));
    }
    Ok(true)
}

/// It told how its bonds are: well, or for long not. False if it is to be done without it.
fn status(it: &Evacuation, only_looks: bool) -> Result<bool, Step> {
    let status = GuestCall::Status;
    let tries = it.tries(ActionKey::Guest(status));
    let told = tries.accepted_ms.is_some();
    let mut bonds = it.record.spec.of_bonds();
    if told && bonds.all(|device| is_ready(it, device, only_looks)) {
        return Ok(true);
    }
    // Looks at a slow host may have taken all of the time: the guest is asked once all the same.
    let asked = told || tries.failures > 0;
    let late = asked && it.in_phase_ms() >= it.limits.check_ms;
    if late || !it.asks_guest(status) {
        return match &tries.last {
            _ if it.guest_is_optional() && !told => Ok(false),
            Some(failure) => Err(Step::Fail(Cause::of_agent(failure))),
            None => Ok(told),
        };
    }
    let again_ms = tries.accepted_ms.map(|at| at + it.limits.look_every_ms);
    match again_ms {
        Some(at_ms) if it.now_ms < at_ms => Err(Step::WaitUntil(at_ms)),
        _ => Err(it.call(Side::Source, status)),
    }
}

/// The bond of that device could do without it.
fn is_ready(it: &Evacuation, device: usize, only_looks: bool) -> bool {
    let Some(guest) = &it.notes.devices[device].guest else {
        return false;
    };
    // It would be given the bond first, which only checking does not do.
    let would_get_it = only_looks && it.record.spec.configure && !guest.bond_known;
    would_get_it || (guest.bond_known && guest.standby_usable)
}
