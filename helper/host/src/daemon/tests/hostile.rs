//! Guests that do harm, beside one that is honest.

use super::*;
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
    use crate::hypervisor::{Event, EventKind};
    let folder = folder();
    let guest = Guest::new(&folder.path().join("g1"), Manner::Honest);
    let service = Service::new(folder, &[("g1", &guest)]);
    let mut watching = service.watch("g1").await;
    seen(&mut watching, |shown| generation(shown) == 1).await;
    for _ in 0..1200 {
        let opens = EventKind::Agent { connected: false };
        service.fake.happens(Event::of("g1", opens));
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
    service
        .fake
        .happens(Event::of("g1", EventKind::MetadataChanged));
    let told = |shown: &Shown| shown.report.reason == "unpaused";
    tokio::time::timeout(PATIENCE, seen(&mut watching, told))
        .await
        .unwrap();
    service.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_floods_is_not_heard_sooner_because_it_restarts() {
    use crate::hypervisor::{Event, EventKind};
    let folder = folder();
    let mut guest = Guest::new(&folder.path().join("g1"), Manner::Floods);
    let service = Service::new(folder, &[("g1", &guest)]);
    for _ in 0..120 {
        // It opens its port again and again.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let opens = EventKind::Agent { connected: true };
        service.fake.happens(Event::of("g1", opens));
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
        let Some(Reply::Domain(shown)) = registry.one("g1") else {
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
