//! A guest with no more than a virtio NIC moves between two plain QEMUs, with its frames carried and without: each frame
//! is counted in both directions.

use std::fs::File;
use std::os::fd::AsFd;
use std::thread;

use anyhow::{Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tandem_lab::{Host, Lab};

use tandem_lab::carried::{Disturbance, Move, Side, Stage, When};

/// Moves of each kind, one after the other, as the machine's load changes meanwhile.
const ROUNDS: usize = 2;
/// Plain moves differ by so many frames, and a move that a kill has made plain may lose so many more.
const SPREAD: u64 = 5;

/// Neither host has anything of a carry, nor has the guest's tap.
fn nothing_is_left(stage: &Stage<'_>) -> Result<()> {
    let (host, tap) = stage.tap()?;
    let programs = programs_on(host, tap)?;
    ensure!(programs == 0, "{programs} programs are on the guest's tap");
    stage.nothing_is_left()
}

/// Programs in front of that device, of both directions.
fn programs_on(host: &Host, device: &str) -> Result<usize> {
    let namespace = File::open(format!("/run/netns/{}", host.namespace().name()))?;
    // The network is this thread's alone.
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network)?;
            let mut programs = 0;
            for way in [TcAttachType::Ingress, TcAttachType::Egress] {
                programs += SchedClassifier::query_tcx(device, way)?.1.len();
            }
            Ok(programs)
        });
        looking.join().expect("it does not panic")
    })
}

fn carried_beside_plain(lab: &Lab) -> Result<()> {
    let mut stage = Stage::new(lab)?;
    nothing_is_left(&stage)?;
    let mut lost_plain = Vec::new();
    for round in 1..=ROUNDS {
        let plain = stage.migrate(&Move::Plain)?;
        lost_plain.push(plain.frames.to_guest.total.lost);
        let carried = stage.migrate(&Move::Carried)?;
        let [to_guest, to_client] = carried.totals();
        let told = &carried.report["carry"];
        eprintln!(
            "round {round}: plain lost {}, broadcasts lost {} twice {}; carried lost {} twice {} late {}; {told}",
            plain.frames.to_guest.total.lost,
            plain.others[1].to_guest.total.lost,
            plain.others[1].to_guest.total.duplicated,
            to_guest.lost,
            to_guest.duplicated,
            to_guest.reordered
        );
        let all = format!("round {round}: {}\n{}", carried.frames, carried.report);
        ensure!(told["reason"].is_null(), "it was not carried: {all}");
        let (unseen, late) = carried.told()?;
        ensure!(
            told["carried"].as_u64() > Some(0),
            "nothing was carried: {all}"
        );
        for (count, lost, late) in [(to_guest, unseen, late), (to_client, 0, 0)] {
            let wrong = [count.lost, count.duplicated, count.reordered];
            ensure!(
                count.lost <= lost && count.duplicated == 0 && count.reordered <= late,
                "lost, twice, out of order {wrong:?}: {all}"
            );
        }
        let missed = to_guest.lost
            + carried
                .others
                .iter()
                .map(|one| one.to_guest.total.lost)
                .sum::<u64>();
        ensure!(
            told["lost"].as_u64() <= Some(missed),
            "the guest missed {missed}, and more are told: {all}"
        );
        for (what, frames) in ["IPv6", "broadcasts"].into_iter().zip(&carried.others) {
            let count = &frames.to_guest.total;
            ensure!(count.sent > count.lost, "no {what} came: {frames}");
            ensure!(
                count.lost <= unseen + told["lost"].as_u64().unwrap_or_default()
                    && count.duplicated == 0,
                "{what}: lost {}, twice {}: {frames}\n{all}",
                count.lost,
                count.duplicated
            );
        }
        nothing_is_left(&stage)?;
    }
    eprintln!("plain lost {lost_plain:?}, in {ROUNDS} rounds each");
    ensure!(
        lost_plain.iter().sum::<u64>() > 0,
        "plain moves lost nothing either: the frames don't tell"
    );
    Ok(())
}

/// QEMU stops the guest before the carry holds: what it has left in the tap's queue is swept.
fn qemu_stops_first(lab: &Lab) -> Result<()> {
    let mut stage = Stage::new(lab)?;
    for round in 1..=ROUNDS {
        let moved = stage.migrate(&Move::OwnStop)?;
        let [to_guest, to_client] = moved.totals();
        let told = &moved.report["carry"];
        eprintln!("round {round}: lost {}; {told}", to_guest.lost);
        let all = format!("round {round}: {}\n{}", moved.frames, moved.report);
        ensure!(told["reason"].is_null(), "it was not carried: {all}");
        ensure!(told["stop-was-ours"] == false, "it did not: {all}");
        ensure!(told["swept"].as_u64() > Some(0), "nothing was swept: {all}");
        // Two that QEMU itself may have taken in vain, and what the tap's queue had no room for.
        let most = told["lost"].as_u64().unwrap_or(0) + 2;
        ensure!(
            told["maybe-lost"] == 2 && to_guest.lost <= most && to_client.lost == 0,
            "lost {} and {}: {all}",
            to_guest.lost,
            to_client.lost
        );
        let (_, late) = moved.told()?;
        for (count, late) in [(to_guest, late), (to_client, 0)] {
            let wrong = [count.duplicated, count.reordered];
            ensure!(
                count.duplicated == 0 && count.reordered <= late,
                "twice, out of order {wrong:?}: {all}"
            );
        }
        nothing_is_left(&stage)?;
    }
    Ok(())
}

/// A half that is killed costs no more than a plain migration, whose losses differ by some frames themselves: the guest runs
/// again, and so does the next carry.
fn halves_are_killed(lab: &Lab) -> Result<()> {
    let mut stage = Stage::new(lab)?;
    let mut most = 0;
    for _ in 0..ROUNDS {
        let plain = stage.migrate(&Move::Plain)?.frames.to_guest.total.lost;
        eprintln!("plain: lost {plain}");
        most = most.max(plain + SPREAD);
    }
    for when in [When::Ready, When::Stopped] {
        for side in [Side::Source, Side::Destination] {
            let moved = stage.migrate(&Move::Killed(side, when))?;
            let [to_guest, to_client] = moved.totals();
            let told = &moved.report["carry"];
            eprintln!(
                "{side:?} killed when {when:?}: lost {} twice {}; {told}",
                to_guest.lost, to_guest.duplicated
            );
            let all = format!("{side:?}, {when:?}: {}\n{}", moved.frames, moved.report);
            ensure!(told["reason"].is_string(), "no reason: {all}");
            ensure!(
                to_client.lost == 0,
                "the guest's own frames are lost: {all}"
            );
            ensure!(to_guest.duplicated == 0, "frames came twice: {all}");
            // Before anything was held it is a plain move, and loses what those lose.
            ensure!(
                when == When::Ready || to_guest.lost <= most,
                "more than {most} frames are lost: {all}"
            );
            // Nothing is lost but around the stop, which counts for one gap.
            let gaps = moved.frames.to_guest.losses.len();
            ensure!(gaps <= 5, "lost in {gaps} places: {all}");
            nothing_is_left(&stage)?;
        }
    }
    let carried = stage.migrate(&Move::Carried)?;
    let [to_guest, _] = carried.totals();
    ensure!(to_guest.lost == 0, "{}\n{}", carried.frames, carried.report);
    // The last one, as the domain is to be recovered then.
    let moved = stage.migrate(&Move::ToolKilled)?;
    let [to_guest, to_client] = moved.totals();
    eprintln!(
        "`migrate` killed: lost {} twice {}",
        to_guest.lost, to_guest.duplicated
    );
    ensure!(
        (to_client.lost, to_guest.duplicated) == (0, 0) && to_guest.lost <= most,
        "more than {most} are lost, or some came twice: {}",
        moved.frames
    );
    stage.await_nothing_left()?;
    nothing_is_left(&stage)
}

#[test]
fn a_carry_whose_half_is_killed_is_a_plain_migration() {
    let Some(lab) = Lab::for_test("carry, halves killed") else {
        return;
    };
    halves_are_killed(&lab).unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn what_a_guest_leaves_that_qemu_stops_is_swept() {
    let Some(lab) = Lab::for_test("carry, QEMU's own stop") else {
        return;
    };
    qemu_stops_first(&lab).unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn a_carried_guest_loses_no_frame() {
    let Some(lab) = Lab::for_test("carry") else {
        return;
    };
    carried_beside_plain(&lab).unwrap_or_else(|error| panic!("{error:?}"));
}

/// The suite `long-carry` has more that goes wrong.
#[test]
fn a_migration_that_is_cancelled_after_the_stop_costs_no_frame() {
    let Some(lab) = Lab::for_test("carry, disturbed") else {
        return;
    };
    disturbed(&lab).unwrap_or_else(|error| panic!("{error:?}"));
}

fn disturbed(lab: &Lab) -> Result<()> {
    let mut stage = Stage::new(lab)?;
    stage.only_its_own_tap_is_guarded()?;
    let moved = stage.migrate(&Move::Disturbed(Disturbance::Cancelled(When::Stopped)))?;
    let [to_guest, to_client] = moved.totals();
    let told = &moved.report["carry"];
    eprintln!("cancelled: lost {}; {told}", to_guest.lost);
    let unseen = told["maybe-lost"].as_u64().unwrap_or_default();
    ensure!(
        to_guest.lost <= unseen && to_guest.duplicated == 0 && to_client.lost == 0,
        "{}\n{}",
        moved.frames,
        moved.report
    );
    nothing_is_left(&stage)
}
