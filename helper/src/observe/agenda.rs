//! What has to be read, and which completions wait for it.

use std::collections::BTreeSet;

use tandem_core::Input;
use tandem_core::input::Source;
use tandem_core::types::Ifindex;

use super::completion::{Completion, Touched};

/// What to read of a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// All there is of the kind.
    pub(super) all: bool,
    pub(super) links: BTreeSet<Ifindex>,
}

impl Wanted {
    fn is_due(&self) -> bool {
        self.all || !self.links.is_empty()
    }

    fn add(&mut self, more: Self) {
        self.all |= more.all;
        self.links.extend(more.links);
    }
}

/// What a reading is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    Links(Wanted),
    /// All addressing is that of the links that are named too.
    Addressing(Wanted),
}

/// Readings to do. One is under way at a time, and each takes all there is of its
/// kind, so the agenda holds at most one entry a link.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    links: Wanted,
    addressing: Wanted,
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
    fn of(wanted: &Wanted) -> Self {
        if wanted.is_due() {
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

impl Waiting {
    fn is_ripe(&self) -> bool {
        (self.links, self.addressing) == (Need::Nothing, Need::Nothing)
    }
}

impl Agenda {
    pub(super) fn all_links(&mut self) {
        self.links.all = true;
    }

    pub(super) fn link(&mut self, link: Ifindex) {
        self.links.links.insert(link);
    }

    pub(super) fn all_addressing(&mut self) {
        self.addressing.all = true;
    }

    pub(super) fn addressing(&mut self, link: Ifindex) {
        self.addressing.links.insert(link);
    }

    /// Enters what an action touched; its `Done` is returned by
    /// [`Agenda::finished`] once that was read, or by [`Agenda::release`].
    pub(super) fn completion(&mut self, completion: Completion) {
        let Completion {
            action, outcome, ..
        } = completion;
        let Touched {
            links,
            addressing,
            source,
        } = completion.touched;
        let links = Wanted {
            all: matches!(source, Some(Source::Links | Source::Udev)),
            links: links.into_iter().collect(),
        };
        let addressing = Wanted {
            all: source == Some(Source::Addressing),
            links: addressing.into_iter().collect(),
        };
        self.waiting.push(Waiting {
            done: Input::Done { action, outcome },
            links: Need::of(&links),
            addressing: Need::of(&addressing),
        });
        self.links.add(links);
        self.addressing.add(addressing);
    }

    /// True if an action waits: then nothing is put off.
    pub(super) fn is_urgent(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// True if the next job is one of links.
    pub(super) fn links_are_due(&self) -> bool {
        self.links.is_due()
    }

    /// True if there is anything to read.
    pub(super) fn is_due(&self) -> bool {
        self.links.is_due() || self.addressing.is_due()
    }

    /// The next job, which is to be started now. Links come first: which links
    /// there are decides whose addressing counts (`known`).
    pub(super) fn start(&mut self, known: impl Iterator<Item = Ifindex>) -> Option<Job> {
        if self.links.is_due() {
            let waiting = self.waiting.iter_mut();
            waiting.for_each(|waiting| waiting.links.started());
            return Some(Job::Links(std::mem::take(&mut self.links)));
        }
        if !self.addressing.is_due() {
            return None;
        }
        let waiting = self.waiting.iter_mut();
        waiting.for_each(|waiting| waiting.addressing.started());
        let mut wanted = std::mem::take(&mut self.addressing);
        if wanted.all {
            wanted.links = known.collect();
        }
        Some(Job::Addressing(wanted))
    }

    /// A job has ended, well or not; returns what can be told now.
    pub(super) fn finished(&mut self, job: &Job) -> Vec<Input> {
        for waiting in &mut self.waiting {
            match job {
                Job::Links(_) => waiting.links.finished(),
                Job::Addressing(_) => waiting.addressing.finished(),
            }
        }
        self.release(false)
    }

    /// A job has failed: it is entered again.
    pub(super) fn again(&mut self, job: Job) {
        match job {
            Job::Links(wanted) => self.links.add(wanted),
            Job::Addressing(wanted) => self.addressing.add(wanted),
        }
    }

    /// What waits for nothing, or must not wait any longer.
    pub(super) fn release(&mut self, all: bool) -> Vec<Input> {
        let ripe = |waiting: &mut Waiting| all || waiting.is_ripe();
        let ripe = self.waiting.extract_if(.., ripe);
        ripe.map(|waiting| waiting.done).collect()
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::ActionId;
    use tandem_core::input::Outcome;

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

    fn wanted(all: bool, links: &[u32]) -> Wanted {
        let links = links.iter().copied().map(Ifindex).collect();
        Wanted { all, links }
    }

    fn start(agenda: &mut Agenda) -> Option<Job> {
        agenda.start([Ifindex(1), Ifindex(2)].into_iter())
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
        assert_eq!(link, Job::Links(wanted(false, &[1])));
        assert_eq!(agenda.finished(&link), [], "addressing not yet read");
        let addressing = start(&mut agenda).unwrap();
        assert_eq!(addressing, Job::Addressing(wanted(false, &[2])));
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
        assert_eq!(job, Job::Addressing(wanted(true, &[1, 2])));
        agenda.finished(&job);
        agenda.again(job.clone());
        agenda.link(Ifindex(9));
        assert_eq!(start(&mut agenda), Some(Job::Links(wanted(false, &[9]))));
        assert_eq!(start(&mut agenda), Some(job));
    }
}
