//! How systemd finds the service's unit.

use super::obstacle::UNIT;
use crate::programs::ask;

/// What systemd says of the unit (`systemctl show`, org.freedesktop.systemd1(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `ActiveState`: active, activating, inactive, failed, …
    pub active: String,
    /// `SubState`: running, auto-restart, dead, …
    pub sub: String,
    /// `Result`: success, exit-code, signal, timeout, start-limit-hit, …
    pub result: String,
    /// `ExecMainCode`: how the main process ended, by the numbers of `si_code` (1: it exited); 0: not yet.
    pub code: String,
    /// `ExecMainStatus`: its exit status, or the signal that killed it.
    pub status: String,
    /// `NRestarts`: how often it was started again by itself.
    pub restarts: String,
}

/// `CLD_EXITED` of `si_code` (include/uapi/asm-generic/siginfo.h, 6.12).
const EXITED: &str = "1";
/// systemd's exit status for a user that it does not know (`EXIT_USER`, systemd.exec(5)).
const EXIT_USER: &str = "217";

impl UnitState {
    /// Asks systemd; nothing if it does not answer.
    pub fn ask() -> Option<Self> {
        let properties =
            "--property=ActiveState,SubState,Result,ExecMainCode,ExecMainStatus,NRestarts";
        let said = ask("systemctl", &["show", properties, "--", UNIT]).ok()?;
        let state = Self::parse(&said.output);
        (!state.active.is_empty()).then_some(state)
    }

    fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let mut lines = text.lines();
            let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_default().to_owned()
        };
        Self {
            active: value("ActiveState"),
            sub: value("SubState"),
            result: value("Result"),
            code: value("ExecMainCode"),
            status: value("ExecMainStatus"),
            restarts: value("NRestarts"),
        }
    }

    /// The service runs, or is just being started for the first time.
    pub fn is_fine(&self) -> bool {
        self.is_running()
            || self.active == "activating" && self.sub != "auto-restart" && !self.is_restarted()
    }

    fn is_restarted(&self) -> bool {
        !matches!(self.restarts.as_str(), "" | "0")
    }

    /// The service runs.
    pub fn is_running(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading")
    }

    /// It runs, is started, or will be started again by itself.
    pub fn goes_on(&self) -> bool {
        !matches!(self.active.as_str(), "inactive" | "failed")
    }

    /// How the service fares, in words that follow "the service".
    pub fn words(&self) -> String {
        match self.active.as_str() {
            "active" | "reloading" => return "runs".to_owned(),
            "inactive" if self.result == "success" => return "does not run".to_owned(),
            "activating" if self.is_fine() && self.result == "success" => {
                return "is still being started".to_owned();
            }
            _ => {}
        }
        // While it is being started again, systemd has forgotten how it ended.
        let result = (self.result != "success").then(|| self.result.clone());
        let ended = match (self.code.as_str(), self.status.as_str()) {
            ("" | "0", _) => None,
            (EXITED, EXIT_USER) => Some("its user is missing".to_owned()),
            (EXITED, status) => Some(format!("exit status {status}")),
            (_, signal) => Some(format!("killed by signal {signal}")),
        };
        let restarts = self
            .is_restarted()
            .then(|| format!("started again {} times", self.restarts));
        let parts: Vec<_> = [result, ended, restarts].into_iter().flatten().collect();
        match parts.is_empty() {
            true => "is being stopped".to_owned(),
            false => format!("fails: {}", parts.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> UnitState {
        UnitState::parse(text)
    }

    #[test]
    fn a_unit_is_told_in_words() {
        let crash = state(
            "ActiveState=activating\nSubState=auto-restart\nResult=signal\nExecMainCode=2\n\
             ExecMainStatus=11\nNRestarts=4\n",
        );
        assert_eq!(
            crash.words(),
            "fails: signal, killed by signal 11, started again 4 times"
        );
        assert!(!crash.is_fine() && crash.goes_on());

        let again = state(
            "ActiveState=activating\nSubState=start-pre\nResult=success\nExecMainCode=0\nNRestarts=4\n",
        );
        assert_eq!(again.words(), "fails: started again 4 times");
        assert!(!again.is_fine());

        let user = state(
            "ActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainCode=1\nExecMainStatus=217\nNRestarts=0\n",
        );
        assert_eq!(user.words(), "fails: exit-code, its user is missing");
        assert!(!user.is_fine() && !user.goes_on());

        let starts =
            state("ActiveState=activating\nSubState=start\nResult=success\nExecMainCode=0\n");
        assert_eq!(starts.words(), "is still being started");
        assert!(starts.is_fine());
        let runs = state("ActiveState=active\nSubState=running\nResult=success\n");
        assert!(runs.is_fine() && runs.words() == "runs");
        let stopped = state(
            "ActiveState=inactive\nSubState=dead\nResult=success\nExecMainCode=1\nExecMainStatus=0\n",
        );
        assert_eq!(stopped.words(), "does not run");
    }
}
