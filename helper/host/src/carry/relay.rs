//! Both halves' processes, and what passes between them.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::{Receiver, Sender, WeakSender, channel};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::chunk::{Chunk, Chunks, MAX_BYTES};
use super::words::{FromHalf, ProcessId, ToHalf, to_chunk, word_of};

/// Chunks on their way to a half, and words of one.
const QUEUE: usize = 32;
/// A process that has closed its standard output ends so soon, or its death is not known of.
const REAP: Duration = Duration::from_secs(2);
/// A half that takes no word for so long is left to itself.
const TELL: Duration = Duration::from_secs(1);
/// One that takes nothing of the stream for so long gets nothing more of it: its other half's words come over the same pipe.
const HAND_ON: Duration = Duration::from_secs(5);

/// One half, as this program sees it.
#[derive(Debug)]
pub(super) struct HalfProcess {
    /// `None` once it took nothing for too long.
    to: Option<Sender<Chunk>>,
    writer: AbortHandle,
    /// Its words; ends with it.
    pub(super) told: Receiver<FromHalf>,
    pub(super) gone: bool,
    died: Arc<AtomicBool>,
    process: Arc<OnceLock<ProcessId>>,
}

impl HalfProcess {
    /// True if its process is dead for certain, and had not ended the stream itself. Known once its words have ended.
    pub(super) fn died(&self) -> bool {
        self.died.load(Ordering::Acquire)
    }

    /// True if it is there and takes no words.
    pub(super) const fn is_stuck(&self) -> bool {
        self.to.is_none() && !self.gone
    }

    /// Which process it says it is.
    pub(super) fn process(&self) -> Option<&ProcessId> {
        self.process.get()
    }

    /// Nothing follows from the other half.
    pub(super) async fn end_stream(&mut self) {
        self.send(Chunk::Stream(Vec::new())).await;
    }

    /// Tells it something. One that is gone is noticed by the end of its words.
    pub(super) async fn tell(&mut self, word: ToHalf) {
        self.send(to_chunk(&word)).await;
    }

    /// There is none.
    pub(super) fn none() -> Self {
        Self {
            to: None,
            writer: tokio::spawn(async {}).abort_handle(),
            told: channel(1).1,
            gone: true,
            died: Arc::default(),
            process: Arc::default(),
        }
    }

    async fn send(&mut self, chunk: Chunk) {
        let Some(to) = &self.to else { return };
        if timeout(TELL, to.send(chunk)).await.is_err() {
            // It sees the end of its input if it ever reads again, and looks after itself.
            self.to = None;
            self.writer.abort();
        }
    }
}

#[cfg(test)]
impl HalfProcess {
    /// One that is no process: what it is told, and what says its words.
    pub(super) fn fake() -> (Self, Receiver<Chunk>, Sender<FromHalf>) {
        let (to, chunks) = channel(QUEUE);
        let (tell, told) = channel(QUEUE);
        let half = Self {
            to: Some(to),
            writer: tokio::spawn(async {}).abort_handle(),
            told,
            gone: false,
            died: Arc::default(),
            process: Arc::default(),
        };
        (half, chunks, tell)
    }

    /// It takes nothing more.
    pub(super) fn fill(&self) {
        let to = self.to.as_ref().unwrap();
        while to.try_send(Chunk::Word(Vec::new())).is_ok() {}
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
    let to = [&source, &destination].map(Started::input);
    let [to_source, to_destination] = to;
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
        let half = HalfProcess {
            to: Some(to),
            writer: tokio::spawn(write(input, chunks)).abort_handle(),
            told,
            gone: false,
            died: Arc::default(),
            process: Arc::default(),
        };
        Ok(Self {
            half,
            child,
            output,
            tell,
        })
    }

    /// What is for it goes here, as long as it is held.
    fn input(&self) -> Option<WeakSender<Chunk>> {
        self.half.to.as_ref().map(Sender::downgrade)
    }

    /// Its part of the stream goes to the other half, if there is one.
    fn read(self, other: Option<WeakSender<Chunk>>) -> HalfProcess {
        let own = self.input();
        let Self {
            half,
            mut child,
            output,
            tell,
        } = self;
        let died = Arc::clone(&half.died);
        let told_process = Arc::clone(&half.process);
        tokio::spawn(async move {
            // The process itself, or what started it: how that ends proves nothing, as it may have lost its connection.
            let started = child.id().and_then(|pid| ProcessId::here(pid).ok());
            let path = Path { own, other };
            let read = read(output, &tell, path, &told_process).await;
            let is_it = |process: &ProcessId| {
                started
                    .as_ref()
                    .is_some_and(|started| process.is_same(started))
            };
            if read.is_cut_off
                && told_process.get().is_some_and(is_it)
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

/// The stream's way from one half to the other.
struct Path {
    own: Option<WeakSender<Chunk>>,
    /// `None` once nothing goes there any more.
    other: Option<WeakSender<Chunk>>,
}

impl Path {
    /// What the other half does not take would keep this one's words waiting behind it: both are told then that the stream is over.
    async fn hand_on(&mut self, chunk: Chunk, within: Duration) {
        let Some(other) = self.other.as_ref().and_then(WeakSender::upgrade) else {
            return;
        };
        if timeout(within, other.send(chunk)).await.is_err() {
            self.other = None;
            let own = self.own.take().and_then(|own| own.upgrade());
            for to in own.into_iter().chain([other]) {
                // No longer than it may take until it is known to be gone.
                let end = async move { to.send(Chunk::Stream(Vec::new())).await };
                tokio::spawn(timeout(HAND_ON, end));
            }
        }
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
        // A terminal's interrupt is for this process, which then undoes all in order.
        .process_group(0)
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
    /// It ended before it had ended the stream.
    is_cut_off: bool,
}

/// Until its end, or what is no chunk. The stream's end is handed on if the half says it.
async fn read(
    mut output: ChildStdout,
    tell: &Sender<FromHalf>,
    mut path: Path,
    process: &OnceLock<ProcessId>,
) -> Read {
    let mut read = Read { is_cut_off: true };
    let mut chunks = Chunks::default();
    let mut buffer = vec![0; MAX_BYTES];
    'reading: while let Ok(bytes @ 1..) = output.read(&mut buffer).await {
        let mut rest = &buffer[..bytes];
        loop {
            match chunks.next(&mut rest) {
                Ok(Some(Chunk::Word(word))) => match word_of(&word) {
                    Ok(Some(FromHalf::Process(told))) => {
                        // The first counts.
                        let _ = process.set(told);
                    }
                    Ok(Some(word)) => {
                        let _ = tell.send(word).await;
                    }
                    Ok(None) => {}
                    Err(_) => {
                        read.is_cut_off = false;
                        break 'reading;
                    }
                },
                Ok(Some(chunk)) => {
                    read.is_cut_off &= chunk != Chunk::Stream(Vec::new());
                    path.hand_on(chunk, HAND_ON).await;
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

    /// What a shell writes as a word.
    fn word(json: &str) -> String {
        format!(
            r#"word='{json}'; printf "\\002\\000\\000\\000\\$(printf %o ${{#word}})%s" "$word";"#
        )
    }

    #[tokio::test]
    async fn a_newer_halfs_word_is_passed_over() {
        let script = word(r#"{"not-yet-known":{"a":[1]}}"#) + &word(r#""ready""#);
        let mut half = start_alone(&["sh", "-c", &script].map(str::to_owned)).unwrap();
        assert_eq!(half.told.recv().await, Some(FromHalf::Ready));
        let script = word("no json") + &word(r#""ready""#);
        let mut half = start_alone(&["sh", "-c", &script].map(str::to_owned)).unwrap();
        assert_eq!(half.told.recv().await, None);
    }

    /// More of the stream than all queues on its way take, to a half that reads nothing, and a word behind it.
    #[tokio::test]
    async fn a_half_that_reads_nothing_keeps_no_word_of_the_other_one() {
        let chunks =
            r"for i in $(seq 96); do printf '\001\000\001\000\000'; head -c 65536 /dev/zero; done;";
        let script = chunks.to_owned() + &word(r#""resume-guest""#) + "cat >/dev/null";
        let source = ["sh", "-c", &script].map(str::to_owned).to_vec();
        let destination = ["sleep", "60"].map(str::to_owned).to_vec();
        let [mut source, destination] = start([source, destination]).unwrap();
        let told = timeout(HAND_ON * 4, source.told.recv()).await;
        assert_eq!(told, Ok(Some(FromHalf::ResumeGuest)));
        drop(destination);
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_that_takes_no_word_keeps_nobody_waiting() {
        let (mut half, chunks, _tell) = HalfProcess::fake();
        let begun = tokio::time::Instant::now();
        for _ in 0..2 * QUEUE {
            half.tell(ToHalf::GuestRuns).await;
        }
        assert!(half.is_stuck());
        assert_eq!(begun.elapsed(), TELL);
        drop(chunks);
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
