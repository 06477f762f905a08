//! Reading one element strictly: unknown attributes, elements and text are faults.

use std::fmt::Display;
use std::str::FromStr;

use roxmltree::{Attribute, Node};

use super::error::{Place, XmlError};

/// Longest piece of a document that an error repeats, in characters.
const SHOWN: usize = 60;

/// An element being read.
#[derive(Clone, Copy)]
pub(super) struct Element<'a, 'input> {
    node: Node<'a, 'input>,
}

impl<'a, 'input> Element<'a, 'input> {
    /// Takes an element that may have these attributes and no text of its own.
    pub(super) fn new(node: Node<'a, 'input>, attributes: &[&str]) -> Result<Self, XmlError> {
        let element = Self { node };
        for attribute in node.attributes() {
            let known = attribute.namespace().is_none() && attributes.contains(&attribute.name());
            if !known {
                let allowed = match attributes {
                    [] => "it has none".to_owned(),
                    names => format!("it may have {}", names.join(", ")),
                };
                let problem = format!("unknown attribute `{}`; {allowed}", shown(attribute.name()));
                return Err(element.error_at(attribute, problem));
            }
        }
        if let Some(text) = node.children().find(|child| is_text(*child)) {
            let words = text.text().unwrap_or_default().trim();
            let mut error = element.error(format!("text has no place here: `{}`", shown(words)));
            error.place = place(text);
            return Err(error);
        }
        Ok(element)
    }

    /// An element as it is, for its faults.
    pub(super) fn any(node: Node<'a, 'input>) -> Self {
        Self { node }
    }

    /// Its name without prefix.
    pub(super) fn name(&self) -> &'a str {
        self.node.tag_name().name()
    }

    /// Where it begins, in bytes.
    pub(super) fn offset(&self) -> usize {
        self.node.range().start
    }

    /// Elements inside, which must be of the same namespace.
    pub(super) fn children(&self) -> impl Iterator<Item = Result<Node<'a, 'input>, XmlError>> {
        let outer = *self;
        let inside = self.node.children().filter(Node::is_element);
        inside.map(move |child| {
            if child.tag_name().namespace() == outer.node.tag_name().namespace() {
                Ok(child)
            } else {
                Err(outer.unknown(child, "it is of another namespace"))
            }
        })
    }

    /// An element that has nothing inside.
    pub(super) fn empty(self) -> Result<Self, XmlError> {
        match self.node.children().find(Node::is_element) {
            Some(child) => Err(self.unknown(child, "nothing may stand inside")),
            None => Ok(self),
        }
    }

    /// The fault of an element inside this one that has no place there.
    pub(super) fn unknown(&self, child: Node<'_, '_>, why: &str) -> XmlError {
        let name = shown(child.tag_name().name());
        let mut error = self.error(format!("unknown element <{name}>: {why}"));
        error.place = place(child);
        error
    }

    /// An attribute's text.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.node.attribute(name)
    }

    /// An attribute's value, if it is there.
    pub(super) fn value<T>(&self, name: &str) -> Result<Option<T>, XmlError>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.read(name, |text| {
            text.parse().map_err(|error: T::Err| error.to_string())
        })
    }

    /// An attribute's value, read by a function that says what is wrong.
    pub(super) fn read<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, XmlError> {
        let Some(attribute) = self.node.attribute_node(name) else {
            return Ok(None);
        };
        read(attribute.value())
            .map(Some)
            .map_err(|problem| self.error_at(attribute, format!("{name}: {problem}")))
    }

    /// An attribute's whole number without sign.
    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, XmlError> {
        self.read(name, |text| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| text.parse().ok()).flatten();
            number.ok_or_else(|| format!("`{}` is not a number that fits here", shown(text)))
        })
    }

    /// What must be there.
    pub(super) fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, XmlError> {
        value.ok_or_else(|| self.error(format!("the attribute `{name}` is missing; add it")))
    }

    /// A fault of the element.
    pub(super) fn error(&self, problem: impl Into<String>) -> XmlError {
        XmlError {
            place: place(self.node),
            element: format!("<{}>", shown(self.name())),
            problem: problem.into(),
        }
    }

    fn error_at(&self, attribute: Attribute<'_, '_>, problem: String) -> XmlError {
        let position = self.node.document().text_pos_at(attribute.range().start);
        XmlError {
            place: position.into(),
            ..self.error(problem)
        }
    }
}

/// Keeps errors short and printable whatever the document says.
pub(super) fn shown(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(SHOWN).map(printable).collect()
}

fn place(node: Node<'_, '_>) -> Place {
    node.document().text_pos_at(node.range().start).into()
}

fn is_text(node: Node<'_, '_>) -> bool {
    node.is_text() && !node.text().unwrap_or_default().trim_ascii().is_empty()
}
