//! What happens in one run, drawn from its seed.

use tandem_carry::Limits;

use crate::rng::Rng;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The source half dies.
    SourceDies,
    /// The destination half dies.
    DestinationDies,
    /// The stream is cut, with what is under way in it.
    StreamCut,
    /// The migration fails or is cancelled.
    MigrationFails,
    /// The guest never runs at the destination.
    NeverResumes,
    /// The hypervisor refuses the stop.
    StopRefused,
    /// The stop takes longer than the hold may.
    SlowStop,
    /// The guest stops in time, and whoever ordered that does not learn of it.
    StopUnknown,
    /// The hypervisor stops the guest by itself.
    OwnStop,
    /// Less may be kept than comes.
    SmallLimit,
    /// The other half says what it may not.
    Forged,
}

const FAULTS: [Fault; 12] = [
    Fault::None,
    Fault::SourceDies,
    Fault::DestinationDies,
    Fault::StreamCut,
    Fault::MigrationFails,
    Fault::NeverResumes,
    Fault::StopRefused,
    Fault::SlowStop,
    Fault::StopUnknown,
    Fault::OwnStop,
    Fault::SmallLimit,
    Fault::Forged,
];

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) fault: Fault,
    /// When the fault strikes, in ms.
    pub(crate) fault_ms: u64,
    pub(crate) limits: Limits,
    /// The switch does not know where the guest is, and floods, until it hears from it at the destination.
    pub(crate) floods: bool,
    /// From the guest's announcement until the switch sends its frames there, in ms.
    pub(crate) learn_ms: u64,
    /// From the switch to source and destination, in ms.
    pub(crate) way_ms: [u64; 2],
    /// Through the stream, in ms.
    pub(crate) stream_ms: u64,
    /// Messages that the stream takes at once, and how often, in ms: now and then it is slower than what comes.
    pub(crate) stream_takes: u64,
    pub(crate) stream_every_ms: u64,
    /// When the stream takes nothing for a while, and for how long, in ms.
    pub(crate) stream_stall_ms: [u64; 2],
    /// Frames that a tap's queue takes in a ms.
    pub(crate) tap_takes: u64,
    /// Until then the guest reads less than comes, so that its stop finds a queue to sweep. In ms.
    pub(crate) dozes_until_ms: u64,
    pub(crate) hold_at_ms: u64,
    /// From the order to the stop, in ms.
    pub(crate) stop_ms: u64,
    /// Until the half is told of the stop, in ms more than of all else; and whether it is told when it asks.
    pub(crate) stop_known_ms: u64,
    pub(crate) answers: bool,
    /// The half has a copy of the tap's descriptor, and sweeps what the guest leaves in its queue; for so long, in ms.
    pub(crate) sweeps_ms: Option<u64>,
    /// Who started the halves is there, and tells one that the other one is dead.
    pub(crate) witness: bool,
    /// From the stop until the migration is complete, in ms.
    pub(crate) device_ms: u64,
    /// Until a half hears from the hypervisor, in ms.
    pub(crate) notice_ms: u64,
    /// Frames in 1000 ms, to the guest and to a group.
    pub(crate) rate: [u64; 2],
    /// Of 1000 frames, so many are sent twice on purpose.
    pub(crate) twice: u64,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let fault = rng.pick(&FAULTS);
        let floods = rng.chance(300);
        let mut limits = Limits {
            frames: 10_000,
            bytes: 1_000_000,
            hold_ms: 40,
            drain_ms: 5,
            resume_ms: 300,
            settle_ms: 30,
            straggle_ms: 2,
            quiet_ms: 60,
            forward_ms: 1_500,
        };
        if fault == Fault::SmallLimit {
            limits.frames = usize::try_from(rng.between(1, 30)).expect("few");
        }
        // Longer than stragglers are waited for, now and then; not where a copy of them comes by the other way.
        let is_slow = !floods && rng.chance(50);
        let way_ms = if is_slow {
            rng.between(5, 12)
        } else {
            rng.between(1, 3)
        };
        let hold_at_ms = rng.between(10, 40);
        let stop_ms = if fault == Fault::SlowStop {
            rng.between(41, 60)
        } else {
            rng.between(0, 8)
        };
        let is_slow_stream = rng.chance(150);
        let is_long = rng.chance(100);
        let mut plan = Self {
            fault,
            // Not before the halves have agreed: nothing is asked of them before.
            fault_ms: rng.between(if fault == Fault::OwnStop { 12 } else { 1 }, 140),
            limits,
            floods,
            learn_ms: if floods || rng.chance(500) {
                0
            } else {
                rng.between(1, 300)
            },
            way_ms: [way_ms, rng.between(1, 3)],
            stream_ms: rng.between(1, 5),
            stream_takes: if is_slow_stream {
                1
            } else {
                rng.between(3, 20)
            },
            stream_every_ms: if is_slow_stream { rng.between(1, 5) } else { 1 },
            stream_stall_ms: if rng.chance(100) {
                [rng.between(10, 160), rng.between(1, 3 * limits.settle_ms)]
            } else {
                [0, 0]
            },
            tap_takes: rng.between(3, 20),
            dozes_until_ms: if rng.chance(if is_slow_stream { 700 } else { 100 }) {
                hold_at_ms + stop_ms
            } else {
                0
            },
            hold_at_ms,
            stop_ms,
            stop_known_ms: if fault == Fault::StopUnknown {
                rng.between(limits.hold_ms + 5, 3 * limits.hold_ms)
            } else {
                0
            },
            answers: rng.chance(500),
            sweeps_ms: rng.chance(700).then(|| rng.between(0, 2)),
            witness: rng.chance(700),
            // Longer than a guest that has arrived may take to run, now and then.
            device_ms: if is_long {
                rng.between(limits.resume_ms, 3 * limits.resume_ms)
            } else {
                rng.between(1, 60)
            },
            notice_ms: rng.between(0, 4),
            rate: [
                rng.between(400, 2_000),
                if is_slow { 0 } else { rng.between(0, 300) },
            ],
            twice: rng.between(0, 100),
        };
        // With the word of the stop in it, and for longer than the destination waits for that.
        if fault == Fault::None && rng.chance(150) {
            let from_ms = hold_at_ms + rng.between(2, 5 + stop_ms);
            plan.stream_stall_ms = [from_ms, rng.between(2, 5) * limits.settle_ms];
        }
        plan
    }
}
