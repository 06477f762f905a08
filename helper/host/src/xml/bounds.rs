//! What a text may be like before it is parsed: one pass over its bytes, whatever they are.
//!
//! The parser (roxmltree 0.21.2) compares each attribute with all others of its tag, and each namespace
//! with all that its element inherits: a text of a megabyte could keep it busy for minutes. So nothing
//! gets there that has more of either than a sound domain has.

use std::collections::BTreeMap;

use super::error::{Place, XmlError};

/// Most attributes of one tag, declared namespaces counted; libvirt's own have some twenty.
pub(super) const MAX_ATTRIBUTES: usize = 64;
/// Most declared namespaces in all; a cloud's metadata has a few.
pub(super) const MAX_NAMESPACES: usize = 256;
/// Most elements inside each other. A disk's `<backingStore>` nest, and libvirt takes 200 of them
/// (`QEMU_DOMAIN_STORAGE_SOURCE_CHAIN_MAX_DEPTH`, `src/qemu/qemu_domain.c`, libvirt 11.3).
pub(super) const MAX_DEPTH: usize = 256;

/// Refuses what would cost the parser more than its length.
///
/// A text that is no XML may pass: up to its first fault this reads it as the parser does, and there
/// the parser ends.
///
/// # Errors
/// The first bound that is exceeded, and where.
pub(super) fn check(text: &str) -> Result<(), XmlError> {
    let (mut at, mut depth, mut namespaces) = (0, 0_usize, 0);
    while let Some(tag) = text.get(at..).and_then(|rest| rest.find('<')) {
        let tag = at + tag;
        let rest = &text[tag..];
        let ends = |begin: &str, end: &str| {
            let inside = rest.strip_prefix(begin)?;
            let length = inside.find(end).map(|length| length + end.len());
            Some(tag + begin.len() + length.unwrap_or(inside.len()))
        };
        let passed_over = ends("<!--", "-->")
            .or_else(|| ends("<![CDATA[", "]]>"))
            .or_else(|| ends("<?", "?>"));
        if let Some(end) = passed_over {
            at = end;
        } else if rest.starts_with("<!") {
            let problem = "it has a DTD, which is not read; remove it".to_owned();
            return Err(fault(text, tag, problem));
        } else if rest.starts_with("</") {
            depth = depth.saturating_sub(1);
            at = tag + 2;
        } else {
            let Some(read) = Tag::read(text, tag)? else {
                return Ok(());
            };
            namespaces += read.namespaces;
            depth += usize::from(read.opens);
            let exceeded = if namespaces > MAX_NAMESPACES {
                Some(format!("it declares more than {MAX_NAMESPACES} namespaces"))
            } else if depth > MAX_DEPTH {
                Some(format!("more than {MAX_DEPTH} elements are nested"))
            } else {
                None
            };
            if let Some(problem) = exceeded {
                return Err(fault(text, tag, problem));
            }
            at = read.end;
        }
    }
    Ok(())
}

/// A tag that opens an element.
struct Tag {
    namespaces: usize,
    /// Something may stand inside.
    opens: bool,
    end: usize,
}

impl Tag {
    /// Reads from `<` to `>`; `None` where the parser will end.
    fn read(text: &str, start: usize) -> Result<Option<Self>, XmlError> {
        let bytes = text.as_bytes();
        let (mut attributes, mut namespaces) = (0, 0);
        let mut quote = None;
        // Where the name of the next attribute is, behind the tag's name or white space.
        let mut name_from = start;
        for (at, byte) in bytes.iter().copied().enumerate().skip(start + 1) {
            match (quote, byte) {
                (Some(open), _) if byte == open => {
                    quote = None;
                    name_from = at + 1;
                }
                // No attribute may have it, quoted or not.
                (_, b'<') => return Ok(None),
                (Some(_), _) => {}
                (None, b'"' | b'\'') => quote = Some(byte),
                (None, b'=') => {
                    attributes += 1;
                    if attributes > MAX_ATTRIBUTES {
                        let problem = format!("a tag has more than {MAX_ATTRIBUTES} attributes");
                        return Err(fault(text, at, problem));
                    }
                    let name = text.get(name_from..at).unwrap_or_default().trim_end();
                    let name = name.rsplit(|c: char| c.is_ascii_whitespace()).next();
                    namespaces += usize::from(name.is_some_and(|name| name.starts_with("xmlns")));
                }
                (None, b'>') => {
                    return Ok(Some(Self {
                        namespaces,
                        opens: bytes.get(at - 1) != Some(&b'/'),
                        end: at + 1,
                    }));
                }
                (None, _) => {}
            }
        }
        Ok(None)
    }
}

fn fault(text: &str, at: usize, problem: String) -> XmlError {
    XmlError {
        place: places(text, vec![at]).remove(&at).unwrap_or_default(),
        element: "the document".to_owned(),
        problem,
    }
}

/// Where these bytes of a text stand: one pass, however many they are.
pub(super) fn places(text: &str, mut offsets: Vec<usize>) -> BTreeMap<usize, Place> {
    offsets.sort_unstable();
    let mut place = Place { line: 1, column: 1 };
    let mut found = BTreeMap::new();
    let mut from = 0;
    for offset in offsets {
        for c in text.get(from..offset).unwrap_or_default().chars() {
            if c == '\n' {
                place.line += 1;
                place.column = 1;
            } else {
                place.column += 1;
            }
        }
        from = offset;
        found.insert(offset, place);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> XmlError {
        check(text).unwrap_err()
    }

    #[test]
    fn a_tag_of_many_attributes_is_refused_at_the_first_too_many() {
        let many: String = (0..300_000)
            .map(|number| format!(" a{number}=\"\""))
            .collect();
        let text = format!("<domain><metadata>\n<x{many}/></metadata></domain>");
        let error = refused(&text);
        assert!(error.problem.contains("64 attributes"), "{error}");
        // What comes behind the 65th was not looked at.
        assert_eq!(error.place.line, 2);
        assert!(error.place.column < 10 * 65, "{error}");
        let few: String = (0..MAX_ATTRIBUTES)
            .map(|number| format!(" a{number} = '='"))
            .collect();
        check(&format!("<x{few}><y{few}/></x>")).unwrap();
        assert!(check(&format!("<x{few} b=''/>")).is_err());
    }

    #[test]
    fn namespaces_count_in_all() {
        let declares = |count: usize| {
            let each = (0..count).map(|number| format!("<a xmlns:n{number} = 'u{number}'>"));
            format!(
                "<x>{}</x>",
                each.map(|open| open + "</a>").collect::<String>()
            )
        };
        check(&declares(MAX_NAMESPACES)).unwrap();
        let error = refused(&declares(100_000));
        assert!(error.problem.contains("256 namespaces"), "{error}");
        assert!(error.place.column < 35 * 257, "{error}");
        let default = "<a xmlns='u'/>".repeat(MAX_NAMESPACES + 1);
        assert!(check(&format!("<x>{default}</x>")).is_err());
    }

    #[test]
    fn depth_is_bounded_and_what_is_closed_does_not_count() {
        let deep = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        check(&deep(MAX_DEPTH)).unwrap();
        let error = refused(&deep(30_000));
        assert!(error.problem.contains("nested"), "{error}");
        assert_eq!(error.place.column, 3 * 256 + 1);
        check(&format!("<a>{}</a>", "<b><c/></b>".repeat(5_000))).unwrap();
    }

    #[test]
    fn nothing_is_hidden_behind_quotes_comments_or_instructions() {
        let many: String = (0..65).map(|number| format!(" a{number}=''")).collect();
        for before in [
            "<?xml version=\"1.0\" encoding='?>\"' ?>",
            "<?p <a b='?>",
            "<!-- <a b=' -->",
            "<a><![CDATA[<a b='\"]]>",
            "<a b='>' c='\"'>",
            "<a>'\"=",
            "<a></a '>",
        ] {
            let error = refused(&format!("{before}<x{many}/>"));
            assert!(error.problem.contains("attributes"), "{before}: {error}");
        }
        // What stands there is no tag.
        for before in ["<!--", "<![CDATA[", "<?p "] {
            check(&format!("<a>{before}<x{many}/>")).unwrap();
        }
    }

    #[test]
    fn places_are_the_parser_s() {
        let text = "<a>\n <b ä='ö'/><c/>\n\n<d/></a>";
        let document = roxmltree::Document::parse(text).unwrap();
        let offsets: Vec<usize> = document
            .descendants()
            .map(|node| node.range().start)
            .rev()
            .collect();
        let found = places(text, offsets.clone());
        for offset in offsets {
            assert_eq!(found[&offset], document.text_pos_at(offset).into());
        }
    }
}
