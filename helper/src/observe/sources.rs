//! All sources behind one `next()`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use tandem_core::Input;
use tandem_core::input::Source;
use tandem_core::link::Link;
use tandem_core::status::SourceHealth;
use tandem_core::types::{IfName, Ifindex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::agenda::{Agenda, Job};
use super::clock::ClockWatch;
use super::completion::Completion;
use super::occupants::Occupants;
use super::reader::Found;
use super::settle::Settling;
use super::sysfs::Sysfs;
use super::udev::{Devices, UdevEvent};
use super::upper_devices::UpperDevices;
use crate::netlink::filter::Filter;
use crate::netlink::hint::{Hint, hints};
use crate::netlink::request::RequestError;
use crate::netlink::traffic_control::{self, SHARED_BLOCK};
use crate::netlink::watch::Watch;

/// `RTNLGRP_*`, `include/uapi/linux/rtnetlink.h`, 6.12.
const LINK: u32 = 1;
const IPV4_IFADDR: u32 = 5;
const IPV4_ROUTE: u32 = 7;
const IPV6_IFADDR: u32 = 9;
const IPV6_ROUTE: u32 = 11;

/// Most that [`Sources::next`] passes on at once.
const BATCH: usize = 64;
/// Time between two readings of addressing that nobody waits for, so that a
/// storm of route changes costs ten readings a second and not a core.
pub(super) const ADDRESSING_PAUSE: Duration = Duration::from_millis(100);
/// Time between two looks whether chains of filters have changed: who has thousands of filters costs one look a second.
pub(super) const CHAINS_PAUSE: Duration = Duration::from_secs(1);
/// Time after which a reading that failed is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// Longest that an action's `Done` waits for a reading.
pub(super) const READING_LIMIT: Duration = Duration::from_secs(5);

/// One thing that a source has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are inputs, and few wait at a time"
)]
pub enum Observed {
    /// For the machine.
    Input(Input),
    /// A virtio-serial port came or went: the channel's device may have to be opened anew.
    AgentPortsChanged,
}

/// A source that can't be opened or read any more. The text names it and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A socket could not be opened or set up.
    #[error("cannot open {what}: {error}; {remedy}")]
    Open {
        /// Which.
        what: &'static str,
        /// Why not.
        error: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A socket that worked does no longer.
    #[error("cannot read {what}: {error}; restart the service")]
    Read {
        /// Which.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
}

/// Where to look; the default is the running system.
#[derive(Debug, Clone)]
pub struct Options {
    /// Root of sysfs.
    pub sysfs: PathBuf,
    /// udev's runtime folder: `control` in it tells that udevd runs.
    pub udev_run: PathBuf,
    /// Receive buffer of each multicast socket, in bytes.
    pub receive_buffer_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sysfs: PathBuf::from("/sys"),
            udev_run: PathBuf::from("/run/udev"),
            receive_buffer_bytes: 4 * 1024 * 1024,
        }
    }
}

/// Links, addressing, device events and the clock.
#[derive(Debug)]
pub struct Sources {
    pub(super) sysfs: Sysfs,
    pub(super) names: BTreeSet<IfName>,
    pub(super) links: Watch,
    pub(super) addressing: Watch,
    /// Queueing disciplines and filters of bonds and NICs.
    pub(super) chains: Watch,
    pub(super) chains_not_before: Instant,
    pub(super) devices: Devices,
    pub(super) clock: ClockWatch,
    pub(super) settling: Settling,
    /// Links that were reported, as they were reported.
    pub(super) known: BTreeMap<Ifindex, Link>,
    /// What is on the bonds among them.
    pub(super) upper_devices: UpperDevices,
    /// What is on the NICs among them.
    pub(super) occupants: Occupants,
    /// New NICs that udev has finished with; they are reported with the next dump, which shows what lies on them.
    pub(super) finished: BTreeSet<Ifindex>,
    pub(super) agenda: Agenda,
    pub(super) reading: Option<Reading>,
    pub(super) ready: VecDeque<Observed>,
    pub(super) addressing_not_before: Instant,
    /// Whether the guest has an IPv4 route to everywhere, as it was last said.
    pub(super) way_out: Option<bool>,
    /// Sources whose last reading failed.
    pub(super) failed: BTreeSet<Source>,
    /// When the next reading may be tried after one has failed.
    pub(super) retry_at: Option<Instant>,
}

/// A reading that is under way.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) job: Job,
    pub(super) handle: JoinHandle<Result<Found, RequestError>>,
    pub(super) limit: Option<Instant>,
}

/// Why [`Sources::next`] woke up.
enum Wake {
    /// Of links or of addressing.
    Notified(Source),
    Chains,
    Devices,
    Settling,
    Clock,
    Read(Result<Found, String>),
    Timer,
}

impl Sources {
    /// Subscribes to everything. The first batches of [`Sources::next`] then hold the
    /// health of each source, all links and all addressing.
    ///
    /// Has to be called within a tokio runtime with time and I/O, which also has
    /// to run it; sockets belong to the calling thread's network namespace.
    pub fn open(options: Options) -> Result<Self, ObserveError> {
        let Options {
            sysfs,
            udev_run,
            receive_buffer_bytes,
        } = options;
        let watch = |what, groups: &[u32], filter: &Filter| {
            Watch::open(NETLINK_ROUTE, groups, filter, receive_buffer_bytes).map_err(|error| {
                ObserveError::Open {
                    what,
                    error,
                    remedy: "allow the service AF_NETLINK sockets (RestrictAddressFamilies=)",
                }
            })
        };
        let links = watch(
            "link notifications",
            &[LINK],
            &Filter::links(&BTreeSet::new(), &[], &[]),
        )?;
        let addressing = watch(
            "address notifications",
            &[IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE],
            &Filter::addressing(&[]),
        )?;
        let chains = watch(
            "notifications of filters",
            &[traffic_control::GROUP],
            &Filter::traffic_control(&[]),
        )?;
        let clock = ClockWatch::open().map_err(|error| ObserveError::Open {
            what: "the clock's timer",
            error,
            remedy: "allow the service timerfd_create (SystemCallFilter=)",
        })?;
        let devices = Devices::open(&udev_run, receive_buffer_bytes);

        let mut agenda = Agenda::default();
        agenda.all_links();
        agenda.all_addressing();
        let mut sources = Self {
            sysfs: Sysfs::new(sysfs),
            names: BTreeSet::new(),
            links,
            addressing,
            chains,
            chains_not_before: Instant::now(),
            devices,
            clock,
            settling: Settling::new(udev_run),
            known: BTreeMap::new(),
            upper_devices: UpperDevices::default(),
            occupants: Occupants::default(),
            finished: BTreeSet::new(),
            agenda,
            reading: None,
            ready: VecDeque::new(),
            addressing_not_before: Instant::now(),
            way_out: None,
            failed: BTreeSet::new(),
            retry_at: None,
        };
        sources.report_health(Source::Links, SourceHealth::Working);
        sources.report_health(Source::Addressing, SourceHealth::Working);
        let devices = sources.devices.health();
        sources.say(devices);
        Ok(sources)
    }

    /// The next batch, never empty. Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> Result<Vec<Observed>, ObserveError> {
        loop {
            self.start_reading();
            if !self.ready.is_empty() {
                let batch = self.ready.len().min(BATCH);
                return Ok(self.ready.drain(..batch).collect());
            }
            let wake = self.wait().await.map_err(|error| ObserveError::Read {
                what: "notifications",
                error,
            })?;
            self.handle(wake)?;
        }
    }

    /// Links of these names are reported whatever their kind, so that a name taken by
    /// another device is seen. Call it with the policy's bond names when it changes.
    pub fn set_names(&mut self, names: &[IfName]) -> Result<(), ObserveError> {
        let names: BTreeSet<IfName> = names.iter().cloned().collect();
        if names != self.names {
            self.names = names;
            self.set_link_filter()?;
            self.agenda.all_links();
        }
        Ok(())
    }

    /// Takes an action that has ended; what it touched is read, then its `Input::Done`
    /// follows, both from [`Sources::next`].
    pub fn complete(&mut self, mut completion: Completion) {
        for input in std::mem::take(&mut completion.learnt) {
            self.say(input);
        }
        if completion.touched.source == Some(Source::Udev) {
            self.ready.push_back(Observed::AgentPortsChanged);
        }
        for &link in &completion.touched.links {
            self.mark_link(link);
        }
        self.agenda.completion(completion);
        let released = self.agenda.release(false);
        self.say_all(released);
    }

    async fn wait(&mut self) -> io::Result<Wake> {
        let timer = self.next_timer();
        let reading = async {
            match &mut self.reading {
                Some(reading) => match (&mut reading.handle).await {
                    Ok(found) => found.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                },
                None => std::future::pending().await,
            }
        };
        let timer = async {
            match timer {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let chains = async {
            tokio::time::sleep_until(self.chains_not_before).await;
            self.chains.readable().await
        };
        tokio::select! {
            result = self.links.readable() => result.map(|()| Wake::Notified(Source::Links)),
            result = self.addressing.readable() => result.map(|()| Wake::Notified(Source::Addressing)),
            result = chains => result.map(|()| Wake::Chains),
            result = self.devices.readable() => result.map(|()| Wake::Devices),
            result = self.settling.readable() => result.map(|()| Wake::Settling),
            result = self.clock.readable() => result.map(|()| Wake::Clock),
            found = reading => Ok(Wake::Read(found)),
            () = timer => Ok(Wake::Timer),
        }
    }

    fn handle(&mut self, wake: Wake) -> Result<(), ObserveError> {
        let read_error = |what| move |error| ObserveError::Read { what, error };
        match wake {
            Wake::Notified(source) => self.take_hints(source)?,
            Wake::Chains => self.take_chains()?,
            Wake::Devices => self.read_devices()?,
            Wake::Settling => {
                let waiting = self
                    .settling
                    .drain()
                    .map_err(read_error("udev's notifications"))?;
                waiting.into_iter().for_each(|link| self.agenda.link(link));
            }
            Wake::Clock => {
                let jump = self.clock.take().map_err(read_error("the clock's timer"))?;
                jump.into_iter().for_each(|jump| self.say(jump));
            }
            Wake::Read(found) => self.take_found(found)?,
            Wake::Timer => self.timer_is_up(),
        }
        Ok(())
    }

    fn take_hints(&mut self, source: Source) -> Result<(), ObserveError> {
        let (watch, what) = match source {
            Source::Links => (&mut self.links, "link notifications"),
            _ => (&mut self.addressing, "address notifications"),
        };
        let mut found = BTreeSet::new();
        let lost = watch
            .drain(|datagram| found.extend(hints(datagram)))
            .map_err(|error| ObserveError::Read { what, error })?;
        for hint in found {
            match hint {
                Hint::Link(link) => self.mark_link(link),
                Hint::Addressing(link) if self.known.contains_key(&link) => {
                    self.agenda.addressing(link);
                }
                Hint::Addressing(_) => {}
                Hint::AnyAddressing => self.agenda.all_addressing(),
                Hint::Chains(_) => {}
            }
        }
        self.say_lost(lost, source);
        Ok(())
    }

    /// Says whose chains have changed; of all that are known, where that was lost or may be several.
    fn take_chains(&mut self) -> Result<(), ObserveError> {
        self.chains_not_before = Instant::now() + CHAINS_PAUSE;
        let mut found = BTreeSet::new();
        let lost = self
            .chains
            .drain(|datagram| {
                let hints = hints(datagram);
                found.extend(hints.filter_map(|hint| match hint {
                    Hint::Chains(link) => Some(link),
                    _ => None,
                }));
            })
            .map_err(|error| ObserveError::Read {
                what: "notifications of filters",
                error,
            })?;
        let of_any = lost || found.contains(&SHARED_BLOCK);
        let known = self.known.keys().copied();
        let changed = known.filter(|link| of_any || found.contains(link));
        let changed: Vec<_> = changed.map(|link| Input::ChainsChanged { link }).collect();
        self.say_all(changed);
        Ok(())
    }

    fn read_devices(&mut self) -> Result<(), ObserveError> {
        let mut ports_changed = false;
        let (known, agenda) = (&self.known, &mut self.agenda);
        let lost = self
            .devices
            .drain(|event| match event {
                UdevEvent::Pci(address) => known
                    .values()
                    .filter(|link| link.pci == Some(address))
                    .for_each(|link| agenda.link(link.ifindex)),
                UdevEvent::Net(link) => agenda.link(link),
                UdevEvent::AgentPort => ports_changed = true,
            })
            .map_err(|error| ObserveError::Read {
                what: "device events",
                error,
            })?;
        if ports_changed {
            self.ready.push_back(Observed::AgentPortsChanged);
        }
        self.say_lost(lost, Source::Udev);
        Ok(())
    }

    /// A bond's change is one of its ports too: which one is active stands in each.
    fn mark_link(&mut self, link: Ifindex) {
        self.agenda.link(link);
        for port in self.known.values() {
            if port.controller == Some(link) {
                self.agenda.link(port.ifindex);
            }
        }
    }
}
