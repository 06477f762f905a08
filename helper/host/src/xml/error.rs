//! What is wrong with a document, and where.

use std::fmt;

use crate::words::printable;

/// Where an element or attribute stands in the text; both count from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// The first fault of a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}, {element}: {problem}")]
pub struct XmlError {
    /// Where it is.
    pub place: Place,
    /// Which element, such as `<vf>`; `the document` if it can't be read at all.
    pub element: String,
    /// What is wrong and what to do.
    pub problem: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl From<roxmltree::TextPos> for Place {
    fn from(position: roxmltree::TextPos) -> Self {
        Self {
            line: position.row,
            column: position.col,
        }
    }
}

impl XmlError {
    /// A text that is not XML at all.
    pub(super) fn unreadable(error: &roxmltree::Error) -> Self {
        let problem = match error {
            roxmltree::Error::NodesLimitReached => "it has more elements than a sound one".into(),
            roxmltree::Error::DtdDetected => "it has a DTD, which is not read; remove it".into(),
            // It shows what stands there, whatever that is.
            other => printable(&other.to_string()),
        };
        Self {
            place: error.pos().into(),
            element: "the document".to_owned(),
            problem,
        }
    }

    /// A text beyond the bound.
    pub(super) fn too_long(max_bytes: usize) -> Self {
        Self {
            place: Place { line: 1, column: 1 },
            element: "the document".to_owned(),
            problem: format!("it is longer than {max_bytes} bytes"),
        }
    }
}
