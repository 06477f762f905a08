//! The conductor between two hosts in memory, with halves that are no processes.

use std::sync::Mutex;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::carry::chunk::Chunk;
use crate::carry::prepared::tap_there;
use crate::evacuate::CarryOutcome;
use crate::hypervisor::{
    ActiveDomain, Answer, Claim, DomainLook, Events, Look, MigrateOptions, Migration, Nic,
};
use crate::xml::Bonds;

/// What a hypervisor does.
#[derive(Debug, Default)]
struct Facts {
    state: Option<DomainState>,
    phase: JobPhase,
    /// It tells no state until then.
    silent_until: Option<Instant>,
    /// Its stop takes so long, and does not end well.
    pause_takes: Duration,
    pause_fails: bool,
    unpaused: u32,
    /// It has the domain's tap from then on.
    tap_from: Option<Instant>,
}

#[derive(Debug, Default)]
struct Fake(Mutex<Facts>);

fn failed() -> HostError {
    HostError::Other {
        host: "fake".to_owned(),
        what: "it".to_owned(),
        reason: "it failed".to_owned(),
    }
}

impl Fake {
    fn facts(&self) -> std::sync::MutexGuard<'_, Facts> {
        self.0.lock().unwrap()
    }
}

impl Look for Fake {
    fn taps<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<String>> {
        Box::pin(async {
            let has = |from| Instant::now() >= from;
            let has_it = self.facts().tap_from.is_some_and(has);
            Ok(has_it.then(|| "vnet7".to_owned()).into_iter().collect())
        })
    }
    fn uri(&self) -> &'static str {
        "fake"
    }
    fn look<'a>(&'a self, _: &'a str) -> Answer<'a, DomainLook> {
        unreachable!("a carry asks for the state alone")
    }
    fn state<'a>(&'a self, _: &'a str) -> Answer<'a, DomainState> {
        Box::pin(async {
            let facts = self.facts();
            if facts
                .silent_until
                .is_some_and(|until| Instant::now() < until)
            {
                return Err(failed());
            }
            Ok(facts.state.unwrap_or(DomainState::Absent))
        })
    }
    fn active(&self) -> Answer<'_, Vec<ActiveDomain>> {
        unreachable!("a carry has one domain")
    }
    fn job<'a>(&'a self, _: &'a str, _: JobWhich) -> Answer<'a, JobFacts> {
        Box::pin(async {
            Ok(JobFacts {
                phase: self.facts().phase,
                ..JobFacts::default()
            })
        })
    }
    fn events(&self) -> Answer<'_, Events> {
        unreachable!("a carry looks")
    }
}

impl Host for Fake {
    fn set_bonds<'a>(&'a self, _: &'a str, _: Option<&'a Bonds>) -> Answer<'a, ()> {
        unreachable!("not a carry's")
    }
    fn set_progress<'a>(&'a self, _: &'a str, _: Option<&'a str>) -> Answer<'a, ()> {
        unreachable!("not a carry's")
    }
    fn set_claim<'a>(&'a self, _: &'a str, _: &'a Claim) -> Answer<'a, ()> {
        unreachable!("not a carry's")
    }
    fn detach<'a>(&'a self, _: &'a str, _: &'a Nic) -> Answer<'a, ()> {
        unreachable!("not a carry's")
    }
    fn attach<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, ()> {
        unreachable!("not a carry's")
    }
    fn check_device<'a>(&'a self, _: &'a str, _: usize) -> Answer<'a, ()> {
        unreachable!("not a carry's")
    }
    fn migrate<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a MigrateOptions,
    ) -> Answer<'a, Box<dyn Migration>> {
        unreachable!("not a carry's")
    }
    fn cancel<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        unreachable!("not a carry's")
    }
    fn unpause<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        let mut facts = self.facts();
        facts.unpaused += 1;
        facts.state = Some(DomainState::Running);
        Box::pin(async { Ok(()) })
    }
    fn pause<'a>(&'a self, _: &'a str) -> Answer<'a, ()> {
        Box::pin(async {
            let (takes, fails) = {
                let mut facts = self.facts();
                facts.state = Some(DomainState::Paused);
                (facts.pause_takes, facts.pause_fails)
            };
            sleep(takes).await;
            if fails { Err(failed()) } else { Ok(()) }
        })
    }
    fn speed<'a>(&'a self, _: &'a str) -> Answer<'a, u64> {
        Box::pin(async { Ok(1 << 30) })
    }
    fn set_speed<'a>(&'a self, _: &'a str, _: u64) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }
    fn set_max_downtime<'a>(&'a self, _: &'a str, _: u64) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// A carry whose source half has had the guest stopped, in the middle of its migration.
struct Stage {
    hosts: [Arc<Fake>; 2],
    /// What the halves are told, and what says their words.
    told: [Receiver<Chunk>; 2],
    says: [Sender<FromHalf>; 2],
    ended: Option<oneshot::Sender<bool>>,
    running: JoinHandle<CarryOutcome>,
}

impl Stage {
    async fn new(prepare: impl FnOnce(&mut Conductor, [&Fake; 2])) -> Self {
        let hosts = [Arc::new(Fake::default()), Arc::new(Fake::default())];
        hosts[0].facts().phase = JobPhase::PreCopy;
        hosts[0].facts().state = Some(DomainState::Running);
        hosts[1].facts().state = Some(DomainState::Incoming);
        let as_hosts: [Arc<dyn Host>; 2] = [hosts[0].clone(), hosts[1].clone()];
        let pace = Pace::of(&as_hosts[0], "g", None).await.unwrap();
        let [(source, a, b), (destination, c, d)] = [HalfProcess::fake(), HalfProcess::fake()];
        let mut conductor = Conductor::with_halves([source, destination], as_hosts, "g", pace);
        conductor.source_command = vec!["true".to_owned()];
        conductor.hold_wanted = true;
        prepare(&mut conductor, [&hosts[0], &hosts[1]]);
        let (ended, end) = oneshot::channel();
        Self {
            hosts,
            told: [a, c],
            says: [b, d],
            ended: Some(ended),
            running: tokio::spawn(conductor.run(end)),
        }
    }

    async fn stopped() -> Self {
        Self::new(|conductor, [source, _]| {
            let at = Instant::now();
            conductor.stop_asked = true;
            conductor.stopped = Some(Stop { ours: true, at });
            source.facts().state = Some(DomainState::Paused);
        })
        .await
    }

    /// What a half was told until now.
    fn words(&mut self, side: Side) -> Vec<String> {
        let told = &mut self.told[usize::from(side == Side::Destination)];
        let mut words = Vec::new();
        while let Ok(chunk) = told.try_recv() {
            if let Chunk::Word(word) = chunk {
                words.push(String::from_utf8(word).unwrap().replace('"', ""));
            }
        }
        words
    }
}

fn has(words: &[String], wanted: &str) -> bool {
    words.iter().any(|word| word == wanted)
}

/// Whoever asked for the migration has lost its connection between its last two steps: the guest runs on the destination, and
/// is paused on the source without a migration.
#[tokio::test(start_paused = true)]
async fn a_guest_that_runs_on_the_destination_is_never_resumed_on_the_source() {
    let mut stage = Stage::stopped().await;
    stage.hosts[0].facts().phase = JobPhase::None;
    stage.hosts[1].facts().state = Some(DomainState::Running);
    stage.ended.take().unwrap().send(false).unwrap();
    // The half may want it, too.
    sleep(Duration::from_secs(5)).await;
    let _ = stage.says[0].send(FromHalf::ResumeGuest).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.hosts[0].facts().unpaused, 0);
    assert!(has(&stage.words(Side::Source), "migration-completed"));
    drop(stage.says);
    stage.running.await.unwrap();
    assert_eq!(stage.hosts[0].facts().unpaused, 0);
}

/// As long as the destination can't be asked, the guest may run there.
#[tokio::test(start_paused = true)]
async fn without_a_look_at_the_destination_nothing_is_resumed() {
    let mut stage = Stage::stopped().await;
    stage.hosts[0].facts().phase = JobPhase::None;
    stage.hosts[1].facts().silent_until = Some(Instant::now() + Duration::from_secs(30));
    stage.hosts[1].facts().state = Some(DomainState::Absent);
    stage.ended.take().unwrap().send(false).unwrap();
    drop(stage.says);
    sleep(Duration::from_secs(29)).await;
    assert_eq!(stage.hosts[0].facts().unpaused, 0);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.hosts[0].facts().unpaused, 1);
    stage.running.await.unwrap();
}

/// All had come to the destination when it was cancelled, and the guest is paused on both.
#[tokio::test(start_paused = true)]
async fn a_guest_that_arrived_before_the_cancel_runs_on_the_source_if_nobody_resumes_it_there() {
    for is_cut_off in [false, true] {
        let mut stage = Stage::stopped().await;
        stage.hosts[1].facts().state = Some(DomainState::Paused);
        if is_cut_off {
            stage.says[1] = channel(1).0;
            sleep(Duration::from_millis(1)).await;
        }
        stage.hosts[0].facts().phase = JobPhase::Cancelled;
        sleep(Duration::from_millis(100)).await;
        stage.says[0].send(FromHalf::ResumeGuest).await.unwrap();
        sleep(Duration::from_millis(400)).await;
        assert_eq!(
            stage.hosts[0].facts().unpaused,
            0,
            "it may not have read that yet"
        );
        let told = has(&stage.words(Side::Destination), "migration-failed");
        sleep(Duration::from_secs(5)).await;
        let unpaused = [&stage.hosts[0], &stage.hosts[1]].map(|host| host.facts().unpaused);
        assert_eq!(unpaused, [u32::from(!is_cut_off), 0]);
        assert!(told || is_cut_off);
    }
}

/// The source half waits behind a stream that nobody takes, and asks for nothing.
#[tokio::test(start_paused = true)]
async fn a_guest_whose_half_says_nothing_runs_again_after_its_migration_failed() {
    let stage = Stage::stopped().await;
    stage.hosts[0].facts().phase = JobPhase::Cancelled;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(stage.hosts[0].facts().unpaused, 1);
    assert_eq!(stage.hosts[0].facts().state, Some(DomainState::Running));
}

/// What was sent to it nobody would give, and the guest still takes what is given back.
#[tokio::test(start_paused = true)]
async fn a_guest_is_not_stopped_for_a_destination_that_went_while_its_moment_was_awaited() {
    let mut stage = Stage::new(|conductor, _| {
        let mut moment = Moment::new(0, 500);
        moment.look(1, 400);
        conductor.moment = Some(moment);
    })
    .await;
    stage.says[0].send(FromHalf::StopGuest).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    stage.says[1] = channel(1).0;
    sleep(Duration::from_millis(200)).await;
    assert!(has(&stage.words(Side::Source), "stop-refused"));
    assert_eq!(stage.hosts[0].facts().state, Some(DomainState::Running));
}

/// Its stop comes, and the call's end does not; for a while the hypervisor tells nothing.
#[tokio::test(start_paused = true)]
async fn a_stop_that_comes_is_known_of_however_its_call_ends() {
    for (takes_s, fails) in [(0, true), (5, true), (5, false)] {
        let mut stage = Stage::new(|_, [source, _]| {
            let mut facts = source.facts();
            facts.pause_takes = Duration::from_secs(takes_s);
            facts.pause_fails = fails;
            facts.silent_until = Some(Instant::now() + Duration::from_secs(3));
        })
        .await;
        stage.says[0].send(FromHalf::StopGuest).await.unwrap();
        sleep(Duration::from_millis(3_500)).await;
        let words = stage.words(Side::Source);
        let case = format!("{takes_s} s, {fails}: {words:?}");
        assert!(has(&words, "guest-stopped"), "{case}");
        assert!(!has(&words, "stop-refused"), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_post_copy_the_source_need_not_keep_what_it_has_handed_over() {
    let mut stage = Stage::stopped().await;
    stage.hosts[0].facts().phase = JobPhase::PostCopy;
    stage.hosts[1].facts().state = Some(DomainState::Running);
    sleep(Duration::from_secs(1)).await;
    let words = stage.words(Side::Source);
    assert!(has(&words, "migration-completed"), "{words:?}");
}

#[tokio::test(start_paused = true)]
async fn a_half_that_takes_no_word_counts_as_gone() {
    let stage = Stage::new(|conductor, [source, destination]| {
        let at = Instant::now();
        conductor.stop_asked = true;
        conductor.stopped = Some(Stop { ours: true, at });
        conductor.halves[1].fill();
        source.facts().state = None;
        source.facts().phase = JobPhase::Completed;
        destination.facts().state = Some(DomainState::Paused);
    })
    .await;
    // Nobody else has the guest run there.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(stage.hosts[1].facts().unpaused, 1);
}

/// Another host's half says words without end, and nothing else comes to pass in between.
#[tokio::test(start_paused = true)]
async fn a_half_that_never_ceases_to_talk_keeps_nobody_from_looking() {
    let stage = Stage::stopped().await;
    stage.hosts[0].facts().phase = JobPhase::Cancelled;
    let talks = stage.says[1].clone();
    tokio::spawn(async move {
        while talks.send(FromHalf::Ready).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.hosts[0].facts().unpaused, 1);
}

/// A busy host takes long to start the QEMU that the domain comes to.
#[tokio::test(start_paused = true)]
async fn a_destination_that_has_its_tap_late_is_waited_for() {
    let host = Fake::default();
    host.facts().tap_from = Some(Instant::now() + Duration::from_secs(50));
    let (_tell, mut ended) = oneshot::channel();
    let tap = tap_there(&host, "g1", &mut ended).await;
    assert_eq!(tap, Ok("vnet7".to_owned()));
}

/// Meanwhile the migration goes slowly.
#[tokio::test(start_paused = true)]
async fn a_destination_that_never_has_a_tap_is_given_up() {
    let begun = Instant::now();
    let (_tell, mut ended) = oneshot::channel();
    let tap = tap_there(&Fake::default(), "g1", &mut ended).await;
    assert!(tap.is_err(), "{tap:?}");
    let waited = begun.elapsed().as_secs();
    assert!((60..62).contains(&waited), "{waited} s");
}

/// Or `migrate` would tell of a failure so much later.
#[tokio::test(start_paused = true)]
async fn a_migration_that_is_over_is_waited_for_no_longer() {
    let begun = Instant::now();
    for well in [false, true] {
        let (tell, mut ended) = oneshot::channel();
        tell.send(well).unwrap();
        let tap = tap_there(&Fake::default(), "g1", &mut ended).await;
        assert!(tap.unwrap_err().contains("was over"), "{well}");
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
}
