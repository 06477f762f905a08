//! Words of others on their way to a terminal or a log: a domain's name, a record, a guest's answer.

pub use tandem_wire::words::shortened;

/// Longest text that is shown, in characters.
const SHOWN: usize = 400;
/// Longest message, in characters.
const MESSAGE: usize = 4_000;

/// What somebody else wrote, for a terminal or a log: without characters that move the cursor or change the
/// order of what is read, and not endless.
pub fn printable(text: &str) -> String {
    shortened(text, SHOWN)
}

/// A message of ours, for a terminal or a log: words of others in it may be anything.
pub fn message(text: &str) -> String {
    shortened(text, MESSAGE)
}

/// One word of a command that is offered for copying, as a shell reads it back.
pub fn quoted(word: &str) -> String {
    match is_bare(word) {
        true => word.to_owned(),
        false => in_quotes(&printable(word)),
    }
}

/// One word of a command that a shell is given, as it reads it back: whatever is in it.
pub fn shell_word(word: &str) -> String {
    match is_bare(word) {
        true => word.to_owned(),
        false => in_quotes(word),
    }
}

/// A shell takes it for itself.
fn is_bare(word: &str) -> bool {
    let is_bare =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '+' | '@');
    !word.is_empty() && word.chars().all(is_bare)
}

fn in_quotes(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor_or_turns_the_text_around() {
        let text = "a\x1b[2Jb\u{202e}c\u{2066}d\u{200f}e\u{feff}f\n\u{9b}g";
        assert_eq!(printable(text), "a [2Jb c d e f  g");
        assert_eq!(printable("Grüße, 東京"), "Grüße, 東京");
        assert_eq!(printable(&"x".repeat(1_000)).len(), SHOWN);
    }

    #[test]
    fn a_command_to_copy_runs_nothing_else() {
        for (word, shown) in [
            ("g1", "g1"),
            ("qemu+ssh://b/system", "qemu+ssh://b/system"),
            ("x;id", "'x;id'"),
            ("$(id)", "'$(id)'"),
            ("it's", r"'it'\''s'"),
            ("qemu:///system?a=b&c", "'qemu:///system?a=b&c'"),
            ("", "''"),
            ("a\nid", "'a id'"),
        ] {
            assert_eq!(quoted(word), shown);
        }
    }
}
