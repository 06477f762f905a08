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
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::tell;
    use super::*;
    use crate::networkd::Moved;
    use crate::system_files::SystemFiles;

    /// A program in nmcli's place, which notes what it is asked to bring up and then does this.
    fn nmcli(folder: &tempfile::TempDir, then: &str, limit: Duration) -> Nmcli {
        let program = folder.path().join("nmcli");
        let text = format!(
            "#!/bin/sh\ntest \"$2\" = reload && exit 0\necho asked >>{}/log\n{then}\n",
            folder.path().display()
        );
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Nmcli {
            program: program.to_str().unwrap().to_owned(),
            limit,
            deaf: None,
        }
    }

    fn told(then: &str, limit: Duration) -> (usize, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let mut nmcli = nmcli(&folder, then, limit);
        let moved = ["bond0", "bond1"].map(|bond| Moved {
            bond: bond.parse().unwrap(),
            standby: format!("of-{bond}"),
            crosses: false,
        });
        let said = tell(&SystemFiles::this(), &mut nmcli, &moved);
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        (log.lines().count(), said)
    }

    #[test]
    fn one_that_hangs_is_asked_once() {
        // Of nmcli's own timeout.
        let (asked, said) = told("echo no answer >&2; exit 3", Duration::from_secs(60));
        assert_eq!(asked, 1, "{said:?}");
        assert!(said[1].ends_with(": no answer"), "{said:?}");
        // And one that is killed.
        let (asked, said) = told("exec sleep 1000", Duration::from_secs(1));
        assert!(asked <= 1 && said[1].contains("not done in"), "{said:?}");
    }

    #[test]
    fn one_that_refuses_is_asked_again() {
        let (asked, said) = told("echo refused >&2; exit 4", Duration::from_secs(60));
        assert_eq!(asked, 4, "{said:?}");
        assert!(said[0].ends_with(": refused"), "{said:?}");
    }
}
