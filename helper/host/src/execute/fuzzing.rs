//! A way in for tests/fuzz. Built with `--cfg fuzzing` only.

/// Puts a record into a domain's XML.
///
/// # Errors
/// If the text is no domain's XML.
pub fn with_progress(xml: &str, record: &str) -> Result<String, String> {
    super::record::with_progress(xml, record)
}
