//! Both halves stand ready, or the source's alone.

use std::time::Duration;

use tokio::time::timeout;

use super::asked::asked;
use crate::carry::relay::{HalfProcess, start, start_alone};
use crate::carry::words::{FromHalf, ToHalf};
use crate::evacuate::Side;
use crate::hypervisor::{DomainState, Host};
use crate::words::printable;

/// They do within this time, or there is none.
const READY: Duration = Duration::from_secs(15);

/// Starts both.
///
/// # Errors
/// Why there are not both.
pub(super) async fn begin(
    commands: [Vec<String>; 2],
    destination: &dyn Host,
    domain: &str,
) -> Result<[HalfProcess; 2], String> {
    let mut halves = start(commands)?;
    match timeout(READY, stand_ready(&mut halves, destination, domain)).await {
        Ok(ready) => ready.map(|()| halves),
        Err(_) => Err("the halves did not get ready in time".to_owned()),
    }
}

/// Starts the source's, which knows that there is no other one.
///
/// # Errors
/// Why there is none.
pub(super) async fn begin_alone(command: &[String]) -> Result<HalfProcess, String> {
    let mut command = command.to_vec();
    command.push("--without-destination".to_owned());
    let mut half = start_alone(&command)?;
    let ready = async {
        loop {
            let word = half.told.recv().await;
            if is_ready(Side::Source, word.as_ref())? {
                return Ok(());
            }
        }
    };
    match timeout(READY, ready).await {
        Ok(ready) => ready.map(|()| half),
        Err(_) => Err("it did not get ready in time".to_owned()),
    }
}

async fn stand_ready(
    [source, destination]: &mut [HalfProcess; 2],
    host: &dyn Host,
    domain: &str,
) -> Result<(), String> {
    let (mut agreed, mut source_ready, mut destination_ready) = (false, false, false);
    while !(agreed && source_ready && destination_ready) {
        tokio::select! {
            word = source.told.recv(), if !(agreed && source_ready) => {
                agreed |= word == Some(FromHalf::Agreed);
                source_ready |= is_ready(Side::Source, word.as_ref())?;
            }
            word = destination.told.recv(), if !destination_ready => {
                if word == Some(FromHalf::AskGuest) {
                    let state = asked(host.state(domain)).await;
                    destination.tell(if state == Some(DomainState::Incoming) {
                        ToHalf::GuestIncoming
                    } else {
                        ToHalf::GuestRuns
                    }).await;
                }
                destination_ready = is_ready(Side::Destination, word.as_ref())?;
            }
        }
    }
    Ok(())
}

fn is_ready(side: Side, word: Option<&FromHalf>) -> Result<bool, String> {
    match word {
        Some(FromHalf::Failed(reason)) => {
            let reason = printable(reason);
            Err(format!("the {}'s half: {reason}", side.as_str()))
        }
        Some(word) => Ok(*word == FromHalf::Ready),
        None => Err(format!("the {}'s half ended", side.as_str())),
    }
}
