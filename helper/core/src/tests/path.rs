//! The path of the VF that carries the traffic is watched.

mod looks;
mod trial;

use alloc::vec::Vec;
use core::net::IpAddr;

use super::*;
use crate::machine::Machine;
use crate::model::action::{Action, ActionKind, Asking, PathProof};
use crate::model::input::{Command, Input, Outcome, Request};
use crate::model::output::{Answer, CommandError, Output};
use crate::model::path::{CountedBy, PathAnswer, PortTraffic};
use crate::model::policy::PathCheck;
use crate::model::status::{Held, ProblemCode, SwitchoverCause, Traffic, Unproved};
use crate::model::types::{ActionId, CommandId, Time};

const START: Time = Time(5_000_000);
const NEIGHBOUR: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));

fn watching() -> Policy {
    let mut policy = policy();
    policy.bonds[0].timing = Timing::default();
    policy
}

/// A guest whose VF carries the traffic, and what its counters show.
struct Guest {
    machine: Machine,
    now: Time,
    sent: u64,
    counted_by: CountedBy,
    answer: PathAnswer,
    looks: u32,
    /// Of these, those that test the fast path whatever the last test said.
    anew: u32,
    asked: u32,
    /// Frames are seen to come in too, by who can go on with looks.
    passes: bool,
    /// A look that goes on, of a port, until then.
    going_on: Option<(ActionId, Ifindex, Time)>,
    standbys_answer: PathAnswer,
    asked_standby: u32,
    /// Of these questions, those that went out through the VF too.
    asked_through_both: u32,
    /// At most so many frames were sent for that.
    standby_frames: u32,
    /// Questions end without an answer.
    fails: bool,
    /// Nothing is heard of how they end.
    is_lost: bool,
    question_ms: u64,
    trials: u32,
    replies: Vec<Result<Answer, CommandError>>,
    done: Vec<ActionKind>,
}

impl Guest {
    fn new(policy: Policy) -> Self {
        let mut machine = Machine::new(START);
        machine.handle(START, Input::Policy(policy));
        machine.handle(START, Input::Links(healthy()));
        machine.handle(START, Input::Addressings(Vec::new()));
        let mut guest = Self {
            machine,
            now: START,
            sent: 7,
            counted_by: CountedBy::Driver,
            answer: PathAnswer::Answered,
            looks: 0,
            anew: 0,
            asked: 0,
            passes: false,
            going_on: None,
            standbys_answer: PathAnswer::Answered,
            asked_standby: 0,
            asked_through_both: 0,
            standby_frames: 0,
            fails: false,
            is_lost: false,
            question_ms: 0,
            trials: 0,
            replies: Vec::new(),
            done: Vec::new(),
        };
        guest.answer_actions();
        guest
    }

    fn answer_actions(&mut self) {
        while let Some(output) = self.machine.next_output() {
            let Action { id, kind } = match output {
                Output::Act(action) => action,
                Output::Reply { result, .. } => {
                    self.replies.push(result);
                    continue;
                }
                Output::Notify(_) => continue,
            };
            match kind {
                ActionKind::ReadTraffic {
                    port, go_on, anew, ..
                } => {
                    self.looks += 1;
                    self.anew += u32::from(anew);
                    if let Some(go_on) = go_on.filter(|_| self.passes) {
                        assert_eq!(go_on.each_ms, 500);
                        self.going_on = Some((id, port, self.now.plus_ms(go_on.for_ms)));
                        continue;
                    }
                    let traffic = PortTraffic {
                        port,
                        sent: self.sent + u64::from(self.asked + self.asked_through_both),
                        counted_by: self.counted_by,
                        passed_at: None,
                    };
                    self.learn(Input::PortTraffic(traffic));
                }
                ActionKind::AskPath {
                    bond,
                    port,
                    other,
                    how,
                } => {
                    self.trials += u32::from(how == Asking::OnTrial);
                    let of_vf = (port, other) == (VF, STANDBY);
                    assert!(of_vf || (port, other) == (STANDBY, VF));
                    let (asked, answer) = if of_vf {
                        (&mut self.asked, self.answer)
                    } else {
                        (&mut self.asked_standby, self.standbys_answer)
                    };
                    *asked += 1;
                    let is_through_both =
                        matches!(answer, PathAnswer::Silent | PathAnswer::Lost { .. });
                    if !of_vf {
                        self.asked_through_both += u32::from(is_through_both);
                        self.standby_frames += if how == Asking::Briefly { 2 } else { 41 };
                    }
                    if self.is_lost {
                        continue;
                    }
                    if self.fails {
                        let message = "no packet socket".into();
                        self.end(id, Outcome::Failed { errno: 1, message });
                        continue;
                    }
                    self.now = self.now.plus_ms(self.question_ms);
                    self.learn(Input::PathAsked { bond, port, answer });
                }
                ActionKind::SetPrimary { port: to, .. } => {
                    self.done.push(kind.clone());
                    for link in [
                        port(nic(STANDBY, "eth0", STANDBY_MAC), to == STANDBY),
                        port(nic(VF, "enp2s0", VF_MAC), to == VF),
                        bond(Some(to)),
                    ] {
                        self.learn(Input::Link(link));
                    }
                }
                kind => self.done.push(kind),
            }
            self.end(id, Outcome::Accepted);
        }
    }

    fn end(&mut self, action: ActionId, outcome: Outcome) {
        self.learn(Input::Done { action, outcome });
    }

    fn learn(&mut self, input: Input) {
        self.machine.handle(self.now, input);
    }

    /// Lets time pass in which so many frames a second are sent.
    fn run(&mut self, ms: u64, sent_per_s: u64) {
        let end = self.now.plus_ms(ms);
        let (sent, began) = (self.sent, self.now);
        loop {
            let looked_on = self.going_on.map(|(_, _, until)| match self.passes {
                true => until,
                false => self.now.max(began).plus_ms(500),
            });
            let next = self.machine.next_deadline();
            let Some(at) = looked_on
                .into_iter()
                .chain(next)
                .min()
                .filter(|at| *at <= end)
            else {
                break;
            };
            self.now = self.now.max(at);
            let passed_ms = self.now.since_ms(began);
            self.sent = sent + passed_ms * sent_per_s / 1_000;
            if looked_on == Some(at) {
                self.end_looks();
            } else {
                self.learn(Input::Tick);
            }
            self.answer_actions();
        }
        self.now = end;
        self.sent = sent + ms * sent_per_s / 1_000;
    }

    /// What looks that went on have found.
    fn end_looks(&mut self) {
        let (action, port, _) = self.going_on.take().unwrap();
        let passed_at = match self.passes {
            true => self.now,
            false => Time(self.now.0 - 500_000),
        };
        self.learn(Input::PortTraffic(PortTraffic {
            port,
            sent: self.sent + u64::from(self.asked + self.asked_through_both),
            counted_by: self.counted_by,
            passed_at: Some(passed_at),
        }));
        self.end(action, Outcome::Accepted);
    }

    fn traffic(&self) -> Traffic {
        self.machine.status().bonds[0].traffic
    }

    fn problems(&self) -> Vec<ProblemCode> {
        let problems = self.machine.status().bonds[0].problems.iter();
        let ours = [ProblemCode::PathLost, ProblemCode::StandbyDeaf];
        problems
            .map(|problem| problem.code)
            .filter(|code| ours.contains(code))
            .collect()
    }
}

#[test]
fn a_guest_at_rest_is_looked_at_every_15_seconds_and_nobody_is_asked() {
    let mut guest = Guest::new(watching());
    guest.run(30_000, 0);
    let before = guest.looks;
    guest.run(600_000, 0);
    assert_eq!((guest.looks - before, guest.asked), (40, 0));
    // The looks are when the standby is asked about too: nothing else wakes the guest.
    assert!(
        (9..=11).contains(&guest.asked_standby),
        "{}",
        guest.asked_standby
    );
}

#[test]
fn a_question_is_no_reason_for_the_next_one() {
    let mut guest = Guest::new(watching());
    guest.run(30_000, 0);
    guest.sent += 1;
    guest.run(600_000, 0);
    assert_eq!(guest.asked, 1);
}

#[test]
fn a_few_frames_now_and_then_are_asked_about_as_seldom() {
    let mut guest = Guest::new(watching());
    guest.run(30_000, 0);
    let before = guest.looks;
    let asked = guest.asked;
    guest.run(600_000, 1);
    let asked = guest.asked - asked;
    assert!((37..=41).contains(&asked), "{asked}");
    // And one after each question.
    assert_eq!(guest.looks - before, 40 + asked);
}

#[test]
fn frames_that_are_sent_all_the_time_are_asked_about_four_times_in_health_ms() {
    let mut guest = Guest::new(watching());
    guest.run(20_000, 1_000);
    let before = guest.asked;
    guest.run(60_000, 1_000);
    assert!((118..=121).contains(&(guest.asked - before)));
    assert_eq!(guest.traffic(), Traffic::Vf);
    assert_eq!(guest.problems(), []);
}

#[test]
fn a_dead_path_is_left_within_health_ms_and_tried_again_with_growing_waits() {
    let mut guest = Guest::new(watching());
    guest.run(20_000, 1_000);
    guest.answer = PathAnswer::Lost {
        neighbour: NEIGHBOUR,
    };
    guest.done.clear();
    guest.run(1_200, 1_000);
    let moved = ActionKind::SetPrimary {
        bond: BOND,
        port: STANDBY,
    };
    assert_eq!(guest.done.first(), Some(&moved), "before anything else");
    let bond = &guest.machine.status().bonds[0];
    assert_eq!(bond.traffic, Traffic::Standby);
    assert_eq!(bond.switchovers[0].cause, SwitchoverCause::PathLost);
    assert_eq!(bond.vf.as_ref().unwrap().held, Some(Held::PathLost));
    assert_eq!(guest.problems(), [ProblemCode::PathLost]);
    // It is asked for a proof that needs more than the standby, and has the traffic again once it has that.
    guest.answer = PathAnswer::Answered;
    guest.done.clear();
    guest.run(1_000, 0);
    let proved = |kind: &ActionKind| {
        let proof = PathProof::Neighbours;
        matches!(kind, ActionKind::CheckPath { proof: found, .. } if *found == proof)
    };
    assert!(!guest.done.iter().any(proved), "it has to hold first");
    guest.run(2_000, 0);
    assert_eq!(guest.done.iter().filter(|kind| proved(kind)).count(), 1);
    assert_eq!(guest.traffic(), Traffic::Vf);
    assert_eq!(guest.problems(), []);
    // Each loss doubles the wait.
    guest.answer = PathAnswer::Lost {
        neighbour: NEIGHBOUR,
    };
    guest.run(1_700, 1_000);
    assert_eq!(guest.traffic(), Traffic::Standby);
    guest.done.clear();
    guest.run(2_000, 0);
    assert!(!guest.done.iter().any(proved));
    guest.run(2_500, 0);
    assert!(guest.done.iter().any(proved));
}

#[test]
fn nobody_who_answers_is_no_reason_to_leave() {
    for answer in [PathAnswer::Silent, PathAnswer::NobodyKnown] {
        let mut guest = Guest::new(watching());
        guest.answer = answer;
        guest.run(600_000, 1_000);
        assert_eq!(guest.traffic(), Traffic::Vf);
        assert_eq!(guest.problems(), []);
        assert!(guest.asked <= 64, "{} questions", guest.asked);
    }
}

#[test]
fn counters_that_begin_anew_or_are_anothers_say_nothing() {
    let mut guest = Guest::new(watching());
    guest.answer = PathAnswer::Silent;
    guest.run(20_000, 0);
    guest.sent = 0;
    guest.run(11_000, 0);
    guest.counted_by = CountedBy::Programs;
    guest.sent = 50;
    guest.run(11_000, 0);
    assert_eq!(guest.asked, 0);
}

#[test]
fn a_standby_that_is_no_better_is_not_asked_and_zero_ends_the_watch() {
    let mut guest = Guest::new(policy());
    guest.run(60_000, 1_000);
    assert_eq!((guest.looks, guest.asked), (0, 0));
    let mut guest = Guest::new(watching());
    let mut standby = port(nic(STANDBY, "eth0", STANDBY_MAC), false);
    standby.carrier = false;
    guest.learn(Input::Link(standby));
    guest.run(60_000, 1_000);
    assert_eq!((guest.looks, guest.asked), (0, 0));
}

#[test]
fn a_vf_alone_keeps_the_traffic_whatever_its_path() {
    let mut guest = Guest::new(watching());
    guest.run(20_000, 1_000);
    guest.answer = PathAnswer::Lost {
        neighbour: NEIGHBOUR,
    };
    guest.run(2_000, 1_000);
    assert_eq!(guest.traffic(), Traffic::Standby);
    let mut standby = port(nic(STANDBY, "eth0", STANDBY_MAC), true);
    standby.carrier = false;
    guest.done.clear();
    guest.learn(Input::Link(standby));
    guest.answer_actions();
    let moved = ActionKind::SetPrimary {
        bond: BOND,
        port: VF,
    };
    assert_eq!(guest.done.first(), Some(&moved));
}

#[test]
fn a_standby_of_which_nobody_knows_wakes_a_guest_at_rest_no_more_often() {
    let mut guest = Guest::new(watching());
    guest.standbys_answer = PathAnswer::Silent;
    guest.run(30_000, 0);
    let (looks, asked) = (guest.looks, guest.asked_standby);
    // Each question goes out through the VF too, and is none of the guest's frames.
    guest.run(1_200_000, 0);
    let (looks, asked) = (guest.looks - looks, guest.asked_standby - asked);
    assert_eq!((asked, guest.asked), (20, 0));
    assert_eq!(looks, 80 + asked);
}

#[test]
fn a_standby_that_hears_nothing_is_told_once_that_is_sure_and_until_it_hears() {
    let mut guest = Guest::new(watching());
    guest.standbys_answer = PathAnswer::Lost {
        neighbour: NEIGHBOUR,
    };
    guest.run(100_000, 0);
    assert_eq!(guest.problems(), [ProblemCode::StandbyDeaf]);
    assert_eq!(guest.traffic(), Traffic::Vf);
    guest.standbys_answer = PathAnswer::Silent;
    guest.run(100_000, 0);
    assert_eq!(
        guest.problems(),
        [ProblemCode::StandbyDeaf],
        "nothing new is known"
    );
    guest.standbys_answer = PathAnswer::Answered;
    guest.run(100_000, 0);
    assert_eq!(guest.problems(), []);
    // Once may be chance.
    guest.standbys_answer = PathAnswer::Lost {
        neighbour: NEIGHBOUR,
    };
    let before = guest.asked_standby;
    while guest.asked_standby == before {
        guest.run(1_000, 0);
    }
    assert_eq!(guest.problems(), []);
}

#[test]
fn a_standby_is_asked_about_though_questions_about_the_vf_take_long() {
    let mut guest = Guest::new(watching());
    guest.question_ms = 300;
    guest.standbys_answer = lost();
    guest.run(40_000, 1_000);
    assert_eq!(guest.problems(), [ProblemCode::StandbyDeaf]);
    assert_eq!(guest.asked_standby, 2, "and no more often than it should");
}

#[test]
fn at_rest_dead_neighbours_are_sent_no_more_than_a_frame_in_ten_seconds() {
    let mut guest = Guest::new(watching());
    guest.standbys_answer = PathAnswer::Silent;
    guest.run(30_000, 0);
    let before = guest.standby_frames;
    guest.run(6_000_000, 0);
    let sent = guest.standby_frames - before;
    assert!((100..=600).contains(&sent), "{sent}");
    // One that answers is asked fully again, and so is a standby beside a VF through which somebody answers.
    guest.standbys_answer = PathAnswer::Answered;
    guest.run(130_000, 0);
    let (asked, before) = (guest.asked_standby, guest.standby_frames);
    guest.run(600_000, 0);
    let asked = guest.asked_standby - asked;
    assert_eq!(guest.standby_frames - before, 41 * asked);
    guest.standbys_answer = PathAnswer::Silent;
    let (asked, before) = (guest.asked_standby, guest.standby_frames);
    guest.run(600_000, 1_000);
    let asked = guest.asked_standby - asked;
    assert_eq!(guest.standby_frames - before, 41 * asked);
}

fn lost() -> PathAnswer {
    let neighbour = NEIGHBOUR;
    PathAnswer::Lost { neighbour }
}
