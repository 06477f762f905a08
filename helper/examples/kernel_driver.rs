//! Does one thing to the running kernel as the service would, and prints what the machine would be
//! told, one input as JSON a line: for the lab, which puts a guest's kernel through the contract suite.
//!
//! Usage: `kernel_driver look`, which ends with the addresses and routes of all links, or
//! `kernel_driver act KIND`, with an `ActionKind` as JSON, which ends with the action's `done`.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tandem_core::action::{Action, ActionId, ActionKind};
use tandem_core::input::Input;
use tandem_guest::act::Executor;
use tandem_guest::observe::{Observed, Options, Sources};

/// Longer than the executor's and the observers' own limits.
const LIMIT: Duration = Duration::from_secs(30);
/// The only action there is.
const ACTION: ActionId = ActionId(1);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let work = match words[..] {
        ["look"] => None,
        ["act", kind] => {
            let kind = serde_json::from_str(kind).context("the action can't be read")?;
            Some(kind)
        }
        _ => bail!("usage: kernel_driver look | kernel_driver act KIND"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let inputs = tokio::time::timeout(LIMIT, inputs(work)).await;
        inputs.with_context(|| format!("no end within {} s", LIMIT.as_secs()))?
    });
    runtime.shutdown_background();
    let mut out = io::stdout().lock();
    for input in result? {
        serde_json::to_writer(&mut out, &input)?;
        writeln!(out)?;
    }
    Ok(())
}

/// What the observers say: up to all addressing, or up to the action's end.
async fn inputs(work: Option<ActionKind>) -> Result<Vec<Input>> {
    let mut sources = Sources::open(Options::default())?;
    let looks = work.is_none();
    if let Some(kind) = work {
        let action = Action { id: ACTION, kind };
        sources.complete(Executor::new().start(action).await);
    }
    let mut inputs = Vec::new();
    loop {
        for observed in sources.next().await? {
            let Observed::Input(input) = observed else {
                continue;
            };
            let is_last = match &input {
                Input::Addressings(_) => looks,
                Input::Done { action, .. } => *action == ACTION,
                _ => false,
            };
            inputs.push(input);
            if is_last {
                return Ok(inputs);
            }
        }
    }
}
