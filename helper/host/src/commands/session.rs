//! What `migrate` and `recover` do alike: run the evacuation and report.

use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::outcome_text::{Folders, left, text_of};
use super::progress_line::ProgressLine;
use crate::control::tell_carry;
use crate::evacuate::{Cause, CauseCode, Evacuation, Outcome, Verdict};
use crate::execute::{RunEnd, Runner, Stops};
use crate::words;

/// Runs it, reports, and returns the exit code. The report has these warnings, which people have been told.
pub(super) async fn run(
    runner: Runner,
    evacuation: Evacuation,
    json: bool,
    warnings: Vec<String>,
) -> anyhow::Result<u8> {
    report(runner, evacuation, json, warnings, true).await
}

/// The same, and nothing is said of a check that found nothing.
pub(super) async fn run_until_ready(
    runner: Runner,
    evacuation: Evacuation,
    json: bool,
    warnings: Vec<String>,
) -> anyhow::Result<u8> {
    report(runner, evacuation, json, warnings, false).await
}

async fn report(
    runner: Runner,
    evacuation: Evacuation,
    json: bool,
    mut warnings: Vec<String>,
    tells_ready: bool,
) -> anyhow::Result<u8> {
    let spec = evacuation.spec().clone();
    let mut folders = Folders::default();
    folders.state.clone_from(&runner.folder);
    if let Some(records) = &runner.records {
        records.folder().clone_into(&mut folders.records);
    }
    let serve = runner.lease_client.socket().map(Path::to_owned);
    let mut line = ProgressLine::new();
    match runner.run(evacuation, stops()?, &mut line).await {
        RunEnd::Left { runs_on } => {
            let message = left(&spec, runs_on, &folders);
            eprintln!("{}", words::message(&message));
            let cause = Cause::new(CauseCode::Aborted, message);
            let mut outcome = Outcome::without_run(Verdict::Interrupted, cause);
            outcome.last_seen_on = runs_on;
            outcome.recovery_needed = true;
            outcome.warnings = warnings;
            told(json, &outcome)
        }
        RunEnd::With(outcome) if outcome.verdict == Verdict::Ready && !tells_ready => {
            Ok(outcome.exit_code())
        }
        RunEnd::With(mut outcome) => {
            warnings.append(&mut outcome.warnings);
            outcome.warnings = warnings;
            if let (Some(serve), Some(carry)) = (serve, &outcome.carry)
                && let Err(error) = tell_carry(&serve, carry.into()).await
            {
                tracing::warn!("the metrics lack this carry: {error}");
            }
            if !json {
                print!("{}", text_of(&spec, &outcome, &folders));
            }
            told(json, &outcome)
        }
    }
}

/// Says why nothing was begun, if the report has a code for it; returns the exit code.
pub(super) fn or_refused(json: bool, ended: anyhow::Result<u8>) -> anyhow::Result<u8> {
    match ended.map_err(anyhow::Error::downcast::<Cause>) {
        Ok(code) => Ok(code),
        Err(Err(error)) => Err(error),
        Err(Ok(cause)) => {
            eprintln!("refused: {}", words::message(&cause.message));
            told(json, &Outcome::without_run(Verdict::Refused, cause))
        }
    }
}

/// Prints the report for programs, where that is wanted; returns the exit code.
pub(crate) fn told(json: bool, outcome: &Outcome) -> anyhow::Result<u8> {
    if json {
        println!("{}", serde_json::to_string_pretty(outcome)?);
    }
    Ok(outcome.exit_code())
}

/// Each SIGINT or SIGTERM asks to stop.
fn stops() -> std::io::Result<Stops> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (ask, stops) = watch::channel(0);
    tokio::spawn(async move {
        while !ask.is_closed() {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            ask.send_modify(|asked| *asked += 1);
        }
    });
    Ok(stops)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};

    #[tokio::test]
    async fn each_signal_asks_to_stop() {
        let mut stops = stops().unwrap();
        for (count, name) in [(1, Signal::INT), (2, Signal::TERM)] {
            kill_process(getpid(), name).unwrap();
            stops.wait_for(|asked| *asked == count).await.unwrap();
        }
    }
}
