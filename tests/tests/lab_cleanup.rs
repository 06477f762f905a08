//! Nothing of a lab stays behind when its process is interrupted or killed.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tandem_lab::Lab;
use tandem_lab::process::wait_deadline;

const LIMIT: Duration = Duration::from_secs(60);
const MARK: &str = "folder: ";

/// Starts a lab in a process of its own and waits until its QEMU runs.
fn start_lab() -> Result<(Child, PathBuf)> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lab-guest"))
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child
        .stdout
        .take()
        .context("the child's output is not piped")?;
    let folder = BufReader::new(output)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(PathBuf::from(line.strip_prefix(MARK)?)))
        .context("the lab told no folder")?;
    wait_until(|| processes_of(&folder) > 0).context("QEMU did not start")?;
    Ok((child, folder))
}

fn end(child: &mut Child, signal: Signal) -> Result<Option<i32>> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")?;
    kill_process(pid, signal)?;
    let status = wait_deadline(child, LIMIT)?.context("the lab did not end")?;
    Ok(status.signal())
}

/// How many processes have the run's folder among their arguments.
fn processes_of(folder: &Path) -> usize {
    let folder = folder.to_string_lossy().into_owned();
    let commands = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    commands
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|command| String::from_utf8_lossy(command).contains(&folder))
        .count()
}

fn namespaces_of(folder: &Path) -> Result<usize> {
    let run = folder
        .file_name()
        .context("no name")?
        .to_string_lossy()
        .into_owned();
    let names = std::fs::read_dir("/run/netns")?.flatten();
    Ok(names
        .filter(|entry| entry.file_name().to_string_lossy().contains(&run))
        .count())
}

fn wait_until(mut done: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        if Instant::now() >= deadline {
            bail!("not within {} s", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn an_interrupted_lab_leaves_nothing() {
    let Some(lab) = Lab::for_test("interrupted lab") else {
        return;
    };
    let (mut child, folder) = start_lab().unwrap();
    assert!(folder.exists());
    assert_eq!(namespaces_of(&folder).unwrap(), 3);
    let signal = end(&mut child, Signal::INT).unwrap();
    assert_eq!(signal, Some(Signal::INT.as_raw()));
    wait_until(|| processes_of(&folder) == 0).unwrap();
    assert!(!folder.exists());
    assert_eq!(namespaces_of(&folder).unwrap(), 0);
    drop(lab);
}

#[test]
fn a_killed_lab_is_swept_by_the_next() {
    let Some(lab) = Lab::for_test("killed lab") else {
        return;
    };
    let (mut child, folder) = start_lab().unwrap();
    end(&mut child, Signal::KILL).unwrap();
    // The kernel kills QEMU and the client's agent with it.
    wait_until(|| processes_of(&folder) == 0).unwrap();
    assert!(folder.exists());
    drop(lab);
    drop(Lab::new("the next").unwrap());
    assert!(!folder.exists());
    assert_eq!(namespaces_of(&folder).unwrap(), 0);
}
