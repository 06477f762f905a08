//! Guests that do harm, beside one that is honest.

use super::*;
use crate::hypervisor::Look as _;
use crate::report::ChannelUse;

/// Bytes that a service may take of one hostile guest in one go, with what the kernel buffers.
const BOUND: usize = 16 << 20;

/// Whatever `manner` does, the other guest's changes are seen, and little is taken of it.
async fn does_no_harm(manner: Manner) -> usize {
    let folder = folder();
    let honest = Guest::new(&folder.path().join("honest"), Manner::Honest);
    let hostile = Guest::new(&folder.path().join("hostile"), manner);
    let service = Service::new(folder, &[("honest", &honest), ("hostile", &hostile)]);
    let mut watching = service.watch("honest").await;
    soon(&mut watching, |shown| generation(shown) == 1).await;
    for _ in 0..10 {
        let now = honest.changes();
        soon(&mut watching, |shown| generation(shown) == now).await;
    }
    if manner != Manner::Silent {
        let mut watching = service.watch("hostile").await;
        let told = |shown: &Shown| shown.report.guest_error.is_some();
        let shown = soon(&mut watching, told).await;
        assert_eq!(shown.report.channel, ChannelUse::None);
        assert_eq!(shown.report.guest, None);
    }
    let taken = *hostile.taken.lock().unwrap();
    service.ends().await;
    taken
}

/// As [`seen`], by a clock that nobody turns.
async fn soon(watching: &mut Watching, so: impl Fn(&Shown) -> bool) -> Shown {
    let seen = tokio::time::timeout(PATIENCE, seen(watching, so));
    seen.await.expect("it was not so in time")
}

#[tokio::test]
async fn a_silent_guest_harms_nobody() {
    does_no_harm(Manner::Silent).await;
}

#[tokio::test]
async fn a_flood_of_events_harms_nobody() {
    let taken = does_no_harm(Manner::Floods).await;
    assert!(taken < BOUND, "{taken} bytes were taken");
}

#[tokio::test]
async fn an_endless_line_harms_nobody() {
    let taken = does_no_harm(Manner::EndlessLine).await;
    assert!(taken < BOUND, "{taken} bytes were taken");
}

#[tokio::test]
async fn lies_harm_nobody() {
    does_no_harm(Manner::Lies).await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_makes_events_is_not_looked_at_all_the_time() {
    let (service, _guest) = Service::of_one();
    let mut watching = service.watch_answering("g1").await;
    for _ in 0..1200 {
        let opens = EventKind::Agent { connected: false };
        service.happens("g1", opens);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let looks = service
        .fake
        .looks
        .load(std::sync::atomic::Ordering::Relaxed);
    assert!((30..=50).contains(&looks), "{looks} looks in 5 minutes");
    // The last of them is not forgotten.
    service
        .fake
        .edit("g1", |facts| facts.reason = "unpaused".to_owned());
    service.happens("g1", EventKind::MetadataChanged);
    let told = |shown: &Shown| shown.report.reason == "unpaused";
    tokio::time::timeout(PATIENCE, seen(&mut watching, told))
        .await
        .unwrap();
    service.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_floods_is_not_heard_sooner_because_it_restarts() {
    let folder = folder();
    let mut guest = Guest::new(&folder.path().join("g1"), Manner::Floods);
    let service = Service::new(folder, &[("g1", &guest)]);
    for _ in 0..120 {
        // It opens its port again and again.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let opens = EventKind::Agent { connected: true };
        service.happens("g1", opens);
    }
    let mut clients = 0;
    while let Ok(command) = guest.commands.try_recv() {
        clients += usize::from(command == "client");
    }
    // It would be one for each time that it opens its port.
    assert!(
        (2..=60).contains(&clients),
        "{clients} connections in 2 minutes"
    );
    service.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_hangs_up_is_tried_ever_more_rarely() {
    let folder = folder();
    let mut guest = Guest::new(&folder.path().join("g1"), Manner::HangsUp);
    let service = Service::new(folder, &[("g1", &guest)]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let mut clients = 0;
    while guest.commands.try_recv().is_ok() {
        clients += 1;
    }
    // 1, 2, 4, … 32 s, then each minute.
    assert!(
        (14..=18).contains(&clients),
        "{clients} connections in 10 minutes"
    );
    service.ends().await;
}

/// Lines of the log, of this thread.
#[derive(Debug, Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_refuses_its_bonds_again_and_again_fills_no_log() {
    let log = Log::default();
    let to = log.clone();
    let lines = tracing_subscriber::fmt()
        .with_writer(move || to.clone())
        .finish();
    let _here = tracing::subscriber::set_default(lines);
    let folder = folder();
    let mut guest = Guest::new(&folder.path().join("g1"), Manner::Refuses);
    let service = Service::new(folder, &[("g1", &guest)]);
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let opens = EventKind::Agent { connected: true };
        service.happens("g1", opens);
    }
    let mut refused = 0;
    while let Ok(command) = guest.commands.try_recv() {
        refused += usize::from(command == "tandem-configure");
    }
    assert!(refused > 30, "it was asked only {refused} times");
    service.ends().await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines = text.lines().filter(|line| line.contains("not configured"));
    assert!((4..=7).contains(&lines.count()), "{text}");
    assert!(text.contains("I do not want them"), "{text}");
}

#[test]
fn a_panic_under_the_board_s_lock_takes_it_from_nobody() {
    use super::super::registry::Registry;
    use crate::hypervisor::{DomainFacts, DomainLook};
    use crate::report::DomainReport;
    let registry = Registry::new();
    let show = |name: &str| {
        let look = DomainLook {
            facts: DomainFacts::absent(name),
            bonds: Ok(None),
            progress: None,
            claims: Vec::new(),
        };
        registry.show(DomainReport::of(&look), false);
    };
    show("g1");
    let panics = std::panic::AssertUnwindSafe(|| registry.each(|_, _| panic!("of this test")));
    std::panic::catch_unwind(panics).unwrap_err();
    show("g2");
    assert_eq!(registry.names(), ["g1", "g2"]);
}

/// The supervisor alone, with channel tasks that panic twice.
#[tokio::test(start_paused = true)]
async fn a_channel_task_that_panics_is_begun_again() {
    use super::super::registry::Registry;
    use super::super::supervisor::Supervisor;
    use std::sync::atomic::{AtomicU32, Ordering};
    static PANICS: AtomicU32 = AtomicU32::new(2);
    let folder = folder();
    let guest = Guest::new(&folder.path().join("g1"), Manner::Honest);
    let other = Guest::new(&folder.path().join("g2"), Manner::Honest);
    let fake = Fake::new(&[("g1", &guest.socket), ("g2", &other.socket)]);
    let registry = Arc::new(Registry::new());
    let events = fake.events().await.unwrap();
    let mut supervisor = Supervisor::new(
        Arc::<Fake>::clone(&fake),
        Options::default(),
        Arc::clone(&registry),
        Arc::default(),
    );
    supervisor.keep = |channel_task| {
        let left = |left: u32| left.checked_sub(1);
        let panics = channel_task.name == "g1"
            && PANICS
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
                .is_ok();
        Box::pin(async move {
            assert!(!panics, "a fault of this program");
            channel_task.keep().await;
        })
    };
    let is = |name: &str, so: fn(&Shown) -> bool| match registry.one(name) {
        Some(ControlReply::Domain(shown)) => so(&shown),
        _ => false,
    };
    let mut changes = registry.subscribe();
    let watch = async {
        let mut told = false;
        let subscribed = |shown: &Shown| shown.report.channel == ChannelUse::Subscribed;
        while !(is("g1", subscribed) && is("g2", subscribed)) {
            told |= is("g1", |shown| {
                let error = shown.report.guest_error.as_deref().unwrap_or_default();
                error.contains("a fault of this program")
            });
            changes.changed().await.unwrap();
        }
        assert!(told, "nobody was told");
    };
    let watched = tokio::time::timeout(LONG, watch);
    tokio::select! {
        () = supervisor.run(events, std::future::pending()) => unreachable!("nothing stops it"),
        watched = watched => watched.expect("it was not begun again"),
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}

#[test]
fn little_is_kept_of_a_status_that_is_long() {
    use super::super::registry::Registry;
    use crate::hypervisor::{DomainFacts, DomainLook};
    use crate::report::DomainReport;
    let registry = Registry::new();
    let look = DomainLook {
        facts: DomainFacts::absent("g1"),
        bonds: Ok(None),
        progress: None,
        claims: Vec::new(),
    };
    registry.show(DomainReport::of(&look), false);
    let switchover = r#"{"number":1,"at":1,"from":"vf","to":"standby","cause":"planned"}"#;
    let status = |switchovers: usize, reason: usize| {
        let text = format!(
            r#"{{"tandem-protocol":1,"version":"1","now":1,"status":{{"generation":1,"policy":"host","sources":[],
            "bonds":[{{"name":"bond0","ifindex":null,"mac":null,"state":"standby","traffic":"standby","reason":"{}",
            "standby":null,"vf":null,"addresses":[],"problems":[],"next-deadline":null,"switchovers":[{}],"switchover-count":1}}]}}}}"#,
            "x".repeat(reason),
            vec![switchover; switchovers].join(",")
        );
        (serde_json::from_str(&text).unwrap(), text.len())
    };
    let guest = |switchovers, reason| {
        let (report, bytes) = status(switchovers, reason);
        registry.guest("g1", report, bytes);
        let Some(ControlReply::Domain(shown)) = registry.one("g1") else {
            unreachable!("it is shown");
        };
        shown.report
    };
    let sane = guest(32, 100).guest.unwrap();
    assert_eq!(sane.status.bonds[0].switchovers.len(), 32);
    let long = guest(2000, 100).guest.unwrap();
    assert_eq!(long.status.bonds[0].switchovers.len(), 2);
    let longer = guest(2, 100_000);
    assert_eq!(longer.guest, None);
    assert!(longer.guest_error.unwrap().contains("are not kept"));
}
