//! Starts readings and says what they found: the second half of [`Sources`].

use std::collections::{BTreeMap, BTreeSet};

use tandem_core::Input;
use tandem_core::input::Source;
use tandem_core::link::{Link, LinkKind};
use tandem_core::status::SourceHealth;
use tandem_core::types::Ifindex;
use tokio::time::Instant;

use super::agenda::{Job, Wanted};
use super::occupants::Change;
use super::reader::{self, Found, ReadLink};
use super::sources::{
    ADDRESSING_PAUSE, ObserveError, Observed, READING_LIMIT, RETRY, Reading, Sources,
};
use crate::netlink::filter::Filter;

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
            Job::Links(_) => Source::Links,
            Job::Addressing(_) => Source::Addressing,
        };
        match found {
            Ok(found) => {
                self.retry_at = None;
                if self.failed.remove(&source) {
                    self.report_health(source, SourceHealth::Working);
                }
                self.say_found(&job, found, now)?;
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

    fn say_found(&mut self, job: &Job, found: Found, now: Instant) -> Result<(), ObserveError> {
        let (Job::Links(Wanted { all, .. }) | Job::Addressing(Wanted { all, .. })) = *job;
        match found {
            Found::Links(links) => self.say_links(all, links, now)?,
            Found::Addressing(found, way_out) => {
                if all {
                    self.say(Input::Addressings(found));
                } else {
                    self.say_all(found.into_iter().map(Input::Addressing).collect());
                }
                if self.way_out != Some(way_out) {
                    self.way_out = Some(way_out);
                    self.say(Input::WayOut(way_out));
                }
            }
        }
        Ok(())
    }

    fn say_links(
        &mut self,
        all: bool,
        links: Vec<(Ifindex, Option<ReadLink>)>,
        now: Instant,
    ) -> Result<(), ObserveError> {
        let before = self.known.clone();
        let lowers = self.lowers();
        if all {
            let links = self.take_dump(links, now);
            self.links_changed(&before, &lowers)?;
            self.say(Input::Links(links));
        } else {
            for (ifindex, read) in links {
                self.take_one(ifindex, read, now);
            }
            self.links_changed(&before, &lowers)?;
        }
        for (bond, fingerprint) in self.upper_devices.news(&bonds(&self.known)) {
            self.say(Input::UpperDevices { bond, fingerprint });
        }
        Ok(())
    }

    /// Takes all links there are; returns those to report.
    fn take_dump(&mut self, found: Vec<(Ifindex, Option<ReadLink>)>, now: Instant) -> Vec<Link> {
        let mut links = Vec::new();
        let (mut uppers, mut resting) = (BTreeMap::new(), Vec::new());
        for (ifindex, read) in found {
            let Some(read) = read else { continue };
            uppers.extend(read.upper.map(|upper| (ifindex, upper)));
            resting.extend(read.resting.map(|one| (ifindex, one)));
            links.push(read.link);
        }
        let nics = links.iter().filter(|link| link.kind == LinkKind::Physical);
        let nics = nics.map(|link| link.ifindex).collect();
        self.occupants.replace(resting, &nics);
        self.finished.retain(|nic| nics.contains(nic));
        links.retain_mut(|link| {
            self.occupants.complete(link);
            self.is_reported(link, now)
        });
        let fresh = links.iter().cloned().map(|link| (link.ifindex, link));
        self.known = fresh.collect();
        self.finished.clear();
        self.upper_devices.replace(uppers, &bonds(&self.known));
        links
    }

    /// Takes what was read of one link, nothing if it is gone.
    fn take_one(&mut self, ifindex: Ifindex, read: Option<ReadLink>, now: Instant) {
        let (link, upper, resting) = match read {
            Some(read) => (Some(read.link), read.upper, read.resting),
            None => (None, None, None),
        };
        self.upper_devices.put(ifindex, upper, &bonds(&self.known));
        match self.occupants.put(ifindex, resting, &nics(&self.known)) {
            Change::Occupied(nic) => self.agenda.link(nic),
            Change::Cleared => self.agenda.all_links(),
            Change::None => {}
        }
        match link.filter(|link| self.is_reported(link, now)) {
            // What lies on a new NIC is not known before all links were read.
            Some(link) if link.kind == LinkKind::Physical && !self.known.contains_key(&ifindex) => {
                self.finished.insert(ifindex);
                self.agenda.all_links();
            }
            Some(mut link) => {
                self.occupants.complete(&mut link);
                self.known.insert(ifindex, link.clone());
                self.say(Input::Link(link));
            }
            None if self.known.remove(&ifindex).is_some() => {
                self.say(Input::LinkGone { ifindex });
            }
            None => {}
        }
    }

    /// Links on which others lie that matter.
    fn lowers(&self) -> BTreeSet<Ifindex> {
        let mut lowers = self.upper_devices.lowers(&bonds(&self.known));
        lowers.extend(nics(&self.known));
        lowers
    }

    /// The rule of [`Filter::links`], and udev's turn first.
    fn is_reported(&mut self, link: &Link, now: Instant) -> bool {
        let of_interest = link.kind != LinkKind::Software || self.names.contains(&link.name);
        let settled =
            self.known.contains_key(&link.ifindex) || self.finished.contains(&link.ifindex);
        if !of_interest || settled {
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
            self.chains
                .set_filter(&Filter::traffic_control(&known))
                .map_err(filter_error)?;
        }
        let software = |links: &BTreeMap<Ifindex, Link>| -> BTreeSet<Ifindex> {
            let software = links
                .values()
                .filter(|link| link.kind == LinkKind::Software);
            software.map(|link| link.ifindex).collect()
        };
        let lowers_now = self.lowers();
        if *lowers != lowers_now || software(before) != software(&self.known) {
            self.set_link_filter()?;
        }
        // What was laid on a new bond, VLAN or NIC before the filter knew of it went without a word.
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
        let lowers: Vec<Ifindex> = self.lowers().into_iter().collect();
        self.links
            .set_filter(&Filter::links(&self.names, &software, &lowers))
            .map_err(filter_error)
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

fn nics(links: &BTreeMap<Ifindex, Link>) -> BTreeSet<Ifindex> {
    let nics = links
        .values()
        .filter(|link| link.kind == LinkKind::Physical);
    nics.map(|link| link.ifindex).collect()
}

fn filter_error(error: std::io::Error) -> ObserveError {
    ObserveError::Open {
        what: "a filter of notifications",
        error,
        remedy: "report it, with the number of links and bonds there are",
    }
}
