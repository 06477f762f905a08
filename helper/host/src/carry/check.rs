//! Whether halves could do their work on both hosts, asked before anything is changed: a migration that goes without a carry
//! shall not have been slowed down for one.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::chunk::{Chunk, Chunks, MAX_BYTES};
use super::settings::CarrySettings;
use super::words::{FromHalf, word_of};
use crate::evacuate::Side;
use crate::hypervisor::Host;
use crate::words::printable;

/// A host that has not answered by then is done without: as long as halves may take to stand ready, as a busy host takes seconds to
/// start a process.
const CHECK: Duration = Duration::from_secs(15);
/// The most that is read of what a command says on its standard error, in bytes, and how long for that.
const COMPLAINT_BYTES: u64 = 4096;
const COMPLAINT: Duration = Duration::from_millis(500);

/// What a carry could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreseen {
    /// The source's tap.
    pub(crate) tap: String,
    /// Why the destination can have no half: frames go back to the network then.
    pub(crate) alone: Option<String>,
}

/// Asks both hosts, each for a bounded time.
///
/// # Errors
/// Why there can be no carry.
pub(crate) async fn foresee(
    settings: &CarrySettings,
    source: &dyn Host,
    domain: &str,
) -> Result<Foreseen, String> {
    if let Some(obstacle) = &settings.obstacle {
        return Err(obstacle.clone());
    }
    let tap = match &settings.taps {
        Some([tap, _]) => tap.clone(),
        None => tap_of(source, domain).await?,
    };
    let (here, there) = tokio::join!(
        check(settings.check_command(Side::Source, Some(&tap), domain)),
        check(settings.check_command(Side::Destination, None, domain)),
    );
    here.map_err(|reason| format!("the source's half: {reason}"))?;
    let alone = there.err();
    let alone = alone.map(|reason| format!("the destination's half: {reason}"));
    Ok(Foreseen { tap, alone })
}

/// The tap of a domain that has one.
pub(super) async fn tap_of(host: &dyn Host, domain: &str) -> Result<String, String> {
    let uri = host.uri();
    if uri.starts_with("qmp:") {
        return Err("a plain QEMU does not tell its taps: name them by --carry=TAP".to_owned());
    }
    let taps = host.taps(domain).await.map_err(|error| error.to_string())?;
    only(taps, uri)
}

/// Several would have to be held, stopped for and opened at one moment.
fn only(taps: Vec<String>, uri: &str) -> Result<String, String> {
    <[String; 1]>::try_from(taps)
        .map(|[tap]| tap)
        .map_err(|taps| match taps.len() {
            0 => format!("the domain has no tap on {uri}"),
            many => format!(
                "the domain has {many} taps on {uri} ({}), and the frames of one alone can be carried",
                taps.join(", ")
            ),
        })
}

/// What the process of a half says of its host.
async fn check(command: Vec<String>) -> Result<(), String> {
    match timeout(CHECK, ask(&command)).await {
        Ok(told) => told,
        Err(_) => Err(format!("no answer within {} s", CHECK.as_secs())),
    }
}

async fn ask(words: &[String]) -> Result<(), String> {
    let [program, arguments @ ..] = words else {
        return Err("no command is given for a half".to_owned());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} can't be started: {error}"))?;
    let (output, complaints) = (child.stdout.take(), child.stderr.take());
    let answer = match output {
        Some(output) => answer(output).await,
        None => None,
    };
    match (answer, complaints) {
        (Some(answer), _) => answer,
        (None, Some(complaints)) => Err(last_line(complaints, program).await),
        (None, None) => Err(format!("{program} said nothing")),
    }
}

/// The first word that is one; `None` if it ends without.
async fn answer(mut output: impl AsyncRead + Unpin) -> Option<Result<(), String>> {
    let mut chunks = Chunks::default();
    let mut buffer = vec![0; MAX_BYTES];
    while let Ok(bytes @ 1..) = output.read(&mut buffer).await {
        let mut rest = &buffer[..bytes];
        while let Some(chunk) = chunks.next(&mut rest).ok()? {
            let Chunk::Word(word) = chunk else {
                return None;
            };
            match word_of(&word).ok()? {
                Some(FromHalf::Ready) => return Some(Ok(())),
                Some(FromHalf::Failed(reason)) => return Some(Err(printable(&reason))),
                _ => {}
            }
        }
    }
    None
}

/// Such as ssh's, or a shell's that has no such program.
async fn last_line(complaints: impl AsyncRead + Unpin, program: &str) -> String {
    let mut bytes = Vec::new();
    let mut bounded = complaints.take(COMPLAINT_BYTES);
    let _ = timeout(COMPLAINT, bounded.read_to_end(&mut bytes)).await;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(|| format!("{program} said nothing"), printable)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    fn says(json: &str) -> String {
        format!(
            r#"word='{json}'; printf "\\002\\000\\000\\000\\$(printf %o ${{#word}})%s" "$word";"#
        )
    }

    #[test]
    fn a_domain_with_several_taps_or_none_is_told_so() {
        let taps = |names: &[&str]| only(names.iter().copied().map(str::to_owned).collect(), "u");
        assert_eq!(taps(&["vnet0"]), Ok("vnet0".to_owned()));
        let reason = taps(&["vnet0", "vnet1"]).unwrap_err();
        assert_eq!(
            reason,
            "the domain has 2 taps on u (vnet0, vnet1), and the frames of one alone can be carried"
        );
        assert_eq!(taps(&[]).unwrap_err(), "the domain has no tap on u");
    }

    #[tokio::test]
    async fn a_host_that_can_is_told_from_one_that_can_not() {
        let ready = says(r#""ready""#) + "sleep 60";
        assert_eq!(check(shell(&ready)).await, Ok(()));
        let failed = says(r#"{"failed":"no rights"}"#);
        assert_eq!(check(shell(&failed)).await, Err("no rights".to_owned()));
    }

    /// An older tandem-host does not know the option, a host without one has no such program, and ssh is refused.
    #[tokio::test]
    async fn one_line_says_why_there_is_no_half() {
        let script = "echo first >&2; printf 'bash: tandem-host: not found\\n\\n' >&2; exit 127";
        let reason = check(shell(script)).await.unwrap_err();
        assert_eq!(reason, "bash: tandem-host: not found");
        let reason = check(shell("printf 'no chunk at all'; exit 1")).await;
        assert_eq!(reason, Err("sh said nothing".to_owned()));
        let nowhere = vec!["/nowhere/tandem-host".to_owned()];
        let reason = check(nowhere).await.unwrap_err();
        assert!(
            reason.starts_with("/nowhere/tandem-host can't be started"),
            "{reason}"
        );
    }

    /// Such as one that ssh does not reach.
    #[tokio::test]
    async fn a_host_that_does_not_answer_costs_a_bounded_moment() {
        let begun = Instant::now();
        let reason = check(shell("exec sleep 60")).await;
        assert_eq!(reason, Err("no answer within 15 s".to_owned()));
        assert!(begun.elapsed() < CHECK * 4, "{:?}", begun.elapsed());
    }
}
