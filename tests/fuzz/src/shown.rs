//! What reaches a terminal or a log.

/// Nothing in it moves the cursor or turns the text around, and it ends.
///
/// # Panics
/// If so.
pub(crate) fn is_printable(text: &str, most: usize) {
    let count = text.chars().count();
    assert!(
        count <= most,
        "{count} characters are shown, more than {most}"
    );
    let bad = |c: &char| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let found = text.chars().find(bad);
    assert!(found.is_none(), "{found:?} is shown in {text:?}");
}
