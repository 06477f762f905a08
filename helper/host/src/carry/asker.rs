//! Asks the hypervisor of a half's side on a thread of its own: an answer may be long in coming, and frames don't wait for it.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tandem_carry_kernel::Order;
use tokio::sync::watch;

use super::orphan::Orphan;
use super::words::ToHalf;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// Questions that wait, and answers; a half has far fewer.
const QUEUE: usize = 64;

enum Question {
    /// A look, of a half whose starter is gone.
    Look,
    /// Whether the guest stands still.
    Guest,
    /// To be done, by a half whose starter is gone.
    Order(Order),
}

enum Answer {
    Word(ToHalf),
    /// The look is over; whether something is still to be done.
    Looked {
        is_busy: bool,
    },
}

/// What asks, and what it was told.
pub(super) struct Asker {
    /// `None` once nothing is asked any more.
    questions: Option<SyncSender<Question>>,
    answers: Receiver<Answer>,
    asking: Option<JoinHandle<()>>,
    ended: Arc<watch::Sender<bool>>,
    /// When the next look is due; `None` while one is under way.
    next: Option<Instant>,
    is_busy: bool,
}

impl Asker {
    /// `waker` gets a byte for each answer.
    pub(super) fn new(orphan: Orphan, waker: UnixStream) -> Self {
        let (questions, asked) = sync_channel(QUEUE);
        let (answer, answers) = sync_channel(QUEUE);
        Self {
            ended: orphan.ended(),
            questions: Some(questions),
            answers,
            asking: Some(thread::spawn(move || ask(orphan, &asked, &answer, waker))),
            next: Some(Instant::now()),
            is_busy: true,
        }
    }

    /// Looks, if that is due.
    pub(super) fn look(&mut self) {
        if self.next.is_some_and(|next| Instant::now() >= next) && self.ask(Question::Look) {
            self.next = None;
        }
    }

    /// Until the next look is due; `None` while one is under way.
    pub(super) fn looks_in(&self) -> Option<Duration> {
        Some(self.next?.saturating_duration_since(Instant::now()))
    }

    /// Asks whether the guest stands still.
    pub(super) fn ask_guest(&self) {
        self.ask(Question::Guest);
    }

    /// Has done what the half wants; what became of it a later look shows.
    pub(super) fn order(&self, order: Order) {
        self.ask(Question::Order(order));
    }

    /// What was answered since.
    pub(super) fn answers(&mut self) -> Vec<ToHalf> {
        let mut words = Vec::new();
        while let Ok(answer) = self.answers.try_recv() {
            match answer {
                Answer::Word(word) => words.push(word),
                Answer::Looked { is_busy } => {
                    self.is_busy = is_busy;
                    self.next = Some(Instant::now() + LOOK);
                }
            }
        }
        words
    }

    /// Something is still to be done there, as far as looks have shown.
    pub(super) const fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// False if too much waits.
    fn ask(&self, question: Question) -> bool {
        let questions = self.questions.as_ref();
        questions.is_some_and(|questions| questions.try_send(question).is_ok())
    }
}

impl Drop for Asker {
    /// Whoever waits for an answer waits no longer.
    fn drop(&mut self) {
        self.ended.send_replace(true);
        self.questions = None;
        if let Some(asking) = self.asking.take() {
            let _ = asking.join();
        }
    }
}

fn ask(
    mut orphan: Orphan,
    questions: &Receiver<Question>,
    answers: &SyncSender<Answer>,
    mut waker: UnixStream,
) {
    let mut answer = |answer| {
        // The half may be over.
        let _ = answers.try_send(answer);
        let _ = waker.write_all(&[0]);
    };
    for question in questions {
        let word = match question {
            Question::Look => orphan.look(),
            Question::Guest => orphan.guest(),
            Question::Order(order) => {
                orphan.order(order);
                None
            }
        };
        if let Some(word) = word {
            answer(Answer::Word(word));
        }
        if matches!(question, Question::Look) {
            // Nobody waits for that.
            orphan.settle();
            let is_busy = orphan.is_busy();
            answer(Answer::Looked { is_busy });
        }
    }
}
