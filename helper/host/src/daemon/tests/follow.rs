//! Domains that come, go and change, and a hypervisor that is away for a while.

use std::sync::atomic::Ordering;

use super::*;
use crate::hypervisor::DomainState;
use crate::report::ChannelUse;
use crate::xml::device::parse_device;

#[tokio::test]
async fn a_guest_is_configured_once_per_boot() {
    let (service, mut guest) = Service::of_one();
    let happens = |kind| service.happens("g1", kind);
    assert!(guest.configured_before_status().await, "at the start");
    guest.changes();
    assert!(!guest.configured_before_status().await, "same boot");
    happens(EventKind::Reboot);
    assert!(guest.configured_before_status().await, "another boot");
    happens(EventKind::Agent { connected: true });
    assert!(guest.configured_before_status().await, "its service began");
    service.fake.happens(DomainEvent::lost());
    assert!(guest.configured_before_status().await, "events lost");
    service
        .fake
        .edit("g1", |facts| facts.run_id = "2".to_owned());
    happens(EventKind::JobFinished);
    assert!(guest.configured_before_status().await, "another start");
    let folder = service.ends().await;
    let text = std::fs::read_to_string(folder.path().join("tandem.prom")).unwrap();
    let answers = "tandem_guest_answers{domain=\"g1\"} 1\n";
    assert!(
        text.contains(answers) && text.ends_with("# EOF\n"),
        "{text}"
    );
}

#[tokio::test]
async fn bonds_that_come_later_are_handed_over_at_once() {
    let folder = folder();
    let mut guest = Guest::new(&folder.path().join("g1"), Manner::Honest);
    let fake = Fake::new(&[("g1", &guest.socket)]);
    fake.has_bonds.store(false, Ordering::Relaxed);
    let service = Service::over(folder, fake, Options::default());
    assert!(!guest.configured_before_status().await, "there are none");
    service.fake.has_bonds.store(true, Ordering::Relaxed);
    service.happens("g1", EventKind::MetadataChanged);
    assert!(guest.configured_before_status().await, "there are some");
    service.fake.has_bonds.store(false, Ordering::Relaxed);
    service.happens("g1", EventKind::MetadataChanged);
    guest.changes();
    assert!(!guest.configured_before_status().await, "same boot");
    service.ends().await;
}

/// An alias alone says nothing to the guest: the MAC of the device that has it does, once that is there.
#[tokio::test]
async fn a_vf_of_a_new_mac_that_comes_under_its_alias_is_told() {
    let (service, mut guest) = Service::of_one();
    assert!(guest.configured_before_status().await, "at the start");
    let looks = || service.fake.looks.load(Ordering::Relaxed);
    for (mac, is_told, why) in [
        (Some("52:54:00:aa:00:02"), false, "it is written"),
        (None, false, "it has left"),
        (Some("52:54:00:cc:00:09"), true, "it is new"),
        (None, false, "it has left too"),
        (Some("52:54:00:cc:00:09"), false, "it is known"),
    ] {
        let vf = mac.map(|mac| {
            let xml = format!(
                "<interface type='hostdev'><mac address='{mac}'/><alias name='ua-vf0'/></interface>"
            );
            parse_device(&xml).unwrap()
        });
        let nics = vf.into_iter().collect();
        service.fake.edit("g1", |facts| facts.nics = nics);
        let before = looks();
        service.happens("g1", EventKind::MetadataChanged);
        while looks() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut told = false;
        for _ in 0..3 {
            guest.changes();
            told |= guest.configured_before_status().await;
        }
        assert_eq!(told, is_told, "{why}");
    }
    service.ends().await;
}

#[tokio::test]
async fn guests_come_and_go() {
    let folder = folder();
    let guest = Guest::new(&folder.path().join("g1"), Manner::Honest);
    let service = Service::new(folder, &[]);
    let mut watching = service.watch("g1").await;
    assert_eq!(watching.next().await.unwrap(), ControlReply::Current {});
    for run_id in ["1", "2"] {
        service.fake.start("g1", &guest.socket, run_id);
        let started = EventKind::Lifecycle(crate::hypervisor::Lifecycle::Started);
        service.happens("g1", started.clone());
        seen(&mut watching, |shown| generation(shown) == 1).await;
        // Its guest is not asked while it stands still.
        service
            .fake
            .edit("g1", |facts| facts.state = DomainState::Paused);
        service.happens("g1", started.clone());
        let paused = |shown: &Shown| shown.report.channel == ChannelUse::None;
        let shown = seen(&mut watching, paused).await;
        assert_eq!(shown.report.guest, None);
        service
            .fake
            .edit("g1", |facts| facts.state = DomainState::ShutOff);
        service.happens("g1", started);
        let gone = ControlReply::Gone {
            domain: "g1".to_owned(),
        };
        while watching.next().await.unwrap() != gone {}
    }
    service.ends().await;
}

#[tokio::test]
async fn a_guest_without_an_open_channel_is_not_asked() {
    let folder = folder();
    let mut guest = Guest::new(&folder.path().join("g1"), Manner::Honest);
    let fake = Fake::new(&[("g1", &guest.socket)]);
    let open = |fake: &Fake, open| {
        fake.edit("g1", |facts| {
            if let Some(channel) = &mut facts.channel {
                channel.opened = Some(open);
            }
        });
    };
    open(&fake, false);
    let service = Service::over(folder, fake, Options::default());
    let mut watching = service.watch("g1").await;
    let closed = |shown: &Shown| shown.report.guest_error.is_some();
    let shown = seen(&mut watching, closed).await;
    let error = shown.report.guest_error.unwrap();
    assert!(error.contains("has not opened the channel"), "{error}");
    assert!(guest.commands.try_recv().is_err());
    open(&service.fake, true);
    service.happens("g1", EventKind::Agent { connected: true });
    seen(&mut watching, |shown| generation(shown) == 1).await;
    service.ends().await;
}

#[tokio::test]
async fn a_socket_that_two_domains_have_is_used_for_neither() {
    let (service, mut guest) = Service::of_one();
    let mut watching = service.watch_answering("g1").await;
    // Another domain names the same one, and wants to have its guest configured over it.
    service.fake.start("thief", &guest.socket, "1");
    let started = EventKind::Lifecycle(crate::hypervisor::Lifecycle::Started);
    service.happens("thief", started.clone());
    let is_none = |shown: &Shown| shown.report.channel == ChannelUse::None;
    let shown = seen(&mut watching, is_none).await;
    let error = shown.report.guest_error.unwrap();
    assert!(error.contains("that of domain thief too"), "{error}");
    while guest.commands.try_recv().is_ok() {}
    let mut thief = service.watch("thief").await;
    let told = |shown: &Shown| shown.report.guest_error.is_some();
    let error = seen(&mut thief, told).await.report.guest_error.unwrap();
    assert!(error.contains("that of domain g1 too"), "{error}");
    assert!(guest.commands.try_recv().is_err(), "it was asked");
    // It is the first one's again as soon as the other is gone.
    service
        .fake
        .edit("thief", |facts| facts.state = DomainState::ShutOff);
    service.happens("thief", started);
    seen(&mut watching, |shown| {
        shown.report.channel == ChannelUse::Subscribed
    })
    .await;
    service.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_hypervisor_s_daemon_is_survived() {
    let folder = folder();
    let guest = Guest::new(&folder.path().join("g1"), Manner::Honest);
    // The usual round would look at this one first.
    let other = Guest::new(&folder.path().join("g0"), Manner::Honest);
    let service = Service::new(folder, &[("g0", &other), ("g1", &guest)]);
    let mut watching = service.watch_answering("g1").await;
    // While the daemon is away the guest is still heard.
    service.fake.is_down.store(true, Ordering::Relaxed);
    service.fake.happens(DomainEvent::lost());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let now = guest.changes();
    seen(&mut watching, |shown| generation(shown) == now).await;
    // What happened meanwhile is found out, though no event told.
    service
        .fake
        .edit("g1", |facts| facts.reason = "unpaused".to_owned());
    service.fake.is_down.store(false, Ordering::Relaxed);
    let told = |shown: &Shown| shown.report.reason == "unpaused";
    tokio::time::timeout(PATIENCE, seen(&mut watching, told))
        .await
        .unwrap();
    service.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_host_is_hardly_asked() {
    let folder = folder();
    let guests: Vec<Guest> = (0..24)
        .map(|number| Guest::new(&folder.path().join(format!("g{number}")), Manner::Honest))
        .collect();
    let names: Vec<String> = (0..24).map(|number| format!("g{number}")).collect();
    let pairs: Vec<(&str, &Guest)> = names.iter().map(String::as_str).zip(&guests).collect();
    let service = Service::new(folder, &pairs);
    let _watching = service.watch_answering("g23").await;
    let counts = |service: &Service| {
        let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
        (count(&service.fake.rolls), count(&service.fake.looks))
    };
    assert_eq!(counts(&service), (1, 24));
    // An hour is twelve rounds: a roll call each, and each domain is looked at once.
    tokio::time::sleep(Duration::from_secs(3610)).await;
    assert_eq!(counts(&service), (13, 48));
    service.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_no_event_told_is_found_by_the_roll_call() {
    let folder = folder();
    let guest = Guest::new(&folder.path().join("g1"), Manner::Honest);
    let service = Service::new(folder, &[]);
    let mut watching = service.watch("g1").await;
    service.fake.start("g1", &guest.socket, "1");
    seen(&mut watching, |shown| generation(shown) == 1).await;
    service.fake.domains.lock().unwrap().clear();
    let gone = ControlReply::Gone {
        domain: "g1".to_owned(),
    };
    while watching.next().await.unwrap() != gone {}
    service.ends().await;
}
