//! What the two halves of a carry say to each other, and the chunks that it comes in.

use tandem_carry::{
    Decoder, Destination, Limits, MAX_MESSAGE_BYTES, Message, Source, destination, source,
};
use tandem_host::carry::fuzzing::read;

/// What a half may keep here.
const LIMITS: Limits = Limits {
    frames: 16,
    bytes: 4096,
    hold_ms: 2_000,
    drain_ms: 5,
    resume_ms: 2_000,
    settle_ms: 1_000,
    straggle_ms: 2,
    quiet_ms: 2_000,
    forward_ms: 120_000,
};
/// Longer than any carry, in ms.
const EVER_MS: u64 = 1_000_000;

pub(super) fn run(bytes: &[u8]) {
    let (whole, parts) = (read(bytes, bytes.len()), read(bytes, 7));
    assert_eq!(whole.stream, parts.stream);
    assert_eq!((whole.words, whole.broken), (parts.words, parts.broken));
    assert!(whole.stream.len() <= bytes.len());
    for stream in [bytes, &whole.stream] {
        halves(&messages(stream));
    }
}

fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    loop {
        match decoder.next_message(&mut bytes) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => break,
            Err(_) => {
                assert_eq!(decoder.held_bytes(), 0);
                break;
            }
        }
        assert!(decoder.held_bytes() <= MAX_MESSAGE_BYTES);
    }
    messages
}

/// No half keeps more than it may, or its tap longer than its limits say, whatever the other one says.
fn halves(messages: &[Message]) {
    let mut source = Source::new(LIMITS, &[]);
    let mut destination = Destination::new(LIMITS);
    let mut now_ms = 0;
    for message in messages {
        now_ms += 1;
        source.handle(now_ms, source::Input::Message(message.clone()));
        destination.handle(now_ms, destination::Input::Message(message.clone()));
        assert!(source.pending() <= LIMITS.frames && destination.pending() <= LIMITS.frames);
        while source.next_action().is_some() {}
    }
    source.handle(now_ms, source::Input::StreamEnded);
    destination.handle(now_ms, destination::Input::StreamEnded);
    let mut opened = false;
    while let Some(at_ms) = destination.next_deadline().filter(|at_ms| *at_ms < EVER_MS) {
        while let Some(action) = destination.next_action() {
            match action {
                destination::Action::ReadDry => {
                    destination.handle(now_ms, destination::Input::Dry);
                }
                destination::Action::Open => {
                    destination.handle(now_ms, destination::Input::Opened);
                }
                _ => {}
            }
        }
        if destination.outcome().is_some() {
            opened = true;
            break;
        }
        now_ms = now_ms.max(at_ms);
        destination.handle(now_ms, destination::Input::Tick);
    }
    assert!(opened || destination.outcome().is_some() || destination.next_deadline().is_none());
}
