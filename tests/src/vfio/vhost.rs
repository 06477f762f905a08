//! A guest with no more than a virtio NIC, whose frames the hypervisor's kernel itself takes from the tap and gives to the guest
//! (vhost-net), moves between the hypervisors.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::domain::DOMAIN;
use super::{Hypervisor, VfioGuest};
use crate::Lab;
use crate::artifacts::host_tools::{self, HostTool};
use crate::command::progress;
use crate::net::{ALL_V4, GUEST_V4};
use crate::probe::{FrameOptions, FrameReport};

/// Broadcasts a second: there are fewer of them in a network.
const BROADCASTS_HZ: u32 = 20;

/// Both hypervisors, and the guest on one of them.
pub struct VhostStage<'lab> {
    hypervisors: [Hypervisor; 2],
    guest: VfioGuest<'lab>,
    /// The hypervisor that the guest is on.
    at: usize,
}

/// What one move came to.
pub struct VhostMove {
    /// Of frames for the guest, and from it.
    pub frames: FrameReport,
    /// Of broadcasts.
    pub broadcasts: FrameReport,
    /// What `migrate` said.
    pub report: Value,
}

impl<'lab> VhostStage<'lab> {
    /// Boots all of them.
    ///
    /// # Errors
    /// One does not boot, or the guest's NIC is not vhost's.
    pub fn new(lab: &'lab Lab) -> Result<Self> {
        host_tools::ensure(&HostTool::LIBVIRT)?;
        progress("starting two emulated hypervisors");
        let (a, b) = Hypervisor::pair(lab, &lab.small_guest().image()?)?;
        progress("booting their guest on a");
        let guest = VfioGuest::boot(lab, &a, None, false)?;
        let stage = Self {
            hypervisors: [a, b],
            guest,
            at: 0,
        };
        stage.has_vhost()?;
        Ok(stage)
    }

    /// Moves the guest to the other hypervisor, with its frames carried or not, and counts so many a second meanwhile.
    ///
    /// # Errors
    /// It does not move.
    pub fn migrate(&mut self, carried: bool, rate_hz: u32) -> Result<VhostMove> {
        let [a, b] = &self.hypervisors;
        let (here, there) = if self.at == 0 { (a, b) } else { (b, a) };
        let (more, code): (&[&str], _) = if carried {
            (&["--carry"], 0)
        } else {
            // It ends without the VF that it was to have.
            (&["--no-carry", "--yes-degraded", "--no-agent"], 12)
        };
        let mut words = if carried {
            self.guest.migrate_arguments(here, there)?
        } else {
            self.guest.plain_arguments(here, there)?
        };
        words.extend(more.iter().map(|word| (*word).to_owned()));
        let options = |rate_hz| FrameOptions {
            rate_hz,
            ..FrameOptions::default()
        };
        let frames = self.guest.probe_frames_to(GUEST_V4, options(rate_hz))?;
        let broadcasts = self.guest.probe_frames_to(ALL_V4, options(BROADCASTS_HZ))?;
        let ran = self.guest.evacuate(&words, &[there, here])?;
        let moved = (frames.finish()?, broadcasts.finish()?);
        ensure!(
            ran.code == Some(code) && there.runs(DOMAIN)?,
            "{}\n{}\n{ran:#?}\n{}",
            moved.0,
            moved.1,
            there.log_tail()
        );
        self.at = 1 - self.at;
        self.has_vhost()?;
        self.nothing_is_left()?;
        Ok(VhostMove {
            frames: moved.0,
            broadcasts: moved.1,
            report: ran.json()?,
        })
    }

    /// The kernel of the guest's hypervisor serves its NIC.
    fn has_vhost(&self) -> Result<()> {
        let here = &self.hypervisors[self.at];
        let script = "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c /dev/vhost-net";
        let descriptors = here.sh(script).context("no process has vhost-net open")?;
        ensure!(descriptors.trim() == "1", "{descriptors} of vhost-net");
        Ok(())
    }

    /// Neither hypervisor has anything of a carry.
    fn nothing_is_left(&self) -> Result<()> {
        for hypervisor in &self.hypervisors {
            let script = "ip -brief link; bridge fdb show; ps -e -o args";
            let told = hypervisor.sh(script)?;
            let left = ["tdm", "carry-half"]
                .iter()
                .find(|one| told.contains(**one));
            ensure!(left.is_none(), "on {}: {told}", hypervisor.name());
        }
        Ok(())
    }
}
