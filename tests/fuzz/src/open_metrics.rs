//! OpenMetrics text, read by its specification (OpenMetrics 1.0.0, "ABNF" and "Overall Structure"): by none of
//! the code that writes it.

use std::collections::{BTreeMap, BTreeSet};

/// A sample: its name, its labels and its value.
#[derive(Debug)]
pub(crate) struct Sample<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: BTreeMap<&'a str, String>,
    pub(crate) value: f64,
}

/// All samples of a text.
///
/// # Panics
/// If the text is not what the specification asks for, or a series is there twice.
pub(crate) fn read(text: &str) -> Vec<Sample<'_>> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let mut samples = Vec::new();
    let mut series = BTreeSet::new();
    let mut families = BTreeSet::new();
    let mut family = ("", "");
    for line in body.split_terminator('\n') {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (kind, name, what) = (words.next(), words.next(), words.next());
            let (Some(kind), Some(name), Some(what)) = (kind, name, what) else {
                panic!("a comment that is none: {line:?}");
            };
            if kind == "TYPE" {
                assert!(families.insert(name), "{name} is there twice");
                family = (name, what);
            } else {
                assert!(
                    matches!(kind, "HELP" | "UNIT") && name == family.0,
                    "{line:?}"
                );
            }
            continue;
        }
        let sample = sample(line);
        let suffix = if family.1 == "counter" { "_total" } else { "" };
        assert_eq!(
            sample.name.strip_suffix(suffix),
            Some(family.0),
            "{line:?} is of another family"
        );
        assert!(
            series.insert((sample.name, sample.labels.clone())),
            "{line:?} is there twice"
        );
        samples.push(sample);
    }
    samples
}

fn sample(line: &str) -> Sample<'_> {
    let (name, rest) = line
        .split_once('{')
        .unwrap_or_else(|| panic!("no labels: {line:?}"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    assert!(!name.is_empty() && name.chars().all(is_name), "{line:?}");
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    loop {
        let (label, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line:?}"));
        assert!(!label.is_empty() && label.chars().all(is_name), "{line:?}");
        let (value, after) = unquoted(quoted).unwrap_or_else(|| panic!("{line:?}"));
        assert!(
            labels.insert(label, value).is_none(),
            "{line:?} has a label twice"
        );
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => {
                rest = after;
                break;
            }
        }
    }
    let value = rest
        .strip_prefix("} ")
        .unwrap_or_else(|| panic!("{line:?}"));
    let value: f64 = value.parse().unwrap_or(f64::NAN);
    assert!(value.is_finite(), "{line:?} has no value");
    Sample {
        name,
        labels,
        value,
    }
}

/// A label's value up to its closing quote, and what comes behind.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                same @ ('\\' | '"') => same,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}
