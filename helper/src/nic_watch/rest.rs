//! Whether the service would be started again by anything.

use std::time::{Duration, Instant};

/// How long a service that nothing starts has to be so: one that is restarted is, for a moment, and would find this
/// still there and be without it soon after.
const AT_REST: Duration = Duration::from_secs(10);

/// Since when nothing would start the service.
#[derive(Debug, Default)]
pub(super) struct Rest {
    since: Option<Instant>,
}

impl Rest {
    /// How long it has to go on being so; nothing if something would start it.
    pub(super) fn left(&mut self, rests: bool, now: Instant) -> Option<Duration> {
        self.since = rests.then(|| self.since.unwrap_or(now));
        let since = self.since?;
        Some(AT_REST.saturating_sub(now.saturating_duration_since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_restarted_does_not_rest() {
        let (mut rest, start) = (Rest::default(), Instant::now());
        assert_eq!(rest.left(true, start), Some(AT_REST));
        assert_eq!(rest.left(true, start + AT_REST / 2), Some(AT_REST / 2));
        assert_eq!(rest.left(false, start + AT_REST / 2), None);
        let again = start + AT_REST;
        assert_eq!(rest.left(true, again), Some(AT_REST));
        assert_eq!(rest.left(true, again + AT_REST), Some(Duration::ZERO));
    }
}
