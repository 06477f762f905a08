//! What a status says of switchovers: whether one is prepared for, happened, was measured.

use tandem_core::Status;
use tandem_core::status::Switchover;

/// The guest's kernel takes the programs that count frames.
fn counts_frames(status: &Status) -> bool {
    let mut parts = status.sources.iter().flat_map(|source| &source.parts);
    parts.any(|part| part.name == "port_ingress" && part.ok)
}

/// The kernel itself would redirect the frames of a VF that is taken without a word, or never will.
pub fn is_armed(status: &Status) -> bool {
    !counts_frames(status) || status.bonds.iter().all(|bond| bond.fast_path_armed)
}

/// Switchovers of the first bond since the service started.
pub fn count(status: &Status) -> u64 {
    status.bonds.first().map_or(0, |bond| bond.switchover_count)
}

/// The gap of the last switchover is known, or never will be.
pub fn is_measured(status: &Status) -> bool {
    !counts_frames(status) || last(status).is_some_and(|last| last.gap.is_some())
}

/// There was a switchover after the one of this number, and [`is_measured`].
pub fn is_measured_since(status: &Status, number: u64) -> bool {
    last(status).is_some_and(|last| last.number > number) && is_measured(status)
}

/// The latest change of who carries the traffic.
pub fn last(status: &Status) -> Option<&Switchover> {
    status.bonds.first()?.switchovers.last()
}
