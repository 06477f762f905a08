//! What `tandem-host` has to report after a fault.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_lab::libvirt::Ran;

/// What the report says of a domain that is at home with its VF in use.
pub(crate) fn at_home(verdict: &str) -> Value {
    json!({"verdict": verdict, "runs-on": "source", "vf-attached": true, "recovery-needed": false,
        "left": []})
}

/// What the report says of one that has moved and uses its VF there.
pub(crate) fn moved() -> Value {
    json!({"verdict": "done", "runs-on": "destination", "vf-attached": true, "guest": "uses-vf",
        "recovery-needed": false, "left": [], "cause": null})
}

/// The report, held against what it must say; `cause` is its code.
pub(crate) fn expect(ran: &Ran, code: i32, cause: Option<&str>, wanted: &Value) -> Result<()> {
    ensure!(ran.code == Some(code), "wanted exit code {code}: {ran:#?}");
    let report = ran.json()?;
    for (key, value) in wanted.as_object().context("an object")? {
        ensure!(&report[key] == value, "{key} is not {value}: {report:#}");
    }
    let said = report["cause"]["code"].as_str();
    ensure!(said == cause, "the cause is not {cause:?}: {report:#}");
    Ok(())
}
