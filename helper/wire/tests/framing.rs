//! The decoder against broken, cut and hostile streams.

use proptest::prelude::*;
use tandem_wire::{Decoder, FrameError, SENTINEL};

const MAX: usize = 16;

type Line = Result<String, FrameError>;

/// Everything that comes out when `bytes` come in, in pieces of `step`.
fn lines(decoder: &mut Decoder, bytes: &[u8], step: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for mut piece in bytes.chunks(step) {
        while let Some(line) = decoder.next_line(&mut piece) {
            lines.push(line);
        }
        assert!(piece.is_empty(), "all bytes are taken");
    }
    lines
}

fn decode(bytes: &[u8]) -> Vec<Line> {
    lines(&mut Decoder::new(MAX), bytes, bytes.len().max(1))
}

fn text(line: &str) -> Line {
    Ok(line.to_owned())
}

const TOO_LONG: Line = Err(FrameError::TooLong { max_bytes: MAX });

#[test]
fn lines_end_with_lf_or_crlf_and_blank_ones_are_passed_over() {
    assert_eq!(
        decode(b"one\ntwo\r\n\n\r\n  \nthree\nhalf"),
        [text("one"), text("two"), text("three")]
    );
}

#[test]
fn a_sentinel_discards_what_stands_before_it() {
    assert_eq!(decode(b"half\xffwhole\n"), [text("whole")]);
    assert_eq!(decode(b"\xff\xff\xffwhole\n"), [text("whole")]);
    assert_eq!(
        decode(b"kept\nhalf\xff\n\xffwhole\n"),
        [text("kept"), text("whole")]
    );
}

#[test]
fn half_a_line_of_before_a_migration_spoils_nothing_after_the_sentinel() {
    let mut decoder = Decoder::new(64);
    assert_eq!(lines(&mut decoder, br#"{"execute":"gue"#, 4), []);
    assert!(!decoder.is_idle());
    let after = b"\xff{\"execute\":\"guest-ping\"}\n";
    assert_eq!(
        lines(&mut decoder, after, 4),
        [text(r#"{"execute":"guest-ping"}"#)]
    );
    assert!(decoder.is_idle());
}

#[test]
fn a_line_of_the_bound_fits_and_a_longer_one_is_reported_once() {
    let fits = [b'a'; MAX];
    assert_eq!(
        decode(&[&fits[..], b"\n"].concat()),
        [text("aaaaaaaaaaaaaaaa")]
    );
    assert_eq!(
        decode(&[&fits[..], b"a", b"\nnext\n"].concat()),
        [TOO_LONG, text("next")]
    );
    let mut decoder = Decoder::new(MAX);
    assert_eq!(lines(&mut decoder, &[b'a'; 1 << 20], 4096), [TOO_LONG]);
    assert!(!decoder.is_idle());
    assert_eq!(lines(&mut decoder, b"rest\nnext\n", 4096), [text("next")]);
}

#[test]
fn a_sentinel_ends_a_line_that_is_too_long() {
    assert_eq!(
        decode(&[&[b'a'; 100][..], b"\xffnext\n"].concat()),
        [TOO_LONG, text("next")]
    );
}

#[test]
fn bytes_that_are_not_utf8_cost_one_line() {
    assert_eq!(
        decode(b"\xc3\x28\nnext\n\xed\xa0\x80\n\xf5\nlast\n"),
        [
            Err(FrameError::NotUtf8),
            text("next"),
            Err(FrameError::NotUtf8),
            Err(FrameError::NotUtf8),
            text("last")
        ]
    );
}

#[test]
fn reset_forgets_half_a_line_and_a_skipped_one() {
    for start in [&b"half"[..], &[b'a'; 100][..]] {
        let mut decoder = Decoder::new(MAX);
        lines(&mut decoder, start, 7);
        decoder.reset();
        assert!(decoder.is_idle());
        assert_eq!(lines(&mut decoder, b"next\n", 7), [text("next")]);
    }
}

/// Bytes in which the interesting ones are frequent.
#[test]
fn the_rest_of_a_line_that_was_given_up_is_passed_over() {
    let mut decoder = Decoder::new(64);
    assert_eq!(lines(&mut decoder, b"half a li", 4), []);
    assert_eq!(decoder.held_bytes(), 9);
    decoder.pass_over();
    assert_eq!(decoder.held_bytes(), 0);
    assert_eq!(lines(&mut decoder, b"ne\nwhole\n", 4), [text("whole")]);
    // Between lines there is nothing to be given up.
    decoder.pass_over();
    assert_eq!(lines(&mut decoder, b"next\n", 4), [text("next")]);
}

fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => Just(b'\n'),
        1 => Just(b'\r'),
        1 => Just(SENTINEL),
        6 => b'a'..=b'z',
        1 => any::<u8>(),
    ];
    prop::collection::vec(byte, 0..400)
}

/// What the decoder promises, said the slow way: whole input at once.
fn reference(bytes: &[u8]) -> Vec<Line> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let stop = rest.iter().position(|b| *b == b'\n' || *b == SENTINEL);
        let (part, byte) = match stop {
            Some(at) => (&rest[..at], Some(rest[at])),
            None => (rest, None),
        };
        rest = stop.map_or(&[], |at| &rest[at + 1..]);
        if part.len() > MAX {
            out.push(TOO_LONG);
        } else if byte == Some(b'\n') {
            match std::str::from_utf8(part.strip_suffix(b"\r").unwrap_or(part)) {
                Ok(line) if line.trim_ascii().is_empty() => {}
                Ok(line) => out.push(text(line)),
                Err(_) => out.push(Err(FrameError::NotUtf8)),
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn pieces_make_no_difference(bytes in hostile_bytes(), step in 1usize..50) {
        prop_assert_eq!(lines(&mut Decoder::new(MAX), &bytes, step), reference(&bytes));
    }

    #[test]
    fn a_sentinel_and_a_line_always_get_through(bytes in hostile_bytes(), step in 1usize..50) {
        let mut decoder = Decoder::new(MAX);
        lines(&mut decoder, &bytes, step);
        prop_assert_eq!(lines(&mut decoder, b"\xffwhole\n", step), [text("whole")]);
        prop_assert!(decoder.is_idle());
    }
}
