//! The stream's bytes: every message comes through, and nothing that another host may write does harm.

use proptest::collection::vec;
use proptest::prelude::*;
use tandem_carry::{
    CarryCause, Decoder, Frame, MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, MIN_FRAME_BYTES, Message,
    StreamError, Versions,
};

fn causes() -> impl Strategy<Value = CarryCause> {
    prop::sample::select(vec![
        CarryCause::HoldTooLong,
        CarryCause::TooMuch,
        CarryCause::StopRefused,
        CarryCause::MigrationFailed,
        CarryCause::NeverResumed,
        CarryCause::StreamEnded,
        CarryCause::Foreign,
        CarryCause::NoCommonVersion,
        CarryCause::NothingGiven,
        CarryCause::OtherHalf,
    ])
}

fn frames() -> impl Strategy<Value = Frame> {
    vec(any::<u8>(), MIN_FRAME_BYTES..2_000)
        .prop_map(|bytes| Frame::new(&bytes).expect("a frame's length"))
}

fn messages() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Message::Hello {
            versions: Versions {
                min: a.min(b),
                max: a.max(b)
            }
        }),
        Just(Message::Hold),
        (any::<u64>(), frames()).prop_map(|(number, frame)| Message::Frame { number, frame }),
        (any::<u64>(), frames()).prop_map(|(number, frame)| Message::Left { number, frame }),
        Just(Message::HandOver),
        any::<bool>().prop_map(|ours| Message::Stopped { ours }),
        Just(Message::Resumed),
        any::<u64>().prop_map(|number| Message::Ack { number }),
        Just(Message::SyncRequest),
        any::<u64>().prop_map(|last| Message::Sync { last }),
        any::<u64>().prop_map(|last| Message::Done { last }),
        causes().prop_map(|cause| Message::Abort { cause }),
    ]
}

/// Everything that a decoder makes of these bytes, given in pieces of this length.
fn decoded(bytes: &[u8], piece: usize) -> (Vec<Message>, Option<StreamError>) {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    for mut piece in bytes.chunks(piece) {
        while !piece.is_empty() {
            match decoder.next_message(&mut piece) {
                Ok(message) => messages.extend(message),
                Err(error) => return (messages, Some(error)),
            }
            assert!(decoder.held_bytes() < MAX_MESSAGE_BYTES);
        }
    }
    (messages, None)
}

proptest! {
    #[test]
    fn every_message_comes_through_in_any_pieces(
        sent in vec(messages(), 0..20), piece in 1_usize..5_000,
    ) {
        let mut bytes = Vec::new();
        for message in &sent {
            let before = bytes.len();
            message.write(&mut bytes);
            prop_assert!(bytes.len() - before <= MAX_MESSAGE_BYTES);
        }
        prop_assert_eq!(decoded(&bytes, piece), (sent, None));
    }

    #[test]
    fn any_bytes_are_messages_or_an_error_and_nothing_is_kept_after_that(
        bytes in vec(any::<u8>(), 0..3_000), piece in 1_usize..100,
    ) {
        prop_assert_eq!(decoded(&bytes, piece), decoded(&bytes, bytes.len().max(1)));
    }
}

fn first_error(bytes: &[u8]) -> Option<StreamError> {
    decoded(bytes, bytes.len()).1
}

#[test]
fn a_length_is_judged_before_anything_is_kept() {
    let mut decoder = Decoder::new();
    let mut head: &[u8] = &[3, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
    let error = decoder.next_message(&mut head);
    let bytes = u32::MAX;
    assert_eq!(error, Err(StreamError::Length { kind: 3, bytes }));
    assert!(head.is_empty());
    assert_eq!(decoder.held_bytes(), 0);
    // What follows can't be understood.
    let mut good = Vec::new();
    Message::Hold.write(&mut good);
    assert_eq!(decoder.next_message(&mut &good[..]), error);
}

#[test]
fn what_is_no_message_is_named() {
    assert_eq!(
        first_error(&[99, 0, 0, 0, 0]),
        Some(StreamError::Unknown { kind: 99 })
    );
    assert_eq!(
        first_error(&[2, 0, 0, 0, 1, 0]),
        Some(StreamError::Length { kind: 2, bytes: 1 })
    );
    assert_eq!(
        first_error(&[4, 0, 0, 0, 1, 2]),
        Some(StreamError::Value { kind: 4 })
    );
    let hello = b"\x01\0\0\0\x0cSSH-2.0-xx\0\x01";
    assert_eq!(first_error(hello), Some(StreamError::Value { kind: 1 }));
}

#[test]
fn a_frame_has_a_frames_length() {
    for (bytes, good) in [
        (MIN_FRAME_BYTES - 1, false),
        (MIN_FRAME_BYTES, true),
        (MAX_FRAME_BYTES, true),
        (MAX_FRAME_BYTES + 1, false),
    ] {
        let body = u32::try_from(8 + bytes).unwrap();
        let mut message = vec![3];
        message.extend(body.to_be_bytes());
        message.resize(5 + 8 + bytes, 0);
        assert_eq!(first_error(&message).is_none(), good, "{bytes} bytes");
    }
}

#[test]
fn a_newer_half_may_say_more_in_its_first_message() {
    let mut bytes = Vec::new();
    let versions = Versions { min: 1, max: 7 };
    Message::Hello { versions }.write(&mut bytes);
    bytes[4] += 3;
    bytes.extend([9, 9, 9]);
    assert_eq!(
        decoded(&bytes, 4),
        (vec![Message::Hello { versions }], None)
    );
}
