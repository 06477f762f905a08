//! The record inside an XML that the domain shall have on the destination.

use crate::xml::PROGRESS_NAMESPACE;
use crate::xml::write::escaped;

/// Puts the record into the domain's `<metadata>`, in place of one that is there.
///
/// # Errors
/// If the text is no domain's XML.
pub(super) fn with_progress(xml: &str, record: &str) -> Result<String, String> {
    let document = crate::xml::domain::open(xml).map_err(|error| error.to_string())?;
    let root = document.root_element();
    if !root.has_tag_name("domain") {
        return Err("its root is not <domain>".to_owned());
    }
    let record = escaped(record);
    let element =
        format!("<tandem:progress xmlns:tandem='{PROGRESS_NAMESPACE}'>{record}</tandem:progress>");
    let mut children = root.children();
    let Some(metadata) = children.find(|node| node.has_tag_name("metadata")) else {
        let end = root.range().end;
        let end = xml[..end].rfind("</").ok_or("it has nothing in it")?;
        return Ok(format!(
            "{}<metadata>{element}</metadata>{}",
            &xml[..end],
            &xml[end..]
        ));
    };
    let old = metadata
        .children()
        .find(|node| node.has_tag_name((PROGRESS_NAMESPACE, "progress")));
    let range = match old {
        Some(old) => old.range(),
        None => {
            let range = metadata.range();
            match xml[range.clone()].rfind("</") {
                Some(at) => range.start + at..range.start + at,
                // `<metadata/>`
                None => {
                    let element = format!("<metadata>{element}</metadata>");
                    return Ok(format!(
                        "{}{element}{}",
                        &xml[..range.start],
                        &xml[range.end..]
                    ));
                }
            }
        }
    };
    Ok(format!(
        "{}{element}{}",
        &xml[..range.start],
        &xml[range.end..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::domain::DomainXml;

    #[test]
    fn the_record_is_found_again_wherever_it_had_to_be_put() {
        // `]]>` may stand in no text (XML 1.0, 2.4), and in the name of a domain.
        let record = r#"{"a":"<&> ]]>"}"#;
        let once = with_progress("<domain><name>a</name></domain>", record).unwrap();
        let sources = [
            "<domain><name>a</name></domain>\n",
            "<domain><metadata/><name>a</name></domain>",
            "<domain><metadata><x xmlns='y'/></metadata><name>a</name></domain>",
            &once,
        ];
        for source in sources {
            let text = with_progress(source, record).unwrap();
            let domain = DomainXml::parse(&text).unwrap();
            assert_eq!(domain.progress.as_deref(), Some(record), "{text}");
            assert_eq!(domain.name, "a");
            assert_eq!(text.matches("<metadata").count(), 1, "{text}");
        }
        assert!(with_progress("<interface/>", record).is_err());
        let many: String = (0..65).map(|number| format!(" a{number}=''")).collect();
        let error = with_progress(&format!("<domain{many}/>"), record).unwrap_err();
        assert!(error.contains("64 attributes"), "{error}");
    }
}
