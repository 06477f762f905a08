//! What the lab and its agent in the guest say to each other: one JSON object a line.
//!
//! A live migration can cut a line in two or lose an answer. So every message starts on a fresh line,
//! whatever does not parse is passed over, requests are sent again under the same id, and the agent
//! remembers its last answers.

use serde::{Deserialize, Serialize};

use crate::probe::capture::CaptureSpec;
use crate::probe::proto::{FrameSpec, StreamReport, StreamSpec};

/// The virtio-serial port of the lab's agent.
pub const PORT_NAME: &str = "org.tandem.lab.0";
/// The longest line either side takes, in bytes.
pub const LINE_LIMIT_BYTES: usize = 2 << 20;
/// The most data one message carries, in bytes, before it is written as hexadecimal.
pub const DATA_LIMIT_BYTES: usize = 256 << 10;

/// A request of the lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the lab; the answer carries it.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub op: Op,
}

/// What the lab can ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// Nothing but an answer.
    Ping,
    /// Makes a guest that goes on from a saved state one of its own.
    Renew {
        /// Mixed into the kernel's random numbers.
        seed: Hex,
        /// The wall clock's time, in ms since 1970.
        unix_ms: u64,
    },
    /// Runs a program to its end.
    Run {
        /// Program and arguments.
        argv: Vec<String>,
        /// After this time the program and its children are killed.
        limit_ms: u64,
    },
    /// Starts a program and leaves it running.
    Spawn {
        /// Program and arguments.
        argv: Vec<String>,
        /// The file both its outputs go to.
        log: String,
        /// Environment variables to set.
        env: Vec<(String, String)>,
    },
    /// Waits for a program started by `spawn`.
    Wait {
        /// Its process id.
        pid: u32,
        /// How long to wait at most.
        limit_ms: u64,
    },
    /// Sends a signal to a program started by `spawn`.
    Signal {
        /// Its process id.
        pid: u32,
        /// The signal's number.
        signal: i32,
    },
    /// Writes part of a file.
    WriteFile {
        /// Its path.
        path: String,
        /// Where the part begins, in bytes; 0 creates the file or empties it.
        offset: u64,
        /// The bytes.
        data: Hex,
        /// Whether the file may be executed.
        executable: bool,
    },
    /// Reads part of a file.
    ReadFile {
        /// Its path.
        path: String,
        /// Where the part begins, in bytes.
        offset: u64,
    },
    /// Begins one side of a frame probe.
    FramesStart(FrameSpec),
    /// Waits until a frame probe hears the other side and is heard by it.
    FramesWait {
        /// The probe.
        probe: u32,
        /// How long to wait at most.
        limit_ms: u64,
    },
    /// Stops the sending of a frame probe; it goes on receiving.
    FramesStop {
        /// The probe.
        probe: u32,
    },
    /// Ends a frame probe and writes its log, in the form of `probe::proto::SideLog`, to a file.
    FramesEnd {
        /// The probe.
        probe: u32,
        /// The file.
        log: String,
    },
    /// Begins to capture frames.
    CaptureStart(CaptureSpec),
    /// Ends that and writes what was captured, in the form of `probe::Capture`, to a file.
    CaptureEnd {
        /// The file.
        log: String,
    },
    /// Begins one end of a stream probe.
    StreamStart(StreamSpec),
    /// Tells how a stream probe fares.
    StreamReport {
        /// The probe.
        probe: u32,
        /// Whether this ends the probe.
        end: bool,
    },
}

impl Op {
    /// What it is about, in a line: for errors.
    pub fn title(&self) -> String {
        match self {
            Self::Ping => "ping".to_owned(),
            Self::Renew { .. } => "a clock and random numbers of its own".to_owned(),
            Self::Run { argv, .. } => format!("running `{}`", argv.join(" ")),
            Self::Spawn { argv, .. } => format!("starting `{}`", argv.join(" ")),
            Self::Wait { pid, .. } => format!("waiting for the program {pid}"),
            Self::Signal { pid, signal } => format!("sending signal {signal} to the program {pid}"),
            Self::WriteFile { path, .. } => format!("writing {path}"),
            Self::ReadFile { path, .. } => format!("reading {path}"),
            Self::FramesStart(_)
            | Self::FramesWait { .. }
            | Self::FramesStop { .. }
            | Self::FramesEnd { .. } => "the frame probe".to_owned(),
            Self::CaptureStart(_) | Self::CaptureEnd { .. } => "the capture".to_owned(),
            Self::StreamStart(_) | Self::StreamReport { .. } => "the stream probe".to_owned(),
        }
    }
}

/// An answer of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// The request's id.
    pub id: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Done(Reply),
    /// It failed, for the reason given.
    Failed(String),
}

/// The answer to a request that was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Nothing to tell.
    Nothing,
    /// Of `run`.
    Ran(RunResult),
    /// Of `spawn`.
    Spawned {
        /// The process id.
        pid: u32,
    },
    /// Of `wait`: how the program ended, or nothing if it still runs.
    Ended(Option<Exit>),
    /// Of `read-file`.
    Data {
        /// The bytes.
        data: Hex,
        /// Whether the file ends with them.
        end: bool,
    },
    /// Of `stream-report`.
    Stream(StreamReport),
}

/// What a program that ran to its end left behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: Hex,
    /// Its standard error.
    pub stderr: Hex,
    /// Whether output was left out because it was too long.
    pub truncated: bool,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// It was killed because its time was up.
    TimedOut,
}

/// Bytes, written as hexadecimal digits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(self.0.len() * 2);
        for byte in &self.0 {
            for digit in [byte >> 4, byte & 0xf] {
                text.push(char::from(DIGITS[usize::from(digit)]));
            }
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: u8| {
            char::from(byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let bytes = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        let bytes: Option<Vec<u8>> = bytes.collect();
        bytes
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("not hexadecimal bytes"))
    }
}

/// A message as it goes over the wire: on a line of its own even if the line before was cut off.
pub fn to_line(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = vec![b'\n'];
    serde_json::to_writer(&mut line, message)?;
    line.push(b'\n');
    Ok(line)
}

/// Splits a byte stream into lines, dropping empty ones and those beyond the limit.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    overlong: bool,
}

impl Lines {
    /// Takes bytes and hands each line that became complete to `each`.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for byte in bytes {
            if *byte != b'\n' {
                if self.partial.len() < LINE_LIMIT_BYTES {
                    self.partial.push(*byte);
                } else {
                    self.overlong = true;
                }
                continue;
            }
            if !self.overlong && !self.partial.is_empty() {
                each(&self.partial);
            }
            self.partial.clear();
            self.overlong = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_a_cut_line() {
        let request = Request {
            id: 7,
            op: Op::Run {
                argv: vec!["a\nb".into()],
                limit_ms: 5,
            },
        };
        let line = to_line(&request).unwrap();
        let mut stream = line[..9].to_vec();
        stream.extend(&line);
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        for piece in stream.chunks(3) {
            lines.push(piece, |line| {
                seen.push(serde_json::from_slice::<Request>(line).ok());
            });
        }
        assert_eq!(seen, [None, Some(request)]);
    }

    #[test]
    fn bytes_become_digits_and_back() {
        let hex = Hex(vec![0, 0x7f, 0xff]);
        let text = serde_json::to_string(&hex).unwrap();
        assert_eq!(text, "\"007fff\"");
        assert_eq!(serde_json::from_str::<Hex>(&text).unwrap(), hex);
        assert!(serde_json::from_str::<Hex>("\"0\"").is_err());
        assert!(serde_json::from_str::<Hex>("\"0g\"").is_err());
    }

    #[test]
    fn an_overlong_line_is_dropped_whole() {
        let mut lines = Lines::default();
        let mut seen = 0;
        lines.push(&vec![b'x'; LINE_LIMIT_BYTES + 5], |_| seen += 1);
        lines.push(b"\nok\n", |line| {
            assert_eq!(line, b"ok");
            seen += 1;
        });
        assert_eq!(seen, 1);
    }
}
