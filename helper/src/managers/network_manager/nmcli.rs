//! nmcli, by which NetworkManager is told something.

use std::time::{Duration, Instant};

use crate::programs::{LIMIT, ask_within};

/// What nmcli ends with where NetworkManager has not answered in time (nmcli(1), 1.52).
const TIMEOUT_EXPIRED: i32 = 3;
/// How long one may take that tells something: more than the bus lets NetworkManager take (25 s, `GDBusConnection`), as a
/// slow guest's nmcli takes seconds to begin.
const TELL_LIMIT: Duration = Duration::from_secs(30);
/// How long nmcli is to wait for a device, in seconds: less than that.
pub(super) const WAIT: &str = "25";

/// One that hangs is waited for once: whoever has this asks nothing more of it.
#[derive(Debug)]
pub(crate) struct Nmcli {
    program: String,
    limit: Duration,
    /// When all has to be told.
    until: Option<Instant>,
    /// Why nothing more is asked.
    deaf: Option<String>,
}

impl Default for Nmcli {
    fn default() -> Self {
        Self {
            program: "nmcli".to_owned(),
            limit: LIMIT,
            until: None,
            deaf: None,
        }
    }
}

impl Nmcli {
    /// From here on each may take longer, and all together so long.
    pub(super) fn is_told_within(&mut self, limit: Duration) {
        self.limit = TELL_LIMIT;
        self.until = Some(Instant::now() + limit);
    }

    /// Another program in its place.
    #[cfg(test)]
    pub(super) fn of(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            ..Self::default()
        }
    }

    /// An error says that it failed, and what it said.
    pub(super) fn run(&mut self, arguments: &[&str]) -> Result<(), String> {
        self.ask(arguments).map(|_| ())
    }

    /// The same with what it said where it did not fail.
    pub(super) fn ask(&mut self, arguments: &[&str]) -> Result<String, String> {
        if let Some(why) = &self.deaf {
            return Err(why.clone());
        }
        let left = self
            .until
            .map(|until| until.saturating_duration_since(Instant::now()));
        let limit = left.map_or(self.limit, |left| left.min(self.limit));
        let said = ask_within(limit, &self.program, arguments);
        let said = said.inspect_err(|why| self.deaf = Some(why.clone()))?;
        if said.code == Some(0) {
            return Ok(said.output);
        }
        let (words, errors) = (arguments.join(" "), said.errors.trim());
        let why = format!("{} {words}: {errors}", self.program);
        self.deaf = (said.code == Some(TIMEOUT_EXPIRED)).then(|| why.clone());
        Err(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shell says that is asked this twice.
    fn asked_twice(nmcli: &mut Nmcli, script: &str) -> [Result<String, String>; 2] {
        [(); 2].map(|()| nmcli.ask(&["-c", script]))
    }

    #[test]
    fn one_that_hangs_is_asked_once() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let asked = |nmcli: &mut Nmcli, then: &str| {
            let _ = std::fs::remove_file(&log);
            let script = format!("echo asked >>{}; {then}", log.display());
            let [first, second] = asked_twice(nmcli, &script);
            let count = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(first.is_err() && first == second, "{first:?} {second:?}");
            (count.lines().count(), first.unwrap_err())
        };
        // Of nmcli's own timeout.
        let (count, said) = asked(&mut Nmcli::of("sh"), "echo no answer >&2; exit 3");
        assert!(count == 1 && said.ends_with(": no answer"), "{said}");
        // And one that is killed, by its own limit or by that of all.
        let mut hasty = Nmcli::of("sh");
        hasty.limit = Duration::from_secs(1);
        let (count, said) = asked(&mut hasty, "exec sleep 1000");
        assert!(count <= 1 && said.contains("not done in"), "{said}");
        let mut late = Nmcli::of("sh");
        late.is_told_within(Duration::from_millis(1500));
        let (count, said) = asked(&mut late, "exec sleep 1000");
        assert!(count <= 1 && said.contains("not done in"), "{said}");
    }

    #[test]
    fn one_that_refuses_is_asked_again() {
        let [first, second] = asked_twice(&mut Nmcli::of("sh"), "date +%N >&2; exit 4");
        assert!(first.is_err() && second.is_err() && first != second);
    }
}
