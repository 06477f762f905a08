//! Both halves' processes, and what passes between them.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::chunk::{Chunk, Chunks, MAX_BYTES};
use super::words::{FromHalf, ToHalf, to_chunk};

/// Chunks on their way to a half, and words of one.
const QUEUE: usize = 32;

/// One half, as this program sees it.
#[derive(Debug)]
pub(super) struct HalfProcess {
    to: Sender<Chunk>,
    /// Its words; ends with it.
    pub(super) told: Receiver<FromHalf>,
    pub(super) gone: bool,
}

impl HalfProcess {
    /// Tells it something. One that is gone is noticed by the end of its words.
    pub(super) async fn tell(&self, word: ToHalf) {
        let _ = self.to.send(to_chunk(&word)).await;
    }
}

/// Starts both; each ends once this program does not hold it any more.
///
/// # Errors
/// Which command can't be started, and why.
pub(super) fn start(commands: [Vec<String>; 2]) -> Result<[HalfProcess; 2], String> {
    let mut started = Vec::new();
    for words in &commands {
        started.push(spawn(words)?);
    }
    let mut halves = Vec::new();
    let mut readers = Vec::new();
    for mut child in started {
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a half has no standard streams".to_owned());
        };
        let (to, chunks) = channel(QUEUE);
        let (tell, told) = channel(QUEUE);
        tokio::spawn(write(input, chunks));
        readers.push((child, output, tell));
        halves.push(HalfProcess {
            to,
            told,
            gone: false,
        });
    }
    let Ok([source, destination]) = <[HalfProcess; 2]>::try_from(halves) else {
        return Err("a carry has two halves".to_owned());
    };
    let others = [destination.to.downgrade(), source.to.downgrade()];
    for ((child, output, tell), other) in readers.into_iter().zip(others) {
        tokio::spawn(async move {
            read(output, &tell, |chunk| {
                let other = other.upgrade();
                async move {
                    if let Some(other) = other {
                        let _ = other.send(chunk).await;
                    }
                }
            })
            .await;
            drop(tell);
            reap(child).await;
        });
    }
    Ok([source, destination])
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

/// Until its end, or what is no chunk. The other half sees the stream's end in any case.
async fn read<F: Future<Output = ()>>(
    mut output: ChildStdout,
    tell: &Sender<FromHalf>,
    hand_on: impl Fn(Chunk) -> F,
) {
    let mut chunks = Chunks::default();
    let mut buffer = vec![0; MAX_BYTES];
    'reading: while let Ok(bytes @ 1..) = output.read(&mut buffer).await {
        let mut rest = &buffer[..bytes];
        loop {
            match chunks.next(&mut rest) {
                Ok(Some(Chunk::Word(word))) => match serde_json::from_slice(&word) {
                    Ok(word) => {
                        let _ = tell.send(word).await;
                    }
                    Err(_) => break 'reading,
                },
                Ok(Some(chunk)) => hand_on(chunk).await,
                Ok(None) => break,
                Err(_) => break 'reading,
            }
        }
    }
    hand_on(Chunk::Stream(Vec::new())).await;
}
