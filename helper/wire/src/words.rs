//! Words of others on their way to a terminal or a log.

use alloc::string::String;

/// What somebody else wrote, without characters that move the cursor or change the order of what is read, in
/// characters at most.
pub fn shortened(text: &str, most: usize) -> String {
    let plain = |c: char| if is_plain(c) { c } else { ' ' };
    text.chars().take(most).map(plain).collect()
}

/// Controls of Unicode's category Cc, and of Cf, Zl and Zp those that are invisible or reorder (bidi), are not.
pub fn is_plain(c: char) -> bool {
    let hidden = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !hidden
}
