//! The socket's file, and that nothing happens while nothing happens.

use std::fs;
use std::future::{Future, poll_fn};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tandem_core::input::Input;
use tandem_guest::channel::ChannelInput;
use tandem_guest::channel::{Channel, ChannelOptions};

use crate::harness::{Harness, open, run};

#[test]
fn only_its_owner_can_open_it_and_it_goes_with_the_channel() {
    run(async {
        let harness = Harness::new();
        let path = harness.path().to_owned();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop(harness.channel);
        assert!(!path.exists());
    });
}

#[test]
fn what_a_dead_service_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tandem.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    run(async {
        open(&path).unwrap();
    });
}

#[test]
fn a_socket_in_use_and_a_file_are_left_alone() {
    run(async {
        let harness = Harness::new();
        let error = open(harness.path()).unwrap_err().to_string();
        assert!(error.contains("another tandem service"), "{error}");
        assert!(harness.path().exists());

        let file = harness.path().with_file_name("file");
        fs::write(&file, "precious").unwrap();
        let error = open(&file).unwrap_err().to_string();
        assert!(error.contains("something else"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

        let missing = harness.path().with_file_name("no-folder").join("socket");
        let error = open(&missing).unwrap_err().to_string();
        assert!(error.contains("folder must exist"), "{error}");
    });
}

#[test]
fn a_missing_port_is_reported_once_with_its_remedy() {
    run(async {
        let mut channel = Channel::with_options(ChannelOptions {
            socket: None,
            port: Some("org.tandem.agent.that-is-nowhere".to_owned()),
        })
        .unwrap();
        let ChannelInput::Input(Input::SourceHealth { health, parts, .. }) = channel.next().await
        else {
            panic!("the port's health comes first");
        };
        let text = format!("{health:?}");
        assert!(text.contains("org.tandem.agent.that-is-nowhere"), "{text}");
        assert_eq!(parts, []);
        channel.ports_changed();
        let mut next = pin!(channel.next());
        let silent = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending())).await;
        assert!(silent, "the same news is not told twice");
    });
}

/// Counts how often the channel is woken while peers of all kinds do nothing.
#[test]
fn idle_peers_wake_nobody() {
    run(async {
        let mut harness = Harness::new();
        let mut idle = harness.connect().await;
        harness.assert_served(&mut idle).await;
        let mut half = harness.connect().await;
        harness.assert_served(&mut half).await;
        harness.drive(half.send_bytes(b"{\"execute\":")).await;
        let mut stalled = harness.connect().await;
        harness.stall(&mut stalled, &mut idle).await;
        let mut next = pin!(harness.channel.next());
        let mut polls = 0;
        let counted = poll_fn(|cx| {
            polls += 1;
            next.as_mut().poll(cx)
        });
        let ended = tokio::time::timeout(Duration::from_millis(300), counted).await;
        assert!(ended.is_err(), "nothing was asked for");
        assert!(polls <= 3, "woken {polls} times");
    });
}
