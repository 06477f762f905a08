//! What has to be read, and which completions wait for it.

use std::collections::BTreeSet;

use tandem_core::Input;
use tandem_core::input::Source;
use tandem_core::types::Ifindex;

use super::Completion;
use super::reader::Job;

/// Readings to do. One is under way at a time, and each takes all there is of its
/// kind, so the agenda holds at most one entry a link.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    all_links: bool,
    links: BTreeSet<Ifindex>,
    all_addressing: bool,
    addressing: BTreeSet<Ifindex>,
    waiting: Vec<Waiting>,
}

/// An action that has ended, whose traces have to be read before it is told.
#[derive(Debug)]
struct Waiting {
    done: Input,
    links: Need,
    addressing: Need,
}

/// What an action waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    /// The next reading of that kind.
    NextReading,
    /// The reading that is under way.
    ThisReading,
}

impl Need {
    fn of(needed: bool) -> Self {
        if needed {
            Self::NextReading
        } else {
            Self::Nothing
        }
    }

    fn started(&mut self) {
        if *self == Self::NextReading {
            *self = Self::ThisReading;
        }
    }

    fn finished(&mut self) {
        if *self == Self::ThisReading {
            *self = Self::Nothing;
        }
    }
}

impl Agenda {
    pub(super) fn all_links(&mut self) {
        self.all_links = true;
    }

    pub(super) fn link(&mut self, link: Ifindex) {
        self.links.insert(link);
    }

    pub(super) fn all_addressing(&mut self) {
        self.all_addressing = true;
    }

    pub(super) fn addressing(&mut self, link: Ifindex) {
        self.addressing.insert(link);
    }

    /// Enters what an action touched; its `Done` is returned by
    /// [`Agenda::finished`] once that was read, or by [`Agenda::release`].
    pub(super) fn completion(&mut self, completion: Completion) {
        let Completion {
            action,
            outcome,
            learnt: _,
            touched,
        } = completion;
        let all_links = matches!(touched.source, Some(Source::Links | Source::Udev));
        let all_addressing = touched.source == Some(Source::Addressing);
        self.waiting.push(Waiting {
            done: Input::Done { action, outcome },
            links: Need::of(all_links || !touched.links.is_empty()),
            addressing: Need::of(all_addressing || !touched.addressing.is_empty()),
        });
        self.all_links |= all_links;
        self.all_addressing |= all_addressing;
        self.links.extend(touched.links);
        self.addressing.extend(touched.addressing);
    }

    /// True if an action waits: then nothing is put off.
    pub(super) fn is_urgent(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// True if the next job is one of links.
    pub(super) fn links_are_due(&self) -> bool {
        self.all_links || !self.links.is_empty()
    }

    /// True if there is anything to read.
    pub(super) fn is_due(&self) -> bool {
        self.links_are_due() || self.all_addressing || !self.addressing.is_empty()
    }

    /// The next job, which is to be started now. Links come first: which links
    /// there are decides whose addressing counts (`known`).
    pub(super) fn start(&mut self, known: impl Iterator<Item = Ifindex>) -> Option<Job> {
        if self.links_are_due() {
            self.waiting
                .iter_mut()
                .for_each(|waiting| waiting.links.started());
            let links = std::mem::take(&mut self.links);
            return Some(if std::mem::take(&mut self.all_links) {
                Job::AllLinks
            } else {
                Job::Links(links)
            });
        }
        if !self.is_due() {
            return None;
        }
        self.waiting
            .iter_mut()
            .for_each(|waiting| waiting.addressing.started());
        let addressing = std::mem::take(&mut self.addressing);
        Some(if std::mem::take(&mut self.all_addressing) {
            Job::AllAddressing(known.collect())
        } else {
            Job::Addressing(addressing)
        })
    }

    /// A job has ended, well or not; returns what can be told now.
    pub(super) fn finished(&mut self, job: &Job) -> Vec<Input> {
        for waiting in &mut self.waiting {
            match job {
                Job::AllLinks | Job::Links(_) => waiting.links.finished(),
                Job::AllAddressing(_) | Job::Addressing(_) => waiting.addressing.finished(),
            }
        }
        self.take(|waiting| waiting.links == Need::Nothing && waiting.addressing == Need::Nothing)
    }

    /// A job has failed: it is entered again.
    pub(super) fn again(&mut self, job: Job) {
        match job {
            Job::AllLinks => self.all_links = true,
            Job::Links(links) => self.links.extend(links),
            Job::AllAddressing(_) => self.all_addressing = true,
            Job::Addressing(links) => self.addressing.extend(links),
        }
    }

    /// What waits for nothing, or must not wait any longer.
    pub(super) fn release(&mut self, all: bool) -> Vec<Input> {
        self.take(|waiting| {
            all || (waiting.links == Need::Nothing && waiting.addressing == Need::Nothing)
        })
    }

    fn take(&mut self, mut ripe: impl FnMut(&Waiting) -> bool) -> Vec<Input> {
        let (taken, kept) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| ripe(waiting));
        self.waiting = kept;
        let taken: Vec<Waiting> = taken;
        taken.into_iter().map(|waiting| waiting.done).collect()
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::ActionId;
    use tandem_core::input::Outcome;

    use super::super::Touched;
    use super::*;

    fn completion(id: u64, touched: Touched) -> Completion {
        Completion {
            action: ActionId(id),
            outcome: Outcome::Accepted,
            learnt: Vec::new(),
            touched,
        }
    }

    fn done(id: u64) -> Input {
        Input::Done {
            action: ActionId(id),
            outcome: Outcome::Accepted,
        }
    }

    fn links(links: &[u32]) -> BTreeSet<Ifindex> {
        links.iter().copied().map(Ifindex).collect()
    }

    fn start(agenda: &mut Agenda) -> Option<Job> {
        agenda.start(links(&[1, 2]).into_iter())
    }

    #[test]
    fn a_done_comes_after_a_reading_that_began_after_the_action() {
        let mut agenda = Agenda::default();
        agenda.link(Ifindex(1));
        let before = start(&mut agenda).unwrap();
        agenda.completion(completion(
            5,
            Touched {
                links: vec![Ifindex(1)],
                addressing: vec![Ifindex(2)],
                source: None,
            },
        ));
        assert_eq!(agenda.finished(&before), [], "read before the action");
        let link = start(&mut agenda).unwrap();
        assert_eq!(link, Job::Links(links(&[1])));
        assert_eq!(agenda.finished(&link), [], "addressing not yet read");
        let addressing = start(&mut agenda).unwrap();
        assert_eq!(addressing, Job::Addressing(links(&[2])));
        assert_eq!(agenda.finished(&addressing), [done(5)]);
        assert_eq!(start(&mut agenda), None);
    }

    #[test]
    fn an_action_that_touched_nothing_waits_for_nothing() {
        let mut agenda = Agenda::default();
        agenda.completion(completion(1, Touched::default()));
        assert_eq!(agenda.release(false), [done(1)]);
    }

    #[test]
    fn nothing_waits_for_ever() {
        let mut agenda = Agenda::default();
        agenda.completion(completion(
            1,
            Touched {
                source: Some(Source::Links),
                ..Touched::default()
            },
        ));
        let job = start(&mut agenda).unwrap();
        assert_eq!(agenda.release(false), []);
        assert_eq!(agenda.release(true), [done(1)]);
        assert_eq!(agenda.finished(&job), []);
    }

    #[test]
    fn a_failed_reading_is_done_again() {
        let mut agenda = Agenda::default();
        agenda.all_addressing();
        let job = start(&mut agenda).unwrap();
        assert_eq!(job, Job::AllAddressing(links(&[1, 2])));
        agenda.finished(&job);
        agenda.again(job.clone());
        agenda.link(Ifindex(9));
        assert_eq!(start(&mut agenda), Some(Job::Links(links(&[9]))));
        assert_eq!(start(&mut agenda), Some(job));
    }
}
