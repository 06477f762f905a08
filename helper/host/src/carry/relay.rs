//! Both halves' processes, and what passes between them.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::{Receiver, Sender, WeakSender, channel};
use tokio::time::timeout;

use super::chunk::{Chunk, Chunks, MAX_BYTES};
use super::words::{FromHalf, ProcessId, ToHalf, to_chunk};

/// Chunks on their way to a half, and words of one.
const QUEUE: usize = 32;
/// A process that has closed its standard output ends so soon, or its death is not known of.
const REAP: Duration = Duration::from_secs(2);

/// One half, as this program sees it.
#[derive(Debug)]
pub(super) struct HalfProcess {
    to: Sender<Chunk>,
    /// Its words; ends with it.
    pub(super) told: Receiver<FromHalf>,
    pub(super) gone: bool,
    died: Arc<AtomicBool>,
}

impl HalfProcess {
    /// True if its process is dead for certain, and had not ended the stream itself. Known once its words have ended.
    pub(super) fn died(&self) -> bool {
        self.died.load(Ordering::Acquire)
    }

    /// Nothing follows from the other half.
    pub(super) async fn end_stream(&self) {
        let _ = self.to.send(Chunk::Stream(Vec::new())).await;
    }

    /// Tells it something. One that is gone is noticed by the end of its words.
    pub(super) async fn tell(&self, word: ToHalf) {
        let _ = self.to.send(to_chunk(&word)).await;
    }
}

/// A half that was started, and from which nothing is read yet.
struct Started {
    half: HalfProcess,
    child: Child,
    output: ChildStdout,
    tell: Sender<FromHalf>,
}

/// Starts both; each ends once this program does not hold it any more.
///
/// # Errors
/// Which command can't be started, and why.
pub(super) fn start([source, destination]: [Vec<String>; 2]) -> Result<[HalfProcess; 2], String> {
    let (source, destination) = (Started::new(&source)?, Started::new(&destination)?);
    let to = [&source, &destination].map(|started| started.half.to.downgrade());
    let [to_source, to_destination] = to.map(Some);
    Ok([source.read(to_destination), destination.read(to_source)])
}

/// Starts one that has no other half.
///
/// # Errors
/// The command can't be started, and why.
pub(super) fn start_alone(command: &[String]) -> Result<HalfProcess, String> {
    Ok(Started::new(command)?.read(None))
}

impl Started {
    fn new(command: &[String]) -> Result<Self, String> {
        let mut child = spawn(command)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a half has no standard streams".to_owned());
        };
        let (to, chunks) = channel(QUEUE);
        let (tell, told) = channel(QUEUE);
        tokio::spawn(write(input, chunks));
        let half = HalfProcess {
            to,
            told,
            gone: false,
            died: Arc::default(),
        };
        Ok(Self {
            half,
            child,
            output,
            tell,
        })
    }

    /// Its part of the stream goes to the other half, if there is one.
    fn read(self, other: Option<WeakSender<Chunk>>) -> HalfProcess {
        let Self {
            half,
            mut child,
            output,
            tell,
        } = self;
        let died = Arc::clone(&half.died);
        tokio::spawn(async move {
            // The process itself, or what started it: how that ends proves nothing, as it may have lost its connection.
            let started = child.id().and_then(|pid| ProcessId::here(pid).ok());
            let read = read(output, &tell, |chunk| {
                let other = other.as_ref().and_then(WeakSender::upgrade);
                async move {
                    if let Some(other) = other {
                        let _ = other.send(chunk).await;
                    }
                }
            })
            .await;
            if read.is_cut_off
                && started.is_some()
                && read.process == started
                && let Ok(Ok(_)) = timeout(REAP, child.wait()).await
            {
                died.store(true, Ordering::Release);
            }
            drop(tell);
            reap(child).await;
        });
        half
    }
}

fn spawn(words: &[String]) -> Result<Child, String> {
    let [program, arguments @ ..] = words else {
        return Err("no command is given for a half".to_owned());
    };
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program} can't be started: {error}"))
}

async fn reap(mut child: Child) {
    // What it had to say it said.
    let _ = child.wait().await;
}

async fn write(mut input: ChildStdin, mut chunks: Receiver<Chunk>) {
    while let Some(chunk) = chunks.recv().await {
        if input.write_all(&chunk.to_bytes()).await.is_err() {
            // The rest is for nobody; whoever sends sees the end of the words.
            return;
        }
    }
}

/// What was read of a half.
#[derive(Debug, Default)]
struct Read {
    process: Option<ProcessId>,
    /// It ended before it had ended the stream.
    is_cut_off: bool,
}

/// Until its end, or what is no chunk. The stream's end is handed on if the half says it.
async fn read<F: Future<Output = ()>>(
    mut output: ChildStdout,
    tell: &Sender<FromHalf>,
    hand_on: impl Fn(Chunk) -> F,
) -> Read {
    let mut read = Read {
        process: None,
        is_cut_off: true,
    };
    let mut chunks = Chunks::default();
    let mut buffer = vec![0; MAX_BYTES];
    'reading: while let Ok(bytes @ 1..) = output.read(&mut buffer).await {
        let mut rest = &buffer[..bytes];
        loop {
            match chunks.next(&mut rest) {
                Ok(Some(Chunk::Word(word))) => match serde_json::from_slice(&word) {
                    Ok(FromHalf::Process(process)) => read.process = Some(process),
                    Ok(word) => {
                        let _ = tell.send(word).await;
                    }
                    Err(_) => {
                        read.is_cut_off = false;
                        break 'reading;
                    }
                },
                Ok(Some(chunk)) => {
                    read.is_cut_off &= chunk != Chunk::Stream(Vec::new());
                    hand_on(chunk).await;
                }
                Ok(None) => break,
                Err(_) => {
                    read.is_cut_off = false;
                    break 'reading;
                }
            }
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it is once its words have ended.
    async fn ended(script: &str) -> HalfProcess {
        let command = ["sh", "-c", script].map(str::to_owned);
        let mut half = start_alone(&command).unwrap();
        while half.told.recv().await.is_some() {}
        half
    }

    /// A shell's words that say, as a half does first, which process it is: itself, or another one.
    fn tells_process(pid: &str) -> String {
        format!(
            r#"word="{{\"process\":{{\"pid\":{pid},\"boot\":\"$(cat /proc/sys/kernel/random/boot_id)\"}}}}"
            printf "\\002\\000\\000\\000\\$(printf %o ${{#word}})%s" "$word"
            "#
        )
    }

    #[tokio::test]
    async fn a_half_that_was_killed_is_dead() {
        let killed = tells_process("$$") + "kill -9 $$";
        assert!(ended(&killed).await.died());
    }

    #[tokio::test]
    async fn how_a_wrapper_ends_tells_nothing_of_its_half() {
        let elsewhere = tells_process("1");
        for end in ["exit 255", "exit 1", "exit 137", "kill -9 $$"] {
            let wrapper = format!("{elsewhere}{end}");
            assert!(!ended(&wrapper).await.died(), "{end}");
        }
        assert!(!ended("exit 1").await.died(), "it never said anything");
    }
}
