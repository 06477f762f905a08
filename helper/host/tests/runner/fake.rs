//! Two hosts in memory, behind the trait of the real ones.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tandem_core::types::PciAddress;
use tandem_host::hypervisor::{
    ActiveDomain, AgentChannel, Answer, ChannelSocket, Claim, DomainFacts, DomainLook, DomainState,
    EventSender, Events, Host, HostError, JobFacts, JobPhase, JobWhich, Look, MigrateOptions,
    Migration, Nic, NicKind, event_queue,
};
use tandem_host::xml::Bonds;
use tokio::sync::watch;

/// How fast a migration goes that nobody slows down, in bytes per second.
pub(crate) const FULL_SPEED: u64 = 1 << 30;

/// What both hosts know, and what was asked of them.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    states: [Option<DomainState>; 2],
    nics: [Vec<Nic>; 2],
    pub(crate) records: [Option<String>; 2],
    pub(crate) claims: [Vec<Claim>; 2],
    /// What was done, in order, in words.
    pub(crate) done: Vec<String>,
    /// The domain's XML that the migration was given.
    pub(crate) xml: Option<String>,
    /// How often plugging in fails.
    pub(crate) attach_failures: u32,
    /// This device can never be plugged in.
    pub(crate) broken: Option<String>,
    /// What was set for the next migration: how fast it may be, and how long the guest may stand still.
    pub(crate) speed: Option<u64>,
    pub(crate) max_downtime_ms: Option<u64>,
    /// The destination says that its VF can't be plugged in.
    pub(crate) device_is_refused: bool,
    /// The hypervisor does not begin it.
    pub(crate) migration_is_refused: bool,
    /// The migration fails.
    pub(crate) migration_fails: bool,
    /// So many cancels are refused.
    pub(crate) cancel_refusals: u32,
    /// Looks show the migration.
    pub(crate) shows_job: bool,
    /// So often plugging in on the destination gives no answer, and goes on.
    pub(crate) attach_hangs: u32,
    /// Calls to plug in that have not ended, and the most at once.
    attaching: usize,
    pub(crate) attaching_at_once: usize,
    /// The migration ends only when it is cancelled.
    pub(crate) migration_hangs: bool,
    /// The guest does nothing about an unplug.
    pub(crate) unplug_is_ignored: bool,
    /// Where the guest is asked, on each host.
    pub(crate) channels: [Option<PathBuf>; 2],
}

/// One of them.
#[derive(Debug)]
pub(crate) struct FakeHost {
    uri: &'static str,
    index: usize,
    pair: Arc<Mutex<Pair>>,
    /// Kept, so that the stream of events does not end.
    events: EventSender,
    stream: Mutex<Option<Events>>,
    cancelled: watch::Sender<bool>,
}

#[derive(Debug)]
struct FakeMigration {
    pair: Arc<Mutex<Pair>>,
    cancelled: watch::Receiver<bool>,
}

pub(crate) fn function(index: usize) -> PciAddress {
    PciAddress {
        domain: 0,
        bus: 3,
        device: 16,
        function: u8::try_from(index).unwrap_or_default(),
    }
}

fn vf(index: usize) -> Nic {
    Nic {
        alias: format!("hostdev{index}"),
        mac: None,
        kind: NicKind::Hostdev,
        pci_source: Some(function(index)),
        xml: format!("vf {index}"),
    }
}

/// A domain that runs on the first host, with its VF.
pub(crate) fn pair() -> (Arc<Mutex<Pair>>, Arc<FakeHost>, Arc<FakeHost>) {
    let pair = Arc::new(Mutex::new(Pair {
        states: [Some(DomainState::Running), None],
        nics: [vec![vf(0)], Vec::new()],
        ..Pair::default()
    }));
    let host = |index, uri| {
        let (events, stream) = event_queue();
        Arc::new(FakeHost {
            uri,
            index,
            pair: Arc::clone(&pair),
            events,
            stream: Mutex::new(Some(stream)),
            cancelled: watch::Sender::new(false),
        })
    };
    let hosts = (host(0, "fake:///source"), host(1, "fake:///destination"));
    (pair, hosts.0, hosts.1)
}

impl Pair {
    /// The domain has these devices on the first host.
    pub(crate) fn begin_with(&mut self, numbers: &[usize]) {
        self.nics[0] = numbers.iter().map(|number| vf(*number)).collect();
    }

    /// The host that runs the domain, and how many VFs it has there.
    pub(crate) fn place(&self) -> (Option<usize>, usize) {
        let runs = Some(DomainState::Running);
        let place = self.states.iter().position(|state| *state == runs);
        (place, place.map_or(0, |place| self.nics[place].len()))
    }
}

impl FakeHost {
    fn with<T>(&self, act: impl FnOnce(&mut Pair, usize) -> T) -> T {
        act(&mut self.pair.lock().expect("no holder panics"), self.index)
    }

    fn other(&self, what: &str) -> HostError {
        HostError::Other {
            host: self.uri.to_owned(),
            what: what.to_owned(),
            reason: "it failed".to_owned(),
        }
    }
}

fn ready<'a, T: Send + 'a>(answer: Result<T, HostError>) -> Answer<'a, T> {
    Box::pin(async move { answer })
}

impl Look for FakeHost {
    fn uri(&self) -> &str {
        self.uri
    }
    fn look<'a>(&'a self, name: &'a str) -> Answer<'a, DomainLook> {
        let look = self.with(|pair, index| DomainLook {
            facts: DomainFacts {
                state: pair.states[index].unwrap_or(DomainState::Absent),
                nics: pair.nics[index].clone(),
                channel: pair.channels[index].clone().map(|socket| AgentChannel {
                    socket: Some(ChannelSocket::named(&socket)),
                    refused: None,
                    opened: Some(true),
                }),
                ..DomainFacts::absent(name)
            },
            bonds: Ok(None),
            progress: pair.records[index].clone(),
            claims: pair.claims[index].clone(),
        });
        ready(Ok(look))
    }
    fn taps<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<String>> {
        ready(Ok(vec!["vnet0".to_owned()]))
    }
    fn active(&self) -> Answer<'_, Vec<ActiveDomain>> {
        unreachable!("an evacuation asks for one domain")
    }
    fn job<'a>(&'a self, _: &'a str, _: JobWhich) -> Answer<'a, JobFacts> {
        let begun = |pair: &Pair| pair.done.iter().any(|one| one.starts_with("migrate"));
        let shows = self.with(|pair, _| pair.shows_job && begun(pair));
        let phase = if shows {
            JobPhase::PostCopy
        } else {
            JobPhase::None
        };
        ready(Ok(JobFacts {
            phase,
            ..JobFacts::default()
        }))
    }
    fn events(&self) -> Answer<'_, Events> {
        assert!(
            self.events
                .send(tandem_host::hypervisor::DomainEvent::lost())
        );
        let stream = self.stream.lock().expect("no holder panics").take();
        ready(stream.ok_or_else(|| self.other("events")))
    }
}

impl Host for FakeHost {
    fn set_bonds<'a>(&'a self, _: &'a str, _: Option<&'a Bonds>) -> Answer<'a, ()> {
        ready(Ok(()))
    }

    fn set_progress<'a>(&'a self, _: &'a str, record: Option<&'a str>) -> Answer<'a, ()> {
        self.with(|pair, index| pair.records[index] = record.map(str::to_owned));
        ready(Ok(()))
    }

    fn set_claim<'a>(&'a self, _: &'a str, claim: &'a Claim) -> Answer<'a, ()> {
        self.with(|pair, index| {
            let claims = &mut pair.claims[index];
            claims.retain(|one| one.token != claim.token);
            claims.extend((!claim.text.is_empty()).then(|| claim.clone()));
        });
        ready(Ok(()))
    }

    fn detach<'a>(&'a self, _: &'a str, nic: &'a Nic) -> Answer<'a, ()> {
        self.with(|pair, index| {
            pair.done.push(format!("detach {}", nic.xml));
            if !pair.unplug_is_ignored {
                pair.nics[index].retain(|one| one != nic);
            }
        });
        ready(Ok(()))
    }

    fn attach<'a>(&'a self, _: &'a str, device: &'a str) -> Answer<'a, ()> {
        let attaching = Attaching::begin(&self.pair);
        let hangs = self.with(|pair, _| {
            let hangs = pair.attach_hangs > 0;
            pair.attach_hangs = pair.attach_hangs.saturating_sub(1);
            hangs
        });
        if hangs {
            return Box::pin(async move {
                let _attaching = attaching;
                std::future::pending().await
            });
        }
        let plugged = self.with(|pair, index| {
            pair.done.push(format!("attach {device}"));
            let broken = pair.broken.as_deref() == Some(device);
            let fails = pair.attach_failures > 0 || broken;
            if fails {
                pair.attach_failures = pair.attach_failures.saturating_sub(1);
            } else {
                let number = device
                    .strip_prefix("vf ")
                    .and_then(|number| number.parse().ok());
                pair.nics[index].push(vf(number.expect("a device of these")));
            }
            !fails
        });
        ready(plugged.then_some(()).ok_or_else(|| self.other("attach")))
    }

    fn check_device<'a>(&'a self, device: &'a str, _: usize) -> Answer<'a, ()> {
        let refused = self.with(|pair, _| pair.device_is_refused);
        ready(if refused {
            Err(HostError::Refused {
                host: self.uri.to_owned(),
                what: device.to_owned(),
                reason: "its network is not active".to_owned(),
            })
        } else {
            Ok(())
        })
    }

    fn migrate<'a>(
        &'a self,
        _: &'a str,
        destination: &'a str,
        options: &'a MigrateOptions,
    ) -> Answer<'a, Box<dyn Migration>> {
        self.with(|pair, _| {
            pair.done.push(format!("migrate to {destination}"));
            pair.xml = options.xml.clone();
        });
        if self.with(|pair, _| pair.migration_is_refused) {
            return ready(Err(self.other("migrate")));
        }
        let migration = FakeMigration {
            pair: Arc::clone(&self.pair),
            cancelled: self.cancelled.subscribe(),
        };
        ready(Ok(Box::new(migration)))
    }

    fn cancel<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        let refuses = self.with(|pair, _| {
            pair.done.push("cancel".to_owned());
            let refuses = pair.cancel_refusals > 0;
            pair.cancel_refusals = pair.cancel_refusals.saturating_sub(1);
            refuses
        });
        if refuses {
            return ready(Err(self.other("cancel")));
        }
        self.cancelled.send_replace(true);
        ready(Ok(()))
    }

    fn speed<'a>(&'a self, _: &'a str) -> Answer<'a, u64> {
        ready(Ok(FULL_SPEED))
    }

    fn set_speed<'a>(&'a self, _: &'a str, bytes_per_s: u64) -> Answer<'a, ()> {
        self.with(|pair, _| pair.speed = Some(bytes_per_s));
        ready(Ok(()))
    }

    fn set_max_downtime<'a>(&'a self, _: &'a str, ms: u64) -> Answer<'a, ()> {
        self.with(|pair, _| pair.max_downtime_ms = Some(ms));
        ready(Ok(()))
    }

    fn unpause<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        ready(Err(self.other("unpause")))
    }
}

/// A call to plug in, as long as it lives.
struct Attaching(Arc<Mutex<Pair>>);

impl Attaching {
    fn begin(pair: &Arc<Mutex<Pair>>) -> Self {
        let mut both = pair.lock().expect("no holder panics");
        both.attaching += 1;
        both.attaching_at_once = both.attaching_at_once.max(both.attaching);
        Self(Arc::clone(pair))
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        self.0.lock().expect("no holder panics").attaching -= 1;
    }
}

impl Migration for FakeMigration {
    fn give_up(&mut self) -> Answer<'_, ()> {
        let mut pair = self.pair.lock().expect("no holder panics");
        pair.done.push("give up".to_owned());
        ready(Ok(()))
    }

    fn finished(&mut self) -> Answer<'_, ()> {
        Box::pin(async {
            let (fails, hangs) = {
                let pair = self.pair.lock().expect("no holder panics");
                (pair.migration_fails, pair.migration_hangs)
            };
            let domain = "guest".to_owned();
            if hangs {
                let cancelled = self.cancelled.wait_for(|cancelled| *cancelled).await;
                assert!(cancelled.is_ok(), "its host is gone");
                return Err(HostError::Cancelled { domain });
            }
            if fails {
                let reason = "connection reset".to_owned();
                return Err(HostError::MigrationFailed { domain, reason });
            }
            let mut pair = self.pair.lock().expect("no holder panics");
            pair.states = [None, Some(DomainState::Running)];
            let record = pair.records[0].take();
            pair.records[1] = record;
            Ok(())
        })
    }
}
