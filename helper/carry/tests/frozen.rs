//! What halves of earlier versions said is still understood, and said so.

use tandem_carry::{Decoder, Message};

fn bytes_of(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn messages_of_earlier_versions_mean_what_they_meant() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen");
    let mut kinds = std::collections::BTreeSet::new();
    for version in std::fs::read_dir(folder).expect("frozen versions") {
        let file = version.expect("a folder").path().join("carry-stream.txt");
        for line in std::fs::read_to_string(file).expect("its stream").lines() {
            let (name, hex) = line.rsplit_once(": ").expect("a name and bytes");
            let bytes = bytes_of(hex);
            let mut rest = &bytes[..];
            let message = Decoder::new().next_message(&mut rest).expect("a message");
            let message = message.expect("a whole one");
            assert!(
                format!("{message:?}").starts_with(name),
                "{name}: {message:?}"
            );
            let mut again = Vec::new();
            message.write(&mut again);
            assert_eq!(again, bytes, "{name}");
            if let Message::Frame { number, frame } = &message {
                assert_eq!((*number, &frame.ethernet()[14..]), (1, &b"ab"[..]));
            }
            kinds.insert(bytes[0]);
        }
    }
    assert_eq!(kinds.len(), 12, "each kind of message has its sample");
}
