//! One channel, and several who want it.

use tokio::time::timeout;

use super::*;
use crate::agent::{Agent, AgentError, ChannelLimits};
use crate::control::LeaseClient;
use crate::hypervisor::ChannelSocket;
use crate::report::ChannelUse;

const SHORT: ChannelLimits = ChannelLimits {
    sync: Duration::from_millis(300),
    question: Duration::from_secs(10),
    command: Duration::from_secs(10),
};

fn channel(guest: &Guest) -> ChannelSocket {
    ChannelSocket::named(&guest.socket)
}

#[tokio::test]
async fn a_change_in_the_guest_reaches_who_watches() {
    let (service, guest) = Service::of_one();
    let mut watching = service.watch("g1").await;
    let shown = seen(&mut watching, |shown| generation(shown) == 1).await;
    assert_eq!(shown.report.channel, ChannelUse::Subscribed);
    // Nobody asks before the interval is over: the guest itself says so.
    for _ in 0..20 {
        let now = guest.changes();
        seen(&mut watching, |shown| generation(shown) == now).await;
    }
    service.ends().await;
}

#[tokio::test]
async fn a_leased_channel_is_left_alone_until_it_is_given_back() {
    let (service, mut guest) = Service::of_one();
    let mut watching = service.watch_answering("g1").await;
    // Without a lease there is no getting at it.
    let error = Agent::connect(&channel(&guest), SHORT).await.unwrap_err();
    assert!(matches!(error, AgentError::Silent { .. }), "{error}");
    let lease_client = LeaseClient::new(&service.socket());
    let mut agent = lease_client
        .connect("g1", &channel(&guest), SHORT)
        .await
        .unwrap();
    let shown = seen(&mut watching, |shown| {
        shown.report.channel == ChannelUse::Leased
    })
    .await;
    // What was known stays known.
    assert_eq!(generation(&shown), 1);
    // A second connection of the same tool needs no second lease.
    drop(agent);
    agent = lease_client
        .connect("g1", &channel(&guest), SHORT)
        .await
        .unwrap();
    let now = guest.changes();
    assert_eq!(agent.status().await.unwrap().status.generation, now);
    while guest.commands.try_recv().is_ok() {}
    // The tool is killed: its connections close.
    drop((agent, lease_client));
    let shown = seen(&mut watching, |shown| generation(shown) == now).await;
    assert_eq!(shown.report.channel, ChannelUse::Subscribed);
    // It had its bonds already.
    let mut after = Vec::new();
    while let Ok(command) = guest.commands.try_recv() {
        after.push(command);
    }
    assert!(after.contains(&"tandem-subscribe"), "{after:?}");
    assert!(!after.contains(&"tandem-configure"), "{after:?}");
    service.ends().await;
}

#[tokio::test]
async fn leases_are_had_one_after_the_other_also_of_a_domain_that_comes_later() {
    let folder = folder();
    let mut guest = Guest::new(&folder.path().join("g1"), Manner::Honest);
    let service = Service::new(folder, &[]);
    let first = service.lease("g1").await;
    let domain = "g1".to_owned();
    let mut second = service.ask(ControlRequest::Lease { domain }).await;
    service.fake.start("g1", &guest.socket, "1");
    service.fake.happens(DomainEvent::lost());
    let mut watching = service.watch("g1").await;
    seen(&mut watching, |shown| {
        shown.report.channel == ChannelUse::Leased
    })
    .await;
    assert!(guest.commands.try_recv().is_err(), "the guest was bothered");
    let waited = second.next_within(Duration::from_millis(200)).await;
    assert!(waited.is_err(), "{waited:?}");
    drop(first);
    assert_eq!(second.next().await.unwrap(), ControlReply::Leased {});
    assert!(guest.commands.try_recv().is_err(), "the guest was bothered");
    drop(second);
    seen(&mut watching, |shown| generation(shown) == 1).await;
    assert_eq!(guest.commands.try_recv(), Ok("client"));
    service.ends().await;
}

#[tokio::test]
async fn one_who_no_longer_waits_does_not_get_the_lease() {
    let (service, _guest) = Service::of_one();
    let first = service.lease("g1").await;
    let domain = "g1".to_owned();
    let second = service.ask(ControlRequest::Lease { domain }).await;
    drop(second);
    drop(first);
    let _watching = service.watch_answering("g1").await;
    service.ends().await;
}

#[tokio::test]
async fn without_a_service_there_is_nothing_to_ask() {
    let folder = folder();
    let guest = Guest::new(&folder.path().join("g1"), Manner::Honest);
    let nowhere = folder.path().join("nowhere");
    let lease_client = LeaseClient::new(&nowhere);
    let mut agent = lease_client
        .connect("g1", &channel(&guest), SHORT)
        .await
        .unwrap();
    assert_eq!(agent.status().await.unwrap().status.generation, 1);
    // A socket that a killed service left.
    drop(std::os::unix::net::UnixListener::bind(&nowhere).unwrap());
    drop(agent);
    let lease_client = LeaseClient::new(&nowhere);
    lease_client
        .connect("g1", &channel(&guest), SHORT)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_tool_waits_for_another_one_only_so_long() {
    let folder = folder();
    let service = Service::new(folder, &[]);
    let first = service.lease("g1").await;
    let lease_client = LeaseClient::new(&service.socket());
    let channel = ChannelSocket::named(&service.folder.path().join("nowhere"));
    let asked = lease_client.connect("g1", &channel, SHORT);
    let error = timeout(PATIENCE, asked).await.unwrap().unwrap_err();
    assert!(matches!(error, AgentError::Leased { .. }), "{error}");
    drop(first);
    service.ends().await;
}

#[tokio::test]
async fn a_second_service_is_refused_and_a_dead_one_s_socket_taken_over() {
    let folder = folder();
    let path = folder.path().join("serve.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let service = Service::new(folder, &[]);
    drop(service.lease("g1").await);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let options = Options {
        socket: Some(path.clone()),
        ..Options::default()
    };
    let second = serve(Fake::new(&[]), options, std::future::pending()).await;
    assert!(
        matches!(second, Err(ServeError::Taken { .. })),
        "{second:?}"
    );
    service.ends().await;
    assert!(!path.exists());
}

/// Neither of two that start at the same time hears the other: only the lock tells.
#[tokio::test]
async fn of_two_services_that_start_together_one_has_the_socket() {
    let folder = folder();
    let path = folder.path().join("serve.sock");
    let other = std::fs::File::create(folder.path().join("serve.sock.lock")).unwrap();
    other.try_lock().unwrap();
    let options = Options {
        socket: Some(path.clone()),
        ..Options::default()
    };
    let stop = std::future::ready(());
    let second = serve(Fake::new(&[]), options.clone(), stop.clone()).await;
    assert!(
        matches!(second, Err(ServeError::Taken { .. })),
        "{second:?}"
    );
    // It ends with its process, however that ended.
    drop(other);
    serve(Fake::new(&[]), options, stop).await.unwrap();
}

#[tokio::test]
async fn nonsense_on_the_control_socket_is_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let service = Service::new(folder(), &[]);
    drop(service.lease("g1").await);
    for nonsense in [
        b"halt\n".to_vec(),
        b"{\"lease\":{}}\n".to_vec(),
        b"\xff\xfe\n".to_vec(),
        vec![b'x'; 1 << 20],
    ] {
        let mut stream = tokio::net::UnixStream::connect(service.socket())
            .await
            .unwrap();
        // It may hang up before it has taken all of it.
        let _ = stream.write_all(&nonsense).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.is_empty() || answer.starts_with("{\"error\""),
            "{answer}"
        );
    }
    let other = ControlRequest::Status {
        uri: "other".to_owned(),
        domain: None,
    };
    let reply = service.ask(other).await.next().await.unwrap();
    assert_eq!(
        reply,
        ControlReply::OtherHost {
            uri: "fake".to_owned()
        }
    );
    drop(service.lease("g1").await);
    service.ends().await;
}
