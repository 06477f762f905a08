//! Short inputs for long texts: `{PIECE*COUNT}` stands for the piece that often, each `#` in it for the number
//! of the repetition. So a fuzzer that tries some hundred bytes finds what takes long for a megabyte.

/// Bytes of the result at most.
const MAX_BYTES: usize = 1 << 20;
/// Bytes of a piece at most: what is between braces may be JSON.
const MAX_PIECE_BYTES: usize = 64;

/// The text that is meant.
pub(crate) fn expand(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, marked) = rest.split_at(at);
        whole.push_str(before);
        rest = &marked[1..];
        match repeated(rest) {
            Some((piece, count, after)) => {
                for number in 0..count {
                    if whole.len() + piece.len() + after.len() > MAX_BYTES {
                        break;
                    }
                    whole.push_str(&piece.replace('#', &number.to_string()));
                }
                rest = after;
            }
            None => whole.push('{'),
        }
    }
    whole + rest
}

/// Piece and count of what begins behind a brace, and what comes behind it.
fn repeated(text: &str) -> Option<(&str, u32, &str)> {
    let end = text
        .bytes()
        .take(MAX_PIECE_BYTES)
        .position(|byte| byte == b'}')?;
    let (piece, count) = text[..end].rsplit_once('*')?;
    Some((piece, count.parse().ok()?, &text[end + 1..]))
}
