//! The policy that the host provided, kept in /run so that a restart of the
//! service, but not a reboot, finds it again.

use std::path::Path;

use anyhow::{Context, Result};
use tandem_core::policy::{Origin, Policy};

use crate::runtime;

pub use crate::runtime::HOST_POLICY_PATH;

/// Reads it; `None` if the host has given none since boot.
///
/// # Errors
/// The file is there and can't be read, parsed or used.
pub fn load_host_policy(path: &Path) -> Result<Option<Policy>> {
    let Some(mut policy) = runtime::load::<Policy>(path)? else {
        return Ok(None);
    };
    policy.origin = Origin::Host;
    policy
        .validate()
        .with_context(|| format!("{} can't be used", path.display()))?;
    Ok(Some(policy))
}
