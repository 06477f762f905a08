//! How long each part of an evacuation may take.

/// How long things may take, in ms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// All checks together.
    pub check_ms: u64,
    /// A host that can't be asked for so long before the start is a refusal.
    pub unreachable_ms: u64,
    /// A look is so long of use, where no event says otherwise.
    pub look_every_ms: u64,
    /// Between a look and one that an event makes due.
    pub look_pause_ms: u64,
    /// Another one who claims the domain at the same moment has so long to go on or to withdraw: several calls to a
    /// slow host.
    pub rival_ms: u64,
    /// The guest's release of the VF.
    pub prepare_ms: u64,
    /// The unplug, with all its repetitions.
    pub unplug_ms: u64,
    /// An unplug without an answer is asked for again after so long.
    pub unplug_retry_ms: u64,
    /// How often the unplug is asked for.
    pub unplug_requests: u32,
    /// A rollback waits so long for an unplug that was asked for and may still happen.
    pub unplug_settle_ms: u64,
    /// The migration, before it is cancelled.
    pub migrate_ms: u64,
    /// A post-copy that broke off is gone on with so often.
    pub resume_every_ms: u64,
    /// No migration seen for so long, and its handle given up, means that there is none.
    pub quiet_ms: u64,
    /// So long may it be unclear where the domain runs.
    pub unclear_ms: u64,
    /// From the end of everything else until the carry is over.
    pub carry_ms: u64,
    /// A domain that a carry's stop left paused on the destination may stand still for so long before it is resumed here.
    pub carry_resume_ms: u64,
    /// Plugging in on the destination.
    pub plug_ms: u64,
    /// Plugging in again on the source.
    pub restore_ms: u64,
    /// Until the guest says that it uses the VF.
    pub verify_ms: u64,
    /// Cleaning up.
    pub release_ms: u64,
    /// The record is written anew so often, as a sign of life.
    pub heartbeat_ms: u64,
    /// No sign of life for so long: the owner is dead.
    pub stale_ms: u64,
    /// First wait before something is tried again; doubles.
    pub retry_first_ms: u64,
    /// Longest such wait.
    pub retry_max_ms: u64,
    /// An action that timed out has taken effect by then, or never will.
    pub settle_ms: u64,
    /// An action whose executor does not tell its end for so long has timed out.
    pub action_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            check_ms: 60_000,
            unreachable_ms: 15_000,
            look_every_ms: 1_000,
            look_pause_ms: 50,
            rival_ms: 180_000,
            prepare_ms: 20_000,
            unplug_ms: 60_000,
            unplug_retry_ms: 12_000,
            unplug_requests: 5,
            unplug_settle_ms: 15_000,
            migrate_ms: 3_600_000,
            quiet_ms: 10_000,
            unclear_ms: 120_000,
            carry_ms: 135_000,
            carry_resume_ms: 2_000,
            resume_every_ms: 5_000,
            plug_ms: 120_000,
            restore_ms: 120_000,
            verify_ms: 60_000,
            release_ms: 30_000,
            heartbeat_ms: 10_000,
            stale_ms: 90_000,
            retry_first_ms: 500,
            retry_max_ms: 10_000,
            settle_ms: 10_000,
            action_ms: 60_000,
        }
    }
}
