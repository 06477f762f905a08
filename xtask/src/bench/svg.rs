//! What the pictures of the benches have in common.

use std::fmt::Write;

/// Adds a text in a class of the picture's style.
pub(super) fn text(body: &mut String, (x, y): (f64, f64), class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"
    );
}
