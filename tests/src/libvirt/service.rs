//! The service in a domain's guest: its start and its end, as a service manager has them.

use anyhow::{Context, Result};

use super::guest::LibvirtGuest;
use crate::agent::Background;
use crate::tandem::{self, PROGRAM, STEP_LIMIT};

/// SIGKILL.
const KILL: i32 = 9;

impl LibvirtGuest<'_> {
    /// Starts the service in the guest.
    pub fn start_service(&self) -> Result<()> {
        let log = [("TANDEM_LOG", "debug,aya=warn,aya_obj=warn")];
        let service = self.agent().spawn(&[PROGRAM, "run"], &log, tandem::LOG)?;
        self.service.set(Some(service));
        // It answers once it serves.
        let ask = format!("{PROGRAM} status --json >/dev/null");
        self.agent()
            .wait_sh(&ask, STEP_LIMIT)
            .context("the service does not answer")?;
        Ok(())
    }

    /// The service that was started last.
    pub fn service(&self) -> Result<Background> {
        self.service.get().context("the service does not run")
    }

    /// Kills the service as `kill -9` does, and waits until it is gone.
    pub fn kill_service(&self) -> Result<()> {
        let service = self.service()?;
        self.agent().signal(service, KILL)?;
        self.agent()
            .wait(service, STEP_LIMIT)?
            .context("the service outlived its end")?;
        self.service.set(None);
        Ok(())
    }
}
