//! nmcli, by which NetworkManager is told something.

use std::time::Duration;

use crate::programs::{LIMIT, ask_within};

/// What nmcli ends with where NetworkManager has not answered in time (nmcli(1), 1.52).
const TIMEOUT_EXPIRED: i32 = 3;

/// One that hangs is waited for once: whoever has this asks nothing more of it.
#[derive(Debug)]
pub(crate) struct Nmcli {
    program: String,
    limit: Duration,
    /// Why nothing more is asked.
    deaf: Option<String>,
}

impl Default for Nmcli {
    fn default() -> Self {
        Self {
            program: "nmcli".to_owned(),
            limit: LIMIT,
            deaf: None,
        }
    }
}

impl Nmcli {
    /// An error says that it failed, and what it said.
    pub(super) fn run(&mut self, arguments: &[&str]) -> Result<(), String> {
        if let Some(why) = &self.deaf {
            return Err(why.clone());
        }
        let said = ask_within(self.limit, &self.program, arguments);
        let said = said.inspect_err(|why| self.deaf = Some(why.clone()))?;
        if said.code == Some(0) {
            return Ok(());
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
        let moved = ["bond0", "bond1"].map(|bond| (bond.parse().unwrap(), format!("of-{bond}")));
        let said = tell(&mut nmcli, &moved);
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
