//! Live migration of a guest from one QEMU to another.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Qemu, QmpEvent};

/// A busy guest under emulation that does not converge within this time does not converge.
const MIGRATION_LIMIT: Duration = Duration::from_secs(180);
/// The longest pause QEMU plans for, in ms. By its own default of 300 it stops the guest as soon as the first pass
/// leaves no more memory than it believes to send within that, wherever the pass is then: for 5 to 220 ms, by chance.
pub const DOWNTIME_LIMIT_MS: u64 = 20;
/// Bytes per second: no limit that matters between two processes.
pub(super) const BANDWIDTH: u64 = 10 << 30;

/// What a migration took, as QEMU reports it (`query-migrate`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    /// From the command to the end, in ms.
    pub total_ms: u64,
    /// How long the guest stood still, in ms.
    pub downtime_ms: u64,
    /// Memory sent, in bytes.
    pub transferred_bytes: u64,
    /// When memory began to be sent: after QEMU has unplugged what it unplugs by itself.
    pub began: Instant,
    /// When the destination began to run the guest.
    pub resumed: Instant,
}

impl Qemu {
    /// Moves the guest to `destination`, which was started with [`super::Start::Incoming`] and the same
    /// devices, over the unix socket given. On failure the guest goes on here.
    pub fn migrate_to(&self, destination: &Self, socket: &Path) -> Result<MigrationReport> {
        let moved = self.try_migrate(destination, socket);
        if moved.is_err() && self.console().check().is_ok() {
            // Whatever state the migration was in, the guest must run again here.
            let _ = self.qmp().execute("migrate_cancel", json!({}));
            let _ = self.qmp().execute("cont", json!({}));
        }
        moved.context("the migration failed")
    }

    fn try_migrate(&self, destination: &Self, socket: &Path) -> Result<MigrationReport> {
        let capabilities = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        let uri = json!({ "uri": format!("unix:{}", socket.display()) });
        for side in [destination, self] {
            side.qmp()
                .execute("migrate-set-capabilities", capabilities.clone())?;
            side.qmp().clear_events();
        }
        let parameters = json!({ "downtime-limit": DOWNTIME_LIMIT_MS, "max-bandwidth": BANDWIDTH });
        self.qmp().execute("migrate-set-parameters", parameters)?;
        destination.qmp().execute("migrate-incoming", uri.clone())?;
        self.qmp().execute("migrate", uri)?;

        let ended = self
            .qmp()
            .wait_event("the end of the migration", MIGRATION_LIMIT, is_end)?;
        let status = self.qmp().execute("query-migrate", json!({}))?;
        if ended.data["status"] != "completed" {
            destination.console().check()?;
            bail!("QEMU reports: {status}");
        }
        let began = self
            .qmp()
            .wait_event("the migration's begin", MIGRATION_LIMIT, |event| {
                event.name == "MIGRATION" && event.data["status"] == "active"
            })?;
        let resumed = destination.qmp().wait_event(
            "RESUME on the destination",
            MIGRATION_LIMIT,
            |event| event.name == "RESUME",
        )?;
        Ok(MigrationReport {
            total_ms: number(&status["total-time"]),
            downtime_ms: number(&status["downtime"]),
            transferred_bytes: number(&status["ram"]["transferred"]),
            began: began.received,
            resumed: resumed.received,
        })
    }
}

pub(super) fn is_end(event: &QmpEvent) -> bool {
    event.name == "MIGRATION"
        && matches!(
            event.data["status"].as_str(),
            Some("completed" | "failed" | "cancelled")
        )
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
