//! Guests that are not what they should be, at the end of the whole way: socket, agent, runner, decisions.
//! In real time: a guest behind a socket does not follow a test's clock.

use tandem_host::evacuate::{
    AgentUse, Cause, CauseCode, GuestVerdict, Limits, Obstacles, Start, Verdict,
};

use super::guest::{Guest, Manner, VF_MAC};
use super::{Nosy, Pair, Story, run_in, start};

/// As short as they can be, so that nobody waits.
fn limits() -> Limits {
    Limits {
        unplug_ms: 2_000,
        unplug_retry_ms: 500,
        unplug_settle_ms: 500,
        plug_ms: 2_000,
        verify_ms: 3_000,
        ..Limits::default()
    }
}

/// The guest has a socket on each host.
async fn with(manner: Manner, prepare: impl FnOnce(&mut Pair)) -> (Story, [Guest; 2]) {
    let start = start(AgentUse::Required, limits());
    evacuate(manner, start, prepare).await
}

async fn evacuate(
    manner: Manner,
    start: Start,
    prepare: impl FnOnce(&mut Pair),
) -> (Story, [Guest; 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    let sockets = tempfile::tempdir().expect("a folder");
    let guest = ["a", "b"].map(|host| Guest::new(&sockets.path().join(host), manner));
    let channels = [0, 1].map(|host: usize| Some(guest[host].socket.clone()));
    let channel = move |pair: &mut Pair| {
        pair.channels = channels;
        prepare(pair);
    };
    let story = run_in(folder, start, channel, &mut Nosy::default()).await;
    (story, guest)
}

/// It was refused before anything was done, for this reason.
fn is_refused(story: &Story, cause: CauseCode) {
    let outcome = story.outcome().expect("it ended");
    assert_eq!(outcome.verdict, Verdict::Refused, "{outcome:#?}");
    let code = outcome.cause.as_ref().map(|cause| cause.code);
    assert_eq!(code, Some(cause), "{outcome:#?}");
    assert!(story.done().is_empty(), "{:?}", story.done());
    story.check(0, 1);
}

/// It would be 1 GiB, and is given up long before.
#[tokio::test]
async fn an_endless_line_is_refused() {
    let (story, guest) = with(Manner::EndlessLine, |_| {}).await;
    is_refused(&story, CauseCode::AgentHostile);
    let taken = *guest[0].taken.lock().unwrap();
    assert!(taken < 16 << 20, "{taken} bytes were taken");
}

#[tokio::test]
async fn answers_with_wrong_ids_are_none() {
    let (story, _guest) = with(Manner::WrongIds, |_| {}).await;
    is_refused(&story, CauseCode::AgentMissing);
}

#[tokio::test]
async fn answers_that_are_none_are_refused() {
    let (story, _guest) = with(Manner::Lies, |_| {}).await;
    is_refused(&story, CauseCode::AgentHostile);
}

/// A guest that is too old, or too new, is found out by a check, and nothing is done with it.
#[tokio::test]
async fn a_guest_without_a_version_in_common_is_refused() {
    for check_only in [true, false] {
        let start = Start {
            check_only,
            ..start(AgentUse::Required, limits())
        };
        let (story, _guest) = evacuate(Manner::OtherMessages, start, |_| {}).await;
        is_refused(&story, CauseCode::AgentHostile);
        let outcome = story.outcome().expect("it ended");
        assert_eq!(outcome.exit_code(), 10);
        let said = outcome.cause.as_ref().map(|cause| cause.message.as_str());
        let said = said.unwrap_or_default();
        assert!(said.contains("version 99 of the messages"), "{said}");
    }
}

/// It is evacuated all the same, as it is given its bonds by `serve` all the same; the report says what it lacks.
#[tokio::test]
async fn what_an_older_guest_does_not_know_of_its_bonds_is_in_the_report() {
    let mut start = start(AgentUse::Required, limits());
    start.spec.configure = true;
    let (story, _guest) = evacuate(Manner::Older, start, |_| {}).await;
    let outcome = story.outcome().expect("it ended");
    assert_eq!(outcome.verdict, Verdict::Done, "{outcome:#?}");
    let [warning] = outcome.warnings.as_slice() else {
        panic!("{outcome:#?}");
    };
    assert!(warning.contains("update tandem in the guest"), "{warning}");
    assert!(warning.contains("path-check"), "{warning}");
}

/// It says that the VF may go, and holds on to it.
#[tokio::test]
async fn a_lie_about_ready_is_found_out_by_the_host() {
    let (story, _guest) = with(Manner::SaysReady, |pair| pair.unplug_is_ignored = true).await;
    let outcome = story.outcome().expect("it ended");
    assert_eq!(outcome.verdict, Verdict::RolledBack, "{outcome:#?}");
    let code = outcome.cause.as_ref().map(|cause| cause.code);
    assert_eq!(code, Some(CauseCode::UnplugTimedOut));
    assert!(outcome.unplug_may_follow);
    let done = story.done();
    assert!(done.iter().all(|one| one == "detach vf 0"), "{done:?}");
    story.check(0, 1);
}

/// It says that it uses a VF which was never plugged in.
#[tokio::test]
async fn a_lie_about_the_vf_does_not_make_it_done() {
    let (story, _guest) = with(Manner::SaysReady, |pair| pair.attach_failures = u32::MAX).await;
    let outcome = story.outcome().expect("it ended");
    assert_eq!(outcome.verdict, Verdict::Degraded, "{outcome:#?}");
    let code = outcome.cause.as_ref().map(|cause| cause.code);
    assert_eq!(code, Some(CauseCode::PlugFailed));
    assert!(!outcome.vf_attached && outcome.recovery_needed);
    story.check(1, 0);
}

/// It never says that the VF may go: nothing is unplugged.
#[tokio::test]
async fn a_guest_that_is_never_ready_keeps_its_vf() {
    let (story, _guest) = with(Manner::NeverReady, |_| {}).await;
    let outcome = story.outcome().expect("it ended");
    assert_eq!(outcome.verdict, Verdict::RolledBack, "{outcome:#?}");
    assert_eq!(outcome.guest, GuestVerdict::UsesVf);
    assert!(story.done().is_empty(), "{:?}", story.done());
    story.check(0, 1);
}

/// What the domain's XML says of VFs is of no meaning to a guest whose own files define the bonds: it is asked.
#[tokio::test]
async fn a_guest_with_bonds_of_its_own_is_asked_which_vfs_it_knows() {
    for (manner, is_known) in [
        (Manner::KnowsVf, true),
        // An older one does not say.
        (Manner::KnowsUnsaid, true),
        (Manner::KnowsOther, false),
        // Its bonds are the host's.
        (Manner::SaysReady, false),
    ] {
        let mut start = Start {
            check_only: true,
            ..start(AgentUse::Required, limits())
        };
        let vf = start.spec.devices[0].destination.as_mut().unwrap();
        vf.guest_mac = VF_MAC.parse().ok();
        let cause = Cause::new(CauseCode::UnknownVf, "no <vf> of the XML has that MAC");
        start.obstacles = Obstacles {
            unknown_vfs: [(0, cause)].into(),
            ..Obstacles::default()
        };
        let (story, _guest) = evacuate(manner, start, |_| {}).await;
        if is_known {
            assert_eq!(
                story.verdict(),
                Some(Verdict::Ready),
                "{:#?}",
                story.outcome()
            );
        } else {
            is_refused(&story, CauseCode::UnknownVf);
        }
    }
}
