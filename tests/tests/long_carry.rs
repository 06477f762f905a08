//! What goes wrong while a carried guest moves, at each moment: no worse than a plain migration, and nothing is left behind.

use std::time::Duration;

use anyhow::{Result, ensure};
use tandem_lab::Lab;
use tandem_lab::carried::{Disturbance, Move, Side, Stage, When};

/// Moves that tell what a plain one loses.
const PLAIN: usize = 2;
/// A move that a fault has made plain may lose so many frames more.
const SPREAD: u64 = 5;

/// What the fault may cost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cost {
    /// No frame.
    None,
    /// As a plain migration.
    AsPlain,
    /// What the report says.
    AsTold,
}

fn disturbed(lab: &Lab, cases: &[(Disturbance, Cost)]) -> Result<()> {
    let mut stage = Stage::new(lab)?;
    let mut most = 0;
    for _ in 0..PLAIN {
        let plain = stage.migrate(&Move::Plain)?.frames.to_guest.total.lost;
        eprintln!("plain: lost {plain}");
        most = most.max(plain + SPREAD);
    }
    for (disturbance, cost) in cases {
        let moved = stage.migrate(&Move::Disturbed(*disturbance))?;
        let [to_guest, to_client] = moved.totals();
        let told = &moved.report["carry"];
        eprintln!(
            "{disturbance:?}: lost {} twice {} late {}; {told}",
            to_guest.lost, to_guest.duplicated, to_guest.reordered
        );
        let all = format!("{disturbance:?}: {}\n{}", moved.frames, moved.report);
        let told_lost = told["lost"].as_u64().unwrap_or_default();
        let allowed = match cost {
            Cost::None => told["maybe-lost"].as_u64().unwrap_or_default(),
            Cost::AsPlain => most,
            Cost::AsTold => told_lost,
        };
        ensure!(
            to_guest.lost <= allowed,
            "more than {allowed} are lost: {all}"
        );
        ensure!(
            *cost != Cost::AsTold || to_guest.lost > 0,
            "nothing is lost, so that the count tells nothing: {all}"
        );
        ensure!(
            to_guest.duplicated == 0 && to_client.lost == 0,
            "some came twice, or the guest's own are lost: {all}"
        );
        stage.await_nothing_left()?;
    }
    let carried = stage.migrate(&Move::Carried)?;
    let [to_guest, _] = carried.totals();
    ensure!(to_guest.lost == 0, "{}\n{}", carried.frames, carried.report);
    stage.nothing_is_left()
}

fn run(name: &str, cases: &[(Disturbance, Cost)]) {
    let Some(lab) = Lab::for_test(name) else {
        return;
    };
    disturbed(&lab, cases).unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn a_migration_that_is_cancelled_costs_no_frame() {
    run(
        "carry, cancelled",
        &[When::Copying, When::Holding, When::Stopped]
            .map(|when| (Disturbance::Cancelled(when), Cost::None)),
    );
}

/// As ssh's would: whether the half has died can't be told.
#[test]
fn a_connection_that_breaks_costs_what_a_plain_migration_does() {
    let cut = |side, when| (Disturbance::Cut(side, when), Cost::AsPlain);
    run(
        "carry, cut",
        &[
            cut(Side::Source, When::Ready),
            cut(Side::Source, When::Stopped),
            cut(Side::Destination, When::Ready),
            cut(Side::Destination, When::Holding),
            cut(Side::Destination, When::Stopped),
        ],
    );
}

#[test]
fn a_destination_that_stands_still_for_long_costs_no_frame() {
    let frozen = Disturbance::Frozen(Duration::from_secs(3));
    run("carry, frozen", &[(frozen, Cost::None)]);
}

/// Both halves wait for longer than they do for a guest that has arrived; its frames are fewer, as its sockets have no room for more.
#[test]
fn a_destination_that_stands_still_for_longer_than_it_is_waited_for_costs_no_frame() {
    let frozen = Disturbance::Frozen(Duration::from_secs(15));
    run("carry, frozen long", &[(frozen, Cost::None)]);
}

/// The guest is resumed by `migrate`. What comes waits in front of its tap, for less than the half's lease.
#[test]
fn a_destination_s_half_that_stands_still_for_seconds_costs_no_more_than_a_plain_migration() {
    let frozen = Disturbance::HalfFrozen(Side::Destination, Duration::from_secs(3));
    run("carry, half frozen", &[(frozen, Cost::AsPlain)]);
}

/// The guest goes on where it was.
#[test]
fn a_destination_that_dies_after_the_stop_costs_no_frame() {
    let dies = Disturbance::DestinationDies;
    run("carry, destination dies", &[(dies, Cost::None)]);
}

/// As one that a manager has set, for the tap of a guest and for its host: what still comes to the tap is carried on.
#[test]
fn entries_that_do_not_move_cost_no_frame_for_as_long_as_they_stay() {
    let stays = |time| (Disturbance::StaysAtTap(time), Cost::None);
    run(
        "carry, static entries",
        &[Duration::from_millis(500), Duration::from_secs(5)].map(stays),
    );
}

#[test]
fn what_a_limit_costs_is_counted() {
    run("carry, limit", &[(Disturbance::SmallLimit, Cost::AsTold)]);
}

/// The source's own bridge learns from the guest's announcement, before the switch does: what still comes to that host is
/// then for nobody there, with a carry as without.
#[test]
fn a_network_that_learns_late_costs_no_more_than_without_a_carry() {
    let Some(lab) = Lab::for_test("carry, late") else {
        return;
    };
    late(&lab).unwrap_or_else(|error| panic!("{error:?}"));
}

fn late(lab: &Lab) -> Result<()> {
    let late = Duration::from_millis(500);
    let mut stage = Stage::new(lab)?;
    let plain = stage.migrate(&Move::PlainLate(late))?;
    let plain = plain.frames.to_guest.total.lost;
    let moved = stage.migrate(&Move::Disturbed(Disturbance::LearnsLate(late)))?;
    let [to_guest, to_client] = moved.totals();
    eprintln!(
        "late: plain lost {plain}, carried {}; {}",
        to_guest.lost, moved.report["carry"]
    );
    ensure!(
        to_guest.lost <= plain + SPREAD && to_guest.duplicated == 0 && to_client.lost == 0,
        "more than {plain} are lost, or some came twice: {}\n{}",
        moved.frames,
        moved.report
    );
    stage.await_nothing_left()
}

/// The kernel gives each flow one of the tap's queues, and another one as soon as the guest sends that flow by that: what waits in
/// the first comes late then, so that order is not promised. That is so without a migration too.
#[test]
fn a_guest_with_two_queues_gets_each_flow_whole() {
    let Some(lab) = Lab::for_test("carry, two queues") else {
        return;
    };
    two_queues(&lab).unwrap_or_else(|error| panic!("{error:?}"));
}

fn two_queues(lab: &Lab) -> Result<()> {
    let mut stage = Stage::with_two_queues(lab)?;
    for how in [Move::Plain, Move::Carried, Move::OwnStop, Move::Carried] {
        let moved = stage.migrate(&how)?;
        let told = &moved.report["carry"];
        let [v6, broadcasts] = &moved.others;
        let flows = [&moved.frames, v6, broadcasts]
            .into_iter()
            .chain(&moved.flows);
        let counts: Vec<_> = flows
            .map(|frames| &frames.to_guest.total)
            .map(|count| [count.lost, count.duplicated, count.reordered])
            .collect();
        let all = format!("{how:?}: lost, twice, out of order {counts:?}; {told}");
        eprintln!("{all}");
        let [lost, twice] = [0, 1].map(|of| counts.iter().map(|flow| flow[of]).sum::<u64>());
        if how == Move::Plain {
            ensure!(lost > 0, "the frames don't tell: {all}");
            continue;
        }
        let (unseen, _) = moved.told()?;
        let told_lost = told["lost"].as_u64().unwrap_or_default();
        ensure!(told["reason"].is_null(), "it was not carried: {all}");
        ensure!(lost <= unseen + told_lost && twice == 0, "{all}");
        stage.await_nothing_left()?;
    }
    stage.uses_both_queues()
}

/// The switch to it is QEMU's own stop, whatever was held before.
#[test]
fn a_guest_whose_memory_follows_it_is_carried_to() {
    let Some(lab) = Lab::for_test("carry, post-copy") else {
        return;
    };
    post_copy(&lab).unwrap_or_else(|error| panic!("{error:?}"));
}

fn post_copy(lab: &Lab) -> Result<()> {
    let mut stage = Stage::new(lab)?;
    let moved = stage.migrate(&Move::PostCopy)?;
    let [to_guest, to_client] = moved.totals();
    let told = &moved.report["carry"];
    eprintln!("post-copy: lost {}; {told}", to_guest.lost);
    let all = format!("{}\n{}", moved.frames, moved.report);
    let number = |name: &str| told[name].as_u64().unwrap_or_default();
    ensure!(told["reason"].is_null(), "it was not carried: {all}");
    ensure!(
        to_guest.lost <= number("maybe-lost") + number("lost") && to_guest.duplicated == 0,
        "lost {}, twice {}: {all}",
        to_guest.lost,
        to_guest.duplicated
    );
    ensure!(to_client.lost == 0, "the guest's own are lost: {all}");
    stage.await_nothing_left()
}
