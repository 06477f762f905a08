//! A `virsh` that stays: it connects once, and then answers one question after the other.
//!
//! Each question is a line on its standard input, of fixed words and numbers alone: a domain is asked for by its UUID,
//! and no name, file or URI is ever in it, so that nothing needs quoting. What it prints of an answer stands between
//! two marks that nobody else knows, so no domain's XML can pretend to be the end of it.
//!
//! A session that hangs, floods or loses its connection is killed, and the next question begins another one. Where none
//! is to be had each question is a process of its own, as almost every change is: there the exit status counts.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::time::Instant;

use super::refusal;
use super::run::{Connection, Finished, MAX_ERROR_BYTES, MAX_OUTPUT_BYTES, OnDrop, Running};

/// Sessions that wait for their next question; more are ended.
const MOST_IDLE: usize = 2;
/// Where a new session did not answer, none is tried for so long.
const REST: Duration = Duration::from_secs(30);
/// Domains whose UUIDs are remembered.
const MOST_UUIDS: usize = 4096;

/// Commands that may be given again where their answer got lost. The last three change what a carry has to change within
/// milliseconds, and given twice they come to the same.
const REPEATABLE: [&str; 10] = [
    "domstate",
    "dominfo",
    "domjobinfo",
    "dumpxml",
    "list",
    "nodedev-dumpxml",
    "snapshot-list",
    "migrate-getspeed",
    "migrate-setspeed",
    "migrate-setmaxdowntime",
];
/// One that has no time to lose either, and is given once: whoever had the guest run on meanwhile would find it stopped again.
const ONCE: &str = "suspend";

/// A session may be given it.
pub(super) fn is_for_sessions(command: &str) -> bool {
    command == ONCE || REPEATABLE.contains(&command)
}

/// It may, and has no word of anybody else's.
pub(super) fn can_ask(arguments: &[&str]) -> bool {
    let Some((command, options)) = arguments.split_first() else {
        return false;
    };
    is_for_sessions(command) && options.iter().all(|option| is_fixed(option))
}

/// A flag of this program's, a domain's UUID, the name that libvirt gives a PCI function, or a number.
fn is_fixed(option: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let Some((name, value)) = option.split_once('=') else {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
        return option.starts_with("--") && option.bytes().all(plain);
    };
    match name {
        "--domain" => is_uuid(value),
        "--device" => {
            let number = value.strip_prefix("pci_");
            number.is_some_and(|number| number.bytes().all(|byte| hex(byte) || byte == b'_'))
        }
        "--bandwidth" | "--downtime" => value.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    }
}

/// As libvirt writes it.
fn is_uuid(text: &str) -> bool {
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}

/// The sessions of a connection, and what they are told in place of names.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    idle: Mutex<Vec<Session>>,
    rests_until: Mutex<Option<Instant>>,
    uuids: Mutex<BTreeMap<String, String>>,
}

impl Sessions {
    /// The UUID of the domain that had this name when it was last seen.
    pub(super) fn uuid_of(&self, name: &str) -> Option<String> {
        locked(&self.uuids).get(name).cloned()
    }

    /// Remembers it, or with `None` forgets it.
    pub(super) fn set_uuid(&self, name: &str, uuid: Option<&str>) {
        let mut uuids = locked(&self.uuids);
        if uuids.len() >= MOST_UUIDS {
            uuids.clear();
        }
        match uuid {
            Some(uuid) => uuids.insert(name.to_owned(), uuid.to_owned()),
            None => uuids.remove(name),
        };
    }

    /// Asks over a session that is there, or a new one; `None` if none is to be had. Dropped before its end, the
    /// session is killed. What is given once fails with the connection.
    pub(super) async fn ask(
        &self,
        connection: &Connection,
        arguments: &[&str],
    ) -> Option<Finished> {
        let once = arguments.first() == Some(&ONCE);
        let known = locked(&self.idle).pop();
        if let Some(session) = known {
            match self.asked(session, arguments).await {
                None if once => return Some(unknown()),
                None => {}
                finished => return finished,
            }
        }
        // None was there, or it had lost its connection meanwhile.
        let rests_until = *locked(&self.rests_until);
        if rests_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let started = Session::start(connection);
        let was_given = once && started.is_ok();
        let finished = match started {
            Ok(session) => self.asked(session, arguments).await,
            Err(_) => None,
        };
        if finished.is_none() {
            *locked(&self.rests_until) = Some(Instant::now() + REST);
        }
        finished.or_else(|| was_given.then(unknown))
    }

    async fn asked(&self, mut session: Session, arguments: &[&str]) -> Option<Finished> {
        let finished = session.ask(arguments).await.ok()?;
        if refusal::is_unreachable(&finished.stderr) {
            return None;
        }
        let mut idle = locked(&self.idle);
        if idle.len() < MOST_IDLE {
            idle.push(session);
        }
        Some(finished)
    }
}

/// The end of a command that was given, and whose answer never came.
fn unknown() -> Finished {
    Finished {
        success: false,
        stdout: String::new(),
        stderr: "error: Disconnected from the hypervisor before it answered\n".to_owned(),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}

/// One `virsh`.
#[derive(Debug)]
struct Session {
    /// Killed with all that it started when this is dropped; so it writes no history of what it was asked.
    _virsh: Running,
    stdin: ChildStdin,
    stdout: Stream<ChildStdout>,
    stderr: Stream<ChildStderr>,
    secret: String,
    questions: u64,
}

impl Session {
    /// Whether it answers shows only when it is asked.
    fn start(connection: &Connection) -> Result<Self, std::io::Error> {
        let spawned = connection.spawn(&[], true, OnDrop::Killed);
        let mut virsh = spawned.map_err(std::io::Error::other)?;
        let child = &mut virsh.child;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(std::io::Error::other("it has no pipes"));
        };
        let secret = || RandomState::new().hash_one(0);
        Ok(Self {
            _virsh: virsh,
            stdin,
            stdout: Stream::new(stdout, MAX_OUTPUT_BYTES),
            stderr: Stream::new(stderr, MAX_ERROR_BYTES),
            secret: format!("{:016x}{:016x}", secret(), secret()),
            questions: 0,
        })
    }

    async fn ask(&mut self, arguments: &[&str]) -> std::io::Result<Finished> {
        self.questions += 1;
        let (number, secret) = (self.questions, &self.secret);
        let question = arguments.join(" ");
        // virsh repeats the line that it was given: there each mark is in two words with quotes, and in its output
        // in one line without. Its errors have a way of their own, in which a command of no such name is the mark.
        let line = format!(
            "echo 'tandem-begin-{number}' '{secret}'; {question}; echo 'tandem-end-{number}' '{secret}'\n\
             tandem-end-{number}-{secret}\n"
        );
        let begin = format!("tandem-begin-{number} {secret}");
        let end = format!("tandem-end-{number} {secret}");
        let error_end = format!("tandem-end-{number}-{secret}");
        self.stdin.write_all(line.as_bytes()).await?;
        self.stdin.flush().await?;
        let (stdout, stderr) =
            tokio::try_join!(self.stdout.until(&end), self.stderr.until(&error_end))?;
        let (_, stdout) = stdout
            .split_once(&begin)
            .ok_or_else(|| std::io::Error::other("its answer has no beginning"))?;
        // What stands before the mark in its line is virsh's own.
        let stderr = stderr.rsplit_once('\n').map_or("", |(before, _)| before);
        Ok(Finished {
            success: !stderr.lines().any(|line| line.starts_with("error:")),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        })
    }
}

/// What a session prints.
#[derive(Debug)]
struct Stream<Pipe> {
    pipe: Pipe,
    bytes: Vec<u8>,
    max_bytes: u64,
}

impl<Pipe: AsyncRead + Unpin> Stream<Pipe> {
    fn new(pipe: Pipe, max_bytes: u64) -> Self {
        Self {
            pipe,
            bytes: Vec::new(),
            max_bytes,
        }
    }

    /// All that comes before the mark.
    async fn until(&mut self, mark: &str) -> std::io::Result<String> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.bytes[searched..], mark.as_bytes()) {
                let at = searched + at;
                let text = String::from_utf8_lossy(&self.bytes[..at]).into_owned();
                self.bytes.drain(..at + mark.len());
                return Ok(text);
            }
            searched = self.bytes.len().saturating_sub(mark.len());
            if self.bytes.len() as u64 > self.max_bytes {
                return Err(std::io::Error::other("it prints too much"));
            }
            if self.pipe.read_buf(&mut self.bytes).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_of_fixed_words_and_numbers_are_asked() {
        let domain = "--domain=6695eb01-f6a4-8304-79aa-97f2502e193f";
        for good in [
            &["domstate", domain, "--reason"][..],
            &["list", "--all", "--uuid", "--name"],
            &["nodedev-dumpxml", "--device=pci_0000_3b_02_1"],
            &["migrate-setspeed", domain, "--bandwidth=32"],
            &["suspend", domain],
        ] {
            assert!(can_ask(good), "{good:?}");
        }
        let quoted = format!("{domain}'");
        let longer = format!("{domain};destroy");
        for bad in [
            &["metadata", domain][..],
            &["destroy", domain],
            &["migrate-setspeed", domain, "--bandwidth=32;destroy"],
            &["dumpxml", "--domain=g1"],
            &["dumpxml", &quoted],
            &["dumpxml", &longer],
            &["dumpxml", &domain.to_ascii_uppercase()],
            &["dumpxml", domain, "--xpath=/"],
            &["dumpxml", domain, "destroy"],
            &["dumpxml", domain, "--a;destroy"],
            &["dumpxml", domain, ""],
            &["nodedev-dumpxml", "--device=pci_0000\n"],
            &["nodedev-dumpxml", "--device=net_eth0"],
            &[],
        ] {
            assert!(!can_ask(bad), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn what_is_printed_is_taken_up_to_the_mark_and_no_further_than_the_bound() {
        let mut stream = Stream::new(&b"a mar mark b mark"[..], 8);
        assert_eq!(stream.until("mark").await.unwrap(), "a mar ");
        assert_eq!(stream.until("mark").await.unwrap(), " b ");
        assert!(stream.until("mark").await.is_err());
        let long = vec![b'x'; 100_000];
        let mut stream = Stream::new(&long[..], 10_000);
        let error = stream.until("mark").await.unwrap_err();
        assert!(error.to_string().contains("too much"), "{error}");
        assert!(stream.bytes.len() < 100_000);
    }
}
