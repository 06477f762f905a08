//! A guest's whole state in a file, and a guest that goes on from there.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::migrate::{BANDWIDTH, is_end};
use super::{Qemu, QmpEvent};

/// A few hundred MiB to or from a file, on a busy machine.
const FILE_LIMIT: Duration = Duration::from_secs(120);
/// From the end of a migration until QEMU has put it away.
const GO_ON_LIMIT: Duration = Duration::from_secs(30);
const GO_ON_STEP: Duration = Duration::from_millis(20);

impl Qemu {
    /// Writes the guest's state into `file`, which must not exist. The guest stands still meanwhile and goes on
    /// afterwards, whether that worked or not.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        self.qmp().execute("stop", json!({}))?;
        let saved = self.move_state("migrate", file);
        self.go_on()?;
        saved.with_context(|| format!("cannot save the guest's state in {}", file.display()))
    }

    /// Goes on with the guest that was saved in `file`. This QEMU was started with [`super::Start::Incoming`] and
    /// the same devices.
    pub(crate) fn load(&self, file: &Path) -> Result<()> {
        // Nobody moved. Asked to announce itself, a virtio NIC that is taken down in the same second hangs, and all of the
        // guest's network with it: `virtnet_close` waits under RTNL for `virtnet_config_changed_work`, which waits for RTNL
        // (`drivers/net/virtio_net.c`, 6.12).
        let silent = json!({ "announce-rounds": 0 });
        self.qmp().execute("migrate-set-parameters", silent)?;
        self.move_state("migrate-incoming", file)
            .with_context(|| format!("cannot start from the state in {}", file.display()))?;
        // The state was saved while the guest stood still, and it does so after it was loaded.
        self.go_on()
    }

    /// QEMU tells that a migration has completed before it takes `cont` again, and tells nothing of that (11.1).
    fn go_on(&self) -> Result<()> {
        let deadline = Instant::now() + GO_ON_LIMIT;
        loop {
            match self.qmp().execute("cont", json!({})) {
                Err(error)
                    if format!("{error:#}").contains("not finalized")
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(GO_ON_STEP);
                }
                done => return done.map(drop),
            }
        }
    }

    fn move_state(&self, command: &str, file: &Path) -> Result<()> {
        let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        self.qmp().execute("migrate-set-capabilities", events)?;
        let bandwidth = json!({ "max-bandwidth": BANDWIDTH });
        self.qmp().execute("migrate-set-parameters", bandwidth)?;
        self.qmp().clear_events();
        let uri = json!({ "uri": format!("file:{}", file.display()) });
        self.qmp().execute(command, uri)?;
        let ended: QmpEvent = self
            .qmp()
            .wait_event("the end of the state", FILE_LIMIT, is_end)?;
        if ended.data["status"] != "completed" {
            self.console().check()?;
            let status = self.qmp().execute("query-migrate", json!({}))?;
            bail!("QEMU reports: {status}");
        }
        Ok(())
    }
}
