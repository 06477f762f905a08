//! What a guest's network looks like from inside, as `ip` tells it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::agent::Agent;
use crate::qemu::Mac;

/// How often a guest is asked while something is waited for.
const STEP: Duration = Duration::from_millis(100);

impl Agent {
    /// What `ip -json` tells; `arguments` such as `["-d", "link"]`.
    pub fn ip_json(&self, arguments: &str) -> Result<Value> {
        let text = self.sh(&format!("ip -json {arguments}"))?;
        serde_json::from_str(&text).with_context(|| format!("`ip -json {arguments}` gave no JSON"))
    }

    /// The name of the hardware interface with this permanent MAC, if there is one.
    pub fn find_interface(&self, mac: Mac) -> Result<Option<String>> {
        let links = self.ip_json("-details link")?;
        let wanted = mac.to_string();
        let found = links.as_array().into_iter().flatten().find(|link| {
            // Devices on top of others (bonds, VLANs) have no parent on a bus. `permaddr` is told only
            // where it differs from `address`.
            let own = link.get("permaddr").unwrap_or(&link["address"]);
            link.get("parentbus").is_some() && own.as_str() == Some(wanted.as_str())
        });
        Ok(found
            .and_then(|link| link["ifname"].as_str())
            .map(str::to_owned))
    }

    /// Waits for the hardware interface with this permanent MAC and gives its name.
    pub fn wait_interface(&self, mac: Mac, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(name) = self.find_interface(mac)? {
                return Ok(name);
            }
            if Instant::now() >= deadline {
                bail!(
                    "no interface with the MAC {mac} appeared within {} s",
                    limit.as_secs()
                );
            }
            std::thread::sleep(STEP);
        }
    }

    /// Waits until a shell command succeeds; gives what it printed.
    pub fn wait_sh(&self, script: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let output = self.run(&["sh", "-c", script], crate::agent::COMMAND_LIMIT)?;
            if output.success() {
                return Ok(output.text());
            }
            if Instant::now() >= deadline {
                bail!(
                    "`{script}` did not succeed within {} s: {}",
                    limit.as_secs(),
                    output.error_text()
                );
            }
            std::thread::sleep(STEP);
        }
    }
}
