//! Starts readings and says what they found: the second half of [`Sources`].

use std::collections::{BTreeMap, BTreeSet};

use tandem_core::Input;
use tandem_core::input::Source;
use tandem_core::link::{Link, LinkKind};
use tandem_core::status::SourceHealth;
use tandem_core::types::Ifindex;
use tokio::time::Instant;

use super::netlink::filter::Filter;
use super::reader::{self, Found, Job, ReadLink};
use super::sources::{ADDRESSING_PAUSE, READING_LIMIT, RETRY, Reading, Sources};
use super::{ObserveError, Observed};

impl Sources {
    /// Starts the next reading unless one is under way or has to wait.
    pub(super) fn start_reading(&mut self) {
        let now = Instant::now();
        if self.reading.is_some() || self.put_off_until().is_some_and(|until| now < until) {
            return;
        }
        let Some(job) = self.agenda.start(self.known.keys().copied()) else {
            return;
        };
        let (wanted, sysfs) = (job.clone(), self.sysfs.clone());
        self.reading = Some(Reading {
            job,
            handle: tokio::task::spawn_blocking(move || reader::read(&wanted, &sysfs)),
            limit: Some(now + READING_LIMIT),
        });
    }

    /// When something has to happen though no event comes.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let next_reading = match &self.reading {
            Some(reading) => reading.limit,
            None if self.agenda.is_due() => self.put_off_until(),
            None => None,
        };
        next_reading
            .into_iter()
            .chain(self.settling.deadline())
            .min()
    }

    /// Until when the next reading has to wait, if it has.
    fn put_off_until(&self) -> Option<Instant> {
        let may_pause = !self.agenda.links_are_due() && !self.agenda.is_urgent();
        let pause = may_pause.then_some(self.addressing_not_before);
        self.retry_at.into_iter().chain(pause).max()
    }

    /// Does what [`Sources::next_timer`] was set for.
    pub(super) fn timer_is_up(&mut self) {
        let now = Instant::now();
        for link in self.settling.overdue(now).collect::<Vec<_>>() {
            self.agenda.link(link);
        }
        if let Some(reading) = &mut self.reading
            && reading.limit.is_some_and(|limit| limit <= now)
        {
            reading.limit = None;
            let released = self.agenda.release(true);
            self.say_all(released);
        }
    }

    /// Takes the result of a reading.
    pub(super) fn take_found(&mut self, found: Result<Found, String>) -> Result<(), ObserveError> {
        let Some(Reading { job, .. }) = self.reading.take() else {
            return Ok(());
        };
        let now = Instant::now();
        let source = match job {
            Job::AllLinks | Job::Links(_) => Source::Links,
            Job::AllAddressing(_) | Job::Addressing(_) => Source::Addressing,
        };
        match found {
            Ok(found) => {
                self.retry_at = None;
                if self.failed.remove(&source) {
                    self.report_health(source, SourceHealth::Working);
                }
                self.say_found(found, now)?;
            }
            Err(reason) => {
                tracing::warn!(?source, reason, "cannot read the kernel's state");
                self.retry_at = Some(now + RETRY);
                self.failed.insert(source);
                self.report_health(
                    source,
                    SourceHealth::Missing {
                        reason: format!("{reason}; it is tried again each second"),
                    },
                );
                self.agenda.again(job.clone());
            }
        }
        if source == Source::Addressing {
            self.addressing_not_before = now + ADDRESSING_PAUSE;
        }
        let finished = self.agenda.finished(&job);
        self.say_all(finished);
        Ok(())
    }

    fn say_found(&mut self, found: Found, now: Instant) -> Result<(), ObserveError> {
        match found {
            Found::AllLinks(links) => {
                let mut uppers = BTreeMap::new();
                let links: Vec<Link> = links
                    .into_iter()
                    .map(|ReadLink { link, upper }| {
                        uppers.extend(upper.map(|upper| (link.ifindex, upper)));
                        link
                    })
                    .filter(|link| self.is_reported(link, now))
                    .collect();
                let fresh = links.iter().cloned().map(|link| (link.ifindex, link));
                let before = std::mem::replace(&mut self.known, fresh.collect());
                let lowers = self.upper_devices.lowers(&bonds(&before));
                self.upper_devices.replace(uppers, &bonds(&self.known));
                self.links_changed(&before, &lowers)?;
                self.say(Input::Links(links));
                self.say_upper_devices();
            }
            Found::Links(links) => {
                let before = self.known.clone();
                let lowers = self.upper_devices.lowers(&bonds(&before));
                for (ifindex, read) in links {
                    let (link, upper) =
                        read.map_or((None, None), |read| (Some(read.link), read.upper));
                    self.upper_devices.put(ifindex, upper, &bonds(&self.known));
                    match link.filter(|link| self.is_reported(link, now)) {
                        Some(link) => {
                            self.known.insert(ifindex, link.clone());
                            self.say(Input::Link(link));
                        }
                        None if self.known.remove(&ifindex).is_some() => {
                            self.say(Input::LinkGone { ifindex });
                        }
                        None => {}
                    }
                }
                self.links_changed(&before, &lowers)?;
                self.say_upper_devices();
            }
            Found::AllAddressing(all) => self.say(Input::Addressings(all)),
            Found::Addressing(some) => {
                for addressing in some {
                    self.say(Input::Addressing(addressing));
                }
            }
        }
        Ok(())
    }

    /// The rule of [`Filter::links`], and udev's turn first.
    fn is_reported(&mut self, link: &Link, now: Instant) -> bool {
        let of_interest = link.kind != LinkKind::Software || self.names.contains(&link.name);
        if !of_interest || self.known.contains_key(&link.ifindex) {
            self.settling.forget(link.ifindex);
            return of_interest;
        }
        !self.settling.has_to_wait(link, now)
    }

    /// Adjusts the filters to the links that are known now, and enters addressing
    /// that became interesting, or that went without a word: taking a link down
    /// removes IPv4 routes silently.
    fn links_changed(
        &mut self,
        before: &BTreeMap<Ifindex, Link>,
        lowers: &BTreeSet<Ifindex>,
    ) -> Result<(), ObserveError> {
        if !before.keys().eq(self.known.keys()) {
            let known: Vec<Ifindex> = self.known.keys().copied().collect();
            self.addressing
                .set_filter(&Filter::addressing(&known))
                .map_err(filter_error)?;
        }
        let software = |links: &BTreeMap<Ifindex, Link>| -> BTreeSet<Ifindex> {
            let software = links
                .values()
                .filter(|link| link.kind == LinkKind::Software);
            software.map(|link| link.ifindex).collect()
        };
        let lowers_now = self.upper_devices.lowers(&bonds(&self.known));
        if *lowers != lowers_now || software(before) != software(&self.known) {
            self.set_link_filter()?;
        }
        // What was laid on a new bond or VLAN before the filter knew of it went without a word.
        if !lowers.is_superset(&lowers_now) {
            self.agenda.all_links();
        }
        for (ifindex, link) in &self.known {
            let same = before
                .get(ifindex)
                .is_some_and(|before| before.admin_up == link.admin_up);
            if !same {
                self.agenda.addressing(*ifindex);
            }
        }
        Ok(())
    }

    /// Adjusts the filter in front of link notifications.
    pub(super) fn set_link_filter(&self) -> Result<(), ObserveError> {
        let software = self
            .known
            .values()
            .filter(|link| link.kind == LinkKind::Software);
        let software: Vec<Ifindex> = software.map(|link| link.ifindex).collect();
        let lowers: Vec<Ifindex> = self
            .upper_devices
            .lowers(&bonds(&self.known))
            .into_iter()
            .collect();
        self.links
            .set_filter(&Filter::links(&self.names, &software, &lowers))
            .map_err(filter_error)
    }

    fn say_upper_devices(&mut self) {
        for (bond, fingerprint) in self.upper_devices.news(&bonds(&self.known)) {
            self.say(Input::UpperDevices { bond, fingerprint });
        }
    }

    pub(super) fn report_health(&mut self, source: Source, health: SourceHealth) {
        self.say(Input::SourceHealth {
            source,
            health,
            parts: Vec::new(),
        });
    }

    pub(super) fn say_lost(&mut self, lost: bool, source: Source) {
        if lost {
            self.say(Input::Lost(source));
        }
    }

    pub(super) fn say_all(&mut self, inputs: Vec<Input>) {
        inputs.into_iter().for_each(|input| self.say(input));
    }

    pub(super) fn say(&mut self, input: Input) {
        self.ready.push_back(Observed::Input(input));
    }
}

fn bonds(links: &BTreeMap<Ifindex, Link>) -> BTreeSet<Ifindex> {
    let bonds = links.values().filter(|link| link.kind == LinkKind::Bond);
    bonds.map(|link| link.ifindex).collect()
}

fn filter_error(error: std::io::Error) -> ObserveError {
    ObserveError::Open {
        what: "a filter of notifications",
        error,
        remedy: "report it, with the number of links and bonds there are",
    }
}
