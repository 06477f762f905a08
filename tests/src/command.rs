//! Runs other programs: captured output, a deadline, and an error that shows what the program said.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;

/// At most this much of a program's output is kept, in bytes.
const OUTPUT_LIMIT_BYTES: usize = 16 << 20;
/// How long a pipe's end is awaited after its program ended.
const PIPE_END_LIMIT: Duration = Duration::from_millis(500);

/// What a program that ended left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, as text.
    pub stdout: String,
    /// Its standard error, as text.
    pub stderr: String,
}

/// Runs `command` to its end and fails, showing its output, if it does not succeed within `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    let finished = run_any(command, limit)?;
    if !finished.status.success() {
        bail!(
            "`{}` failed ({}):\n{}{}",
            shown(command),
            finished.status,
            finished.stdout,
            finished.stderr
        );
    }
    Ok(finished)
}

/// Runs `command` to its end and gives its standard output; what it tells of its progress on standard error is seen
/// as it comes.
pub fn run_shown(command: &mut Command, limit: Duration) -> Result<String> {
    let finished = run_with(command, limit, Stdio::inherit())?;
    if !finished.status.success() {
        bail!("`{}` failed ({})", shown(command), finished.status);
    }
    Ok(finished.stdout)
}

/// Runs `command` to its end whatever its exit status; fails if it cannot start or exceeds `limit`.
pub fn run_any(command: &mut Command, limit: Duration) -> Result<Finished> {
    run_with(command, limit, Stdio::piped())
}

fn run_with(command: &mut Command, limit: Duration, stderr: Stdio) -> Result<Finished> {
    let name = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .with_context(|| format!("cannot start `{name}`"))?;
    let stdout = child
        .stdout
        .take()
        .map(|pipe| Capture::of(pipe, OUTPUT_LIMIT_BYTES));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| Capture::of(pipe, OUTPUT_LIMIT_BYTES));
    let Some(status) = process::wait_deadline(&mut child, limit)? else {
        bail!("`{name}` did not end within {} s", limit.as_secs());
    };
    let text = |capture: Option<Capture>| {
        let bytes = capture
            .map(|capture| capture.finish().0)
            .unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Finished {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

/// A pipe that is read to its end on a thread of its own.
#[derive(Debug)]
pub struct Capture {
    buffer: Arc<Mutex<(Vec<u8>, bool)>>,
    ended: mpsc::Receiver<()>,
}

impl Capture {
    /// Begins to read; what exceeds `limit_bytes` is read too, so that nobody blocks, and dropped.
    pub fn of(mut pipe: impl Read + Send + 'static, limit_bytes: usize) -> Self {
        let buffer = Arc::new(Mutex::new((Vec::new(), false)));
        let shared = Arc::clone(&buffer);
        let (alive, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let _alive = alive;
            let mut bytes = [0; 16 << 10];
            // What came before an error is still the program's output.
            while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                let mut buffer = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let room = limit_bytes.saturating_sub(buffer.0.len());
                buffer.1 |= count > room;
                buffer.0.extend(&bytes[..count.min(room)]);
            }
        });
        Self { buffer, ended }
    }

    /// What was read, and whether anything was dropped. Call it after the program ended: a child it left
    /// behind may keep the pipe open, so the pipe's end is awaited for a moment only.
    pub fn finish(self) -> (Vec<u8>, bool) {
        let _ = self.ended.recv_timeout(PIPE_END_LIMIT);
        std::mem::take(&mut *self.buffer.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The names of the given programs that are not in `PATH`.
pub fn missing_programs<'a>(programs: &[&'a str]) -> Vec<&'a str> {
    programs
        .iter()
        .copied()
        .filter(|program| find_program(program).is_none())
        .collect()
}

/// Where a program is: in `PATH`, or in the folders of system tools that `PATH` may leave out.
pub fn find_program(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Into::into))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Tells the person at the terminal what the lab is doing. Not captured by the test harness.
pub fn progress(text: &str) {
    // Nobody may be listening; that is no reason to fail.
    let _ = writeln!(std::io::stderr(), "lab: {text}");
}

/// How often something that takes its time is told to go on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Does `work`, and tells the person who waits what it is, that it goes on, and how long it took; with `growing`, a
/// folder or file, also how much is there already.
pub fn step<T>(
    what: &str,
    growing: Option<&std::path::Path>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let began = Instant::now();
    progress(&format!("{what} …"));
    let (alive, ended) = mpsc::channel::<()>();
    let (title, growing) = (what.to_owned(), growing.map(std::path::Path::to_path_buf));
    let teller = std::thread::spawn(move || {
        while ended.recv_timeout(SIGN_OF_LIFE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let there = growing.as_deref().map_or(String::new(), |path| {
                format!(", {} MiB so far", size_bytes(path) >> 20)
            });
            progress(&format!("{title}: {} s{there}", began.elapsed().as_secs()));
        }
    });
    let done = work();
    drop(alive);
    // It ends at once, and has nothing to give.
    let _ = teller.join();
    let how = if done.is_ok() { "done" } else { "failed" };
    progress(&format!(
        "{what}: {how} in {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    done
}

/// Of a file, or of all files in a folder; those that come and go meanwhile do not matter.
fn size_bytes(path: &std::path::Path) -> u64 {
    let device = path.symlink_metadata().map(|about| about.dev());
    device.map_or(0, |device| size_on(path, device))
}

/// Of what is on that device alone: a folder that is open can't be unmounted, and a root file system's `/proc` has to be.
fn size_on(path: &std::path::Path, device: u64) -> u64 {
    let Ok(about) = path.symlink_metadata() else {
        return 0;
    };
    if about.dev() != device {
        return 0;
    }
    if !about.is_dir() {
        return about.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size_on(&entry.path(), device)).sum()
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_size_is_of_one_file_system() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        for name in ["file", "inner/file"] {
            fs::write(folder.path().join(name), [0; 100]).unwrap();
        }
        assert_eq!(size_bytes(folder.path()), 200);
        let other = fs::metadata("/proc").unwrap().dev();
        assert_eq!(size_on(folder.path(), other), 0);
    }
}
