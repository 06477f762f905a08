//! Hot-plug: NICs that leave and arrive while the guest runs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::Qemu;
use super::nic::Nic;

/// A guest under emulation takes about a second; native hot-plug waits 5 s by itself.
const UNPLUG_LIMIT: Duration = Duration::from_secs(60);

impl Qemu {
    /// Plugs in a NIC over a tap that exists.
    pub fn plug_nic(&self, nic: &Nic, tap: &str) -> Result<()> {
        self.qmp()
            .execute("netdev_add", nic.netdev(tap))
            .with_context(|| format!("cannot attach the tap {tap} to `{}`", nic.id))?;
        self.qmp()
            .execute("device_add", nic.device())
            .with_context(|| format!("cannot plug in the NIC `{}`", nic.id))?;
        Ok(())
    }

    /// Asks the guest to give up a NIC and waits until it did; the tap is free then. Gives the time from
    /// the request to QEMU's `DEVICE_DELETED`.
    pub fn unplug_nic(&self, nic: &Nic) -> Result<Duration> {
        let asked = Instant::now();
        self.request_unplug(nic)?;
        self.wait_unplugged(nic)?;
        Ok(asked.elapsed())
    }

    /// Asks the guest to give up a NIC, and does not wait.
    pub fn request_unplug(&self, nic: &Nic) -> Result<()> {
        self.qmp()
            .execute("device_del", json!({ "id": nic.id }))
            .with_context(|| format!("cannot unplug the NIC `{}`", nic.id))?;
        Ok(())
    }

    /// Waits until a NIC asked for has left, and frees its tap.
    pub fn wait_unplugged(&self, nic: &Nic) -> Result<()> {
        let what = format!("DEVICE_DELETED of `{}`", nic.id);
        let event = self.qmp().wait_event(&what, UNPLUG_LIMIT, |event| {
            matches!(
                event.name.as_str(),
                "DEVICE_DELETED" | "DEVICE_UNPLUG_GUEST_ERROR"
            ) && event.data["device"] == nic.id.as_str()
        })?;
        if event.name == "DEVICE_UNPLUG_GUEST_ERROR" {
            bail!("the guest refused to give up the NIC `{}`", nic.id);
        }
        self.qmp()
            .execute("netdev_del", json!({ "id": nic.netdev_id() }))?;
        Ok(())
    }
}
