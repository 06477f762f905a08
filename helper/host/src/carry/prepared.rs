//! A carry before its migration: which taps it is about, and whether its halves stand ready yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::check::{Foreseen, foresee, tap_of};
use super::conductor::{Conductor, NEVER_MS};
use super::pace::Pace;
use super::settings::CarrySettings;
use crate::evacuate::CarryOutcome;
use crate::hypervisor::{Host, JobWhich};

/// The destination knows the domain's tap within this time after the migration began: a busy host takes long to start a QEMU, and
/// until then the migration goes on slowly.
const TAP: Duration = Duration::from_secs(60);
const OVER: &str = "the migration was over before the halves stood ready";
/// Between two questions for it.
const TAP_LOOK: Duration = Duration::from_millis(20);

/// A carry that waits for its migration to begin.
#[derive(Debug)]
pub(crate) struct Prepared {
    settings: CarrySettings,
    source: Arc<dyn Host>,
    destination: Arc<dyn Host>,
    domain: String,
    how: How,
}

#[derive(Debug)]
enum How {
    /// Both halves stand ready.
    Ready(Box<Conductor>),
    /// They are started once the destination knows its tap; this is the source's, and the migration's pace until then.
    Source(String, Pace),
}

impl Prepared {
    /// All that can be had before the migration.
    ///
    /// # Errors
    /// Why there is no carry.
    pub(crate) async fn new(
        settings: &CarrySettings,
        source: &Arc<dyn Host>,
        destination: &Arc<dyn Host>,
        domain: &str,
    ) -> Result<Self, String> {
        if let Some(obstacle) = &settings.obstacle {
            return Err(obstacle.clone());
        }
        let hosts = [Arc::clone(source), Arc::clone(destination)];
        let how = if let Some(taps) = &settings.taps {
            let told = source.taps(domain).await;
            if let Ok(told) = told
                && !told.is_empty()
                && !told.contains(&taps[0])
            {
                return Err(format!(
                    "{} is no tap of the domain's on {}",
                    taps[0],
                    source.uri()
                ));
            }
            let pace = pace_of(settings, source, domain).await?;
            let conductor = Conductor::start(settings, taps, hosts, domain, pace).await;
            How::Ready(Box::new(conductor.map_err(|(reason, _)| reason)?))
        } else {
            let Foreseen { tap, alone } = foresee(settings, source.as_ref(), domain).await?;
            let mut pace = pace_of(settings, source, domain).await?;
            if let Some(reason) = alone {
                let conductor = Conductor::alone(settings, &tap, hosts, domain, pace, reason);
                let how = How::Ready(Box::new(conductor.await?));
                return Ok(Self::of(settings, source, destination, domain, how));
            }
            // Or the domain would be gone before the halves stand ready, which both hosts can have.
            let kept = source.set_max_downtime(domain, NEVER_MS).await;
            let begun = match kept {
                Ok(()) => pace.begin().await,
                kept => kept,
            };
            if let Err(error) = begun {
                ease(source.as_ref(), domain, settings, pace).await;
                return Err(error.to_string());
            }
            How::Source(tap, pace)
        };
        Ok(Self::of(settings, source, destination, domain, how))
    }

    fn of(
        settings: &CarrySettings,
        source: &Arc<dyn Host>,
        destination: &Arc<dyn Host>,
        domain: &str,
        how: How,
    ) -> Self {
        Self {
            settings: settings.clone(),
            source: Arc::clone(source),
            destination: Arc::clone(destination),
            domain: domain.to_owned(),
            how,
        }
    }

    /// There is no migration: what was set for it is as it was.
    pub(crate) async fn give_up(self, reason: String) -> CarryOutcome {
        if let How::Source(_, pace) = self.how {
            ease(self.source.as_ref(), &self.domain, &self.settings, pace).await;
        }
        without(reason)
    }

    /// Follows the migration, which has been asked for, until the carry is over; `ended` tells how the migration ended.
    pub(crate) async fn run(self, mut ended: oneshot::Receiver<bool>) -> CarryOutcome {
        let Self {
            settings,
            source,
            destination,
            domain,
            how,
        } = self;
        let started = match how {
            How::Ready(conductor) => Ok(*conductor),
            How::Source(tap, pace) => {
                match tap_there(destination.as_ref(), &domain, &mut ended).await {
                    Ok(to) => {
                        let taps = [tap, to];
                        start_late(&settings, taps, pace, &source, destination, &domain).await
                    }
                    Err(reason) => Err((reason, pace)),
                }
            }
        };
        match started {
            Ok(conductor) => conductor.run(ended).await,
            Err((reason, pace)) => {
                // Nobody will stop the domain, so the hypervisor shall.
                ease(source.as_ref(), &domain, &settings, pace).await;
                without(reason)
            }
        }
    }
}

fn without(reason: String) -> CarryOutcome {
    CarryOutcome {
        reason: Some(reason),
        ..CarryOutcome::default()
    }
}

async fn ease(source: &dyn Host, domain: &str, settings: &CarrySettings, mut pace: Pace) {
    if let Err(error) = pace.release().await {
        tracing::warn!("{error}");
    }
    let eased = source.set_max_downtime(domain, settings.max_pause_ms).await;
    if let Err(error) = eased {
        tracing::warn!("{error}");
    }
}

async fn start_late(
    settings: &CarrySettings,
    taps: [String; 2],
    pace: Pace,
    source: &Arc<dyn Host>,
    destination: Arc<dyn Host>,
    domain: &str,
) -> Result<Conductor, (String, Pace)> {
    let job = source.job(domain, JobWhich::Current).await;
    // A tap that is closed now would keep frames from a guest that has arrived.
    if !job.is_ok_and(|job| job.is_under_way()) {
        return Err((OVER.to_owned(), pace));
    }
    let hosts = [Arc::clone(source), destination];
    Conductor::start(settings, &taps, hosts, domain, pace).await
}

async fn pace_of(
    settings: &CarrySettings,
    source: &Arc<dyn Host>,
    domain: &str,
) -> Result<Pace, String> {
    let pace = Pace::of(source, domain, settings.bandwidth_mib_s).await;
    pace.map_err(|error| error.to_string())
}

/// The tap of a domain that has one, on the destination once it has the domain. No longer than the migration goes on, of which
/// `ended` tells.
pub(super) async fn tap_there(
    host: &dyn Host,
    domain: &str,
    ended: &mut oneshot::Receiver<bool>,
) -> Result<String, String> {
    let end = Instant::now() + TAP;
    loop {
        let found = tokio::select! {
            found = tap_of(host, domain) => found,
            _ = &mut *ended => return Err(OVER.to_owned()),
        };
        match found {
            Err(reason) if Instant::now() >= end => return Err(reason),
            Err(_) => sleep(TAP_LOOK).await,
            found => return found,
        }
    }
}
