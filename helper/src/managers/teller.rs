//! Tells a running NetworkManager on a thread of its own, for who has other bonds to care for: it may take minutes.

use std::thread::{Builder, JoinHandle};

use super::network_manager::{self, Nmcli};
use crate::system_files::SystemFiles;

/// Tells one thing at a time. What its process does not live to tell is told by a later look.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Teller {
    /// Begins with what is due, unless it is at something, and gives what was said by what has ended.
    pub(crate) fn go_on(&mut self, files: &SystemFiles) -> Vec<String> {
        self.go_on_by(files, |files| {
            network_manager::finish(files, &mut Nmcli::default())
        })
    }

    /// It is at something, or has not given what was said.
    pub(crate) fn is_at_work(&self) -> bool {
        self.thread.is_some()
    }

    /// The same as [`Self::go_on`], to its end.
    pub(crate) fn finish(mut self, files: &SystemFiles) -> Vec<String> {
        let said = self.go_on(files);
        [said, self.end()].concat()
    }

    fn go_on_by(
        &mut self,
        files: &SystemFiles,
        tell: fn(&SystemFiles) -> Vec<String>,
    ) -> Vec<String> {
        if self.thread.as_ref().is_some_and(|it| !it.is_finished()) {
            return Vec::new();
        }
        let mut said = self.end();
        if !network_manager::is_due(files) {
            return said;
        }
        let theirs = files.clone();
        let thread = Builder::new().name("tell-manager".to_owned());
        match thread.spawn(move || tell(&theirs)) {
            Ok(thread) => self.thread = Some(thread),
            // As many processes as there may be: late is better than never.
            Err(_) => said.extend(tell(files)),
        }
        said
    }

    fn end(&mut self) -> Vec<String> {
        let ended = self.thread.take().map(JoinHandle::join);
        // A bug's words are on standard error.
        ended.and_then(Result::ok).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::nics::testing::Folder;

    const BEGUN: &str = "/begun";
    const MAY_END: &str = "/may-end";
    const TOLD: &str = "/run/tandem-nics/network-manager-told.json";

    /// A manager that answers when it may.
    fn tell(files: &SystemFiles) -> Vec<String> {
        let log = files.text(BEGUN);
        std::fs::write(files.path(BEGUN), log + "begun\n").unwrap();
        wait(|| files.exists(MAY_END));
        std::fs::remove_file(files.path(TOLD)).unwrap();
        vec!["told".to_owned()]
    }

    fn wait(is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "not in time");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn who_watches_is_not_held_up_by_a_manager_that_does_not_answer() {
        let folder = Folder::complete();
        let files = folder.files();
        let mut teller = Teller::default();
        let nothing = Vec::<String>::new();
        assert_eq!(teller.go_on_by(&files, tell), nothing);
        assert!(!teller.is_at_work(), "nothing was due");

        folder.write("/run/tandem-nics/network-manager-told.lock", "");
        folder.write(TOLD, r#"{"moved": [], "tries": 0, "not_before": 0}"#);
        // A watch's looks go on, and begin no second one.
        for _ in 0..3 {
            assert_eq!(teller.go_on_by(&files, tell), nothing);
            wait(|| files.exists(BEGUN));
        }
        assert!(teller.is_at_work());
        folder.write(MAY_END, "");
        wait(|| teller.thread.as_ref().unwrap().is_finished());
        assert_eq!(teller.go_on_by(&files, tell), ["told"]);
        assert_eq!(files.text(BEGUN), "begun\n");
        assert!(!teller.is_at_work());
    }
}
