//! What goes wrong while a carried guest moves.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::libvirt::EVACUATION_LIMIT;
use crate::net::Namespace;
use crate::{Host, Lab, Vm};

/// Between two looks.
const STEP: Duration = Duration::from_millis(2);
/// So many bytes of frames are kept where the limit is small.
const SMALL_LIMIT: usize = 4096;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// The migration is cancelled then.
    Cancelled(When),
    /// A half's connection breaks then, as ssh's would.
    Cut(Side, When),
    /// The destination's QEMU stands still for a while once the guest does.
    Frozen(Duration),
    /// A half's process stands still for a while once the guest does.
    HalfFrozen(Side, Duration),
    /// A half may keep 4 KiB.
    SmallLimit,
    /// The destination's QEMU dies once the guest stands still.
    DestinationDies,
    /// So long after the guest has left, the switch still sends to the source.
    LearnsLate(Duration),
    /// So long after the guest has left, the switch still sends to the source, and its bridge to the guest's tap.
    StaysAtTap(Duration),
}

/// When something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Both halves stand ready.
    Ready,
    /// Memory is being copied.
    Copying,
    /// Frames are held, and the guest may still run.
    Holding,
    /// The guest stands still on the source.
    Stopped,
}

/// A half's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that the guest leaves.
    Source,
    /// The one that it goes to.
    Destination,
}

/// What stands between `migrate` and its halves, and has a name of its own.
pub(super) struct Wrapper {
    folder: PathBuf,
}

impl Wrapper {
    /// In a folder of the move's.
    pub(super) fn new(folder: &Path, number: usize) -> Result<Self> {
        let folder = folder.join(format!("{number}.wrapper"));
        fs::create_dir(&folder)?;
        Ok(Self { folder })
    }

    /// The command that runs another one with its standard streams through two processes, as ssh does.
    pub(super) fn through(&self) -> Result<String> {
        for name in ["in", "out"] {
            symlink("/bin/cat", self.folder.join(name))?;
        }
        let at = self.folder.display();
        // The shell keeps no end of either: whoever started it would not hear that they end.
        let script = format!(
            "exec 3<&0 0</dev/null\n{at}/in <&3 | \"$@\" 3<&- | {at}/out 3<&- &\nexec 1>&- 3<&-\nwait"
        );
        self.script("through", &script)
    }

    /// The command that runs another one with a small limit.
    pub(super) fn small_limit(&self) -> Result<String> {
        let script = format!(
            "last=\nfor word; do\nshift\n[ \"$last\" = --limit ] && set -- \"$@\" {SMALL_LIMIT} || set -- \"$@\" \
             \"$word\"\nlast=$word\ndone\nexec \"$@\""
        );
        self.script("small-limit", &script)
    }

    fn script(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path.display().to_string())
    }

    /// Ends both processes that the streams go through.
    pub(super) fn cut(&self) -> Result<()> {
        for name in ["in", "out"] {
            let path = self.folder.join(name).display().to_string();
            let found = program_with(&path, &[])?;
            kill_process(
                found.with_context(|| format!("no {path} runs"))?,
                Signal::KILL,
            )?;
        }
        Ok(())
    }
}

/// Bridges that send what is for a guest the old way, wherever that guest is, and how each is told of the new one.
pub(super) struct StaticEntries(Vec<(Namespace, String)>);

impl StaticEntries {
    /// On the switch, to the first of these hosts, and later to the other one: nothing is flooded in between.
    pub(super) fn new(lab: &Lab, mac: &str, [here, there]: [&Host; 2]) -> Result<Self> {
        let switch = lab.switch();
        keep(switch, mac, &format!("to-{}", here.name()))?;
        let moved = format!("replace {mac} dev to-{} master dynamic", there.name());
        Ok(Self(vec![(switch.clone(), moved)]))
    }

    /// And on a host's own bridge, to that tap.
    pub(super) fn and_at(mut self, host: &Host, mac: &str, tap: &str) -> Result<Self> {
        keep(host.namespace(), mac, tap)?;
        let gone = format!("del {mac} dev {tap} master");
        self.0.push((host.namespace().clone(), gone));
        Ok(self)
    }

    /// Has them go so long after the guest has left.
    pub(super) fn remove_after(self, vm: &Vm, late: Duration) -> Result<()> {
        await_until("the guest never leaves", || {
            let state = vm.qmp().execute("query-status", json!({}))?;
            Ok(state["status"] == "postmigrate")
        })?;
        thread::sleep(late);
        for (bridge, change) in self.0 {
            bridge.exec(&format!("bridge fdb {change}"))?;
        }
        Ok(())
    }
}

/// A static entry alone is moved by the first frame from elsewhere (`br_fdb_update` of `net/bridge/br_fdb.c`, Linux 6.12).
fn keep(bridge: &Namespace, mac: &str, port: &str) -> Result<()> {
    let entry = format!("{mac} dev {port} master static sticky");
    bridge.exec(&format!("bridge fdb replace {entry}"))?;
    Ok(())
}

/// Has a process stand still for so long.
pub(super) fn freeze(process: Pid, time: Duration) -> Result<()> {
    kill_process(process, Signal::STOP)?;
    thread::sleep(time);
    Ok(kill_process(process, Signal::CONT)?)
}

/// Waits until something is so.
pub(super) fn await_until(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + EVACUATION_LIMIT;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what}");
        thread::sleep(STEP);
    }
    Ok(())
}

/// The process of a program whose name ends so, with these words on its command line.
pub(super) fn program_with(program: &str, words: &[&str]) -> Result<Option<Pid>> {
    program_that(program, |line| {
        words.iter().all(|word| line.contains(&word.as_bytes()))
    })
}

/// The process of a program whose name ends so, with such words on its command line.
pub(super) fn program_that(program: &str, is_it: impl Fn(&[&[u8]]) -> bool) -> Result<Option<Pid>> {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?.path();
        let number = entry
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let (Some(number), Ok(line)) = (number, fs::read(entry.join("cmdline"))) else {
            continue;
        };
        let line: Vec<_> = line.split(|byte| *byte == 0).collect();
        // `ip netns exec` becomes it, and is not it yet.
        let is_program = line
            .first()
            .is_some_and(|name| name.ends_with(program.as_bytes()));
        if is_program && is_it(&line) {
            return Ok(Pid::from_raw(number));
        }
    }
    Ok(None)
}
