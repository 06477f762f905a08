//! Takes requests, does each on a thread of its own, and remembers the last answers, so that a request
//! sent again after a migration is not done twice.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tandem_lab::agent::proto::{
    DATA_LIMIT_BYTES, Hex, Op, Outcome, Reply, Request, Response, to_line,
};

use crate::capture::Captures;
use crate::frames::FrameProbes;
use crate::programs::{self, Programs};
use crate::renew;
use crate::stream::StreamProbes;

/// Requests under way at the same time.
const ACTIVE_LIMIT: usize = 32;
/// Answers remembered.
const ANSWER_LIMIT: usize = 16;

type Send = dyn Fn(&[u8]) -> io::Result<()> + std::marker::Send + Sync;

#[derive(Default)]
struct Book {
    active: BTreeMap<u64, ()>,
    answers: VecDeque<(u64, Arc<Vec<u8>>)>,
}

/// The agent's state.
pub(crate) struct Requests {
    book: Mutex<Book>,
    /// One message is written at a time.
    sending: Mutex<()>,
    send: Box<Send>,
    programs: Programs,
    frames: FrameProbes,
    captures: Captures,
    streams: StreamProbes,
}

impl Requests {
    pub(crate) fn new(
        send: impl Fn(&[u8]) -> io::Result<()> + std::marker::Send + Sync + 'static,
    ) -> Self {
        Self {
            book: Mutex::default(),
            sending: Mutex::new(()),
            send: Box::new(send),
            programs: Programs::default(),
            frames: FrameProbes::default(),
            captures: Captures::default(),
            streams: StreamProbes::default(),
        }
    }

    /// Takes a line of the lab; one that is no request is what is left of a cut one.
    pub(crate) fn take(self: &Arc<Self>, line: &[u8]) {
        let Ok(request) = serde_json::from_slice::<Request>(line) else {
            return;
        };
        let mut book = self.lock();
        if book.active.contains_key(&request.id) {
            return;
        }
        if let Some((_, answer)) = book.answers.iter().find(|(id, _)| *id == request.id) {
            let answer = Arc::clone(answer);
            drop(book);
            let requests = Arc::clone(self);
            std::thread::spawn(move || requests.send(&answer));
            return;
        }
        if book.active.len() >= ACTIVE_LIMIT {
            drop(book);
            self.answer(
                request.id,
                Err(anyhow::anyhow!("too many requests at once")),
            );
            return;
        }
        book.active.insert(request.id, ());
        drop(book);
        let requests = Arc::clone(self);
        std::thread::spawn(move || {
            let result = requests.perform(request.op);
            requests.answer(request.id, result);
        });
    }

    fn answer(&self, id: u64, result: Result<Reply>) {
        let outcome = match result {
            Ok(reply) => Outcome::Done(reply),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        let Ok(line) = to_line(&Response { id, outcome }) else {
            return;
        };
        let line = Arc::new(line);
        let mut book = self.lock();
        book.active.remove(&id);
        if book.answers.len() == ANSWER_LIMIT {
            book.answers.pop_front();
        }
        book.answers.push_back((id, Arc::clone(&line)));
        drop(book);
        self.send(&line);
    }

    /// A lab that is away asks again when it is back, so a failure needs nothing.
    fn send(&self, line: &[u8]) {
        let _one = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = (self.send)(line);
    }

    fn perform(&self, op: Op) -> Result<Reply> {
        match op {
            Op::Ping => Ok(Reply::Nothing),
            Op::Renew { seed, unix_ms } => renew::renew(&seed.0, unix_ms).map(|()| Reply::Nothing),
            Op::Run { argv, limit_ms } => {
                programs::run(&argv, Duration::from_millis(limit_ms)).map(Reply::Ran)
            }
            Op::Spawn { argv, log, env } => Ok(Reply::Spawned {
                pid: self.programs.spawn(&argv, &log, &env)?,
            }),
            Op::Wait { pid, limit_ms } => Ok(Reply::Ended(
                self.programs.wait(pid, Duration::from_millis(limit_ms))?,
            )),
            Op::Signal { pid, signal } => {
                self.programs.signal(pid, signal).map(|()| Reply::Nothing)
            }
            Op::WriteFile {
                path,
                offset,
                data,
                executable,
            } => {
                write_file(&path, offset, &data.0, executable)
                    .with_context(|| format!("cannot write {path}"))?;
                Ok(Reply::Nothing)
            }
            Op::ReadFile { path, offset } => {
                read_file(&path, offset).with_context(|| format!("cannot read {path}"))
            }
            Op::FramesStart(spec) => self.frames.start(spec).map(|()| Reply::Nothing),
            Op::FramesWait { probe, limit_ms } => self
                .frames
                .wait(probe, Duration::from_millis(limit_ms))
                .map(|()| Reply::Nothing),
            Op::FramesStop { probe } => self.frames.stop(probe).map(|()| Reply::Nothing),
            Op::FramesEnd { probe, log } => {
                let bytes = self.frames.end(probe)?.encode();
                fs::write(&log, bytes).with_context(|| format!("cannot write {log}"))?;
                Ok(Reply::Nothing)
            }
            Op::CaptureStart(spec) => self.captures.start(spec).map(|()| Reply::Nothing),
            Op::CaptureEnd { log } => {
                let bytes = self.captures.end()?.encode();
                fs::write(&log, bytes).with_context(|| format!("cannot write {log}"))?;
                Ok(Reply::Nothing)
            }
            Op::StreamStart(spec) => self.streams.start(spec).map(|()| Reply::Nothing),
            Op::StreamReport { probe, end } => self.streams.report(probe, end).map(Reply::Stream),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_file(path: &str, offset: u64, data: &[u8], executable: bool) -> Result<()> {
    if data.len() > DATA_LIMIT_BYTES {
        bail!("more than {DATA_LIMIT_BYTES} bytes at once");
    }
    if let Some(parent) = std::path::Path::new(path).parent() {
        fs::create_dir_all(parent)?;
    }
    let mode = if executable { 0o755 } else { 0o644 };
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(offset == 0)
        .mode(mode)
        .open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(data)?;
    Ok(())
}

fn read_file(path: &str, offset: u64) -> Result<Reply> {
    let mut file = File::open(path)?;
    // Files of /proc and /sys cannot seek to an offset they do not know, but the first part is at 0.
    if offset > 0 {
        file.seek(SeekFrom::Start(offset))?;
    }
    let mut data = Vec::new();
    file.take(DATA_LIMIT_BYTES as u64).read_to_end(&mut data)?;
    let end = data.len() < DATA_LIMIT_BYTES;
    Ok(Reply::Data {
        data: Hex(data),
        end,
    })
}
