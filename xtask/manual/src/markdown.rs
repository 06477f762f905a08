//! Tables in Markdown.

/// A table; cells may have any text.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    let mut text = line(&header);
    text.push_str(&format!("|{}\n", "---|".repeat(header.len())));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        text.push_str(&line(&cells));
    }
    text.push('\n');
    text
}

/// As code.
pub(crate) fn code(text: &str) -> String {
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_in_a_cell_stays_in_it() {
        let text = table(&["a", "b"], &[vec![code("x|y"), "z".to_owned()]]);
        assert_eq!(text, "| a | b |\n|---|---|\n| `x\\|y` | z |\n\n");
    }
}
