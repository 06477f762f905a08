//! What is asked and changed for a carry alone.

use super::{Virsh, read, refusal};
use crate::hypervisor::{DomainState, HostError};

/// libvirt has speeds in MiB/s.
const MIB: u64 = 1 << 20;

impl Virsh {
    /// One question, or two if it may be coming in; none of them waits for a job of the domain.
    pub(super) async fn state_alone(&self, name: &str) -> Result<DomainState, HostError> {
        let text = match self.about(name, "domstate", &["--reason"], None).await {
            Ok(text) => text,
            Err(HostError::NoSuchDomain { .. }) => return Ok(DomainState::Absent),
            Err(error) => return Err(error),
        };
        let (state, reason) = self.known_state(&text)?;
        let may_come_in =
            state == DomainState::Paused && read::MAY_COME_IN.contains(&reason.as_str());
        if may_come_in && self.is_incoming(name).await? {
            return Ok(DomainState::Incoming);
        }
        Ok(state)
    }

    pub(super) fn known_state(&self, text: &str) -> Result<(DomainState, String), HostError> {
        read::state(text).ok_or_else(|| HostError::Other {
            host: self.connection.uri.clone(),
            what: "virsh domstate".to_owned(),
            reason: format!("`{}` is no state", refusal::shortened(text)),
        })
    }

    /// Whoever asks for its XML while it comes in waits for the migration's end.
    pub(super) async fn taps_of(&self, name: &str) -> Result<Vec<String>, HostError> {
        let what = ["--interface", "--nowait"];
        let told = self.about(name, "domstats", &what, None).await?;
        Ok(read::taps(&told))
    }

    pub(super) async fn speed_of(&self, name: &str) -> Result<u64, HostError> {
        let told = self.about(name, "migrate-getspeed", &[], None).await?;
        let mib_s = read::speed(&told).ok_or_else(|| HostError::Other {
            host: self.connection.uri.clone(),
            what: "virsh migrate-getspeed".to_owned(),
            reason: format!("`{}` is no speed", refusal::shortened(&told)),
        })?;
        Ok(mib_s.saturating_mul(MIB))
    }

    pub(super) async fn set_speed_of(&self, name: &str, bytes_per_s: u64) -> Result<(), HostError> {
        let speed = format!("--bandwidth={}", (bytes_per_s / MIB).max(1));
        self.about(name, "migrate-setspeed", &[&speed], None)
            .await
            .map(drop)
    }

    /// virsh takes no 0.
    pub(super) async fn set_max_downtime_of(&self, name: &str, ms: u64) -> Result<(), HostError> {
        let limit = format!("--downtime={}", ms.max(1));
        self.about(name, "migrate-setmaxdowntime", &[&limit], None)
            .await
            .map(drop)
    }
}
