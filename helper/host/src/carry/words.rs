//! What this program and a half say to each other.

use std::os::unix::fs::MetadataExt;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::chunk::Chunk;

/// To a half: what the hypervisor shows, and when to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ToHalf {
    /// Little memory is left: hold, and have the guest stopped.
    HoldWanted,
    /// The hypervisor refused the stop.
    StopRefused,
    /// The guest stands still on the source.
    GuestStopped,
    /// The guest won't run on the source again.
    MigrationCompleted,
    /// The migration failed or was cancelled.
    MigrationFailed,
    /// The answer to [`FromHalf::AskGuest`], unless another word is: the guest is still coming in.
    GuestIncoming,
    /// The guest has arrived on the destination, and stands still there.
    GuestPaused,
    /// The guest runs, on the half's side.
    GuestRuns,
    /// The other half's process is dead, and had not ended the stream. To the destination only once the guest stands still.
    OtherHalfDied,
}

/// Of a half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FromHalf {
    /// First: which process it is.
    Process(ProcessId),
    /// It guards its tap.
    Ready,
    /// The source: the other half understands it.
    Agreed,
    /// How is the guest on this side? To the destination an answer is owed before it is [`FromHalf::Ready`].
    AskGuest,
    /// Stop the guest on this side.
    StopGuest,
    /// Have the guest run on this side.
    ResumeGuest,
    /// It is over.
    Ended(HalfReport),
    /// There was no beginning, for this reason.
    Failed(String),
}

/// A process, on whatever machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ProcessId {
    /// In its namespace.
    pid: u32,
    /// The machine's boot.
    boot: String,
    /// The inode of its network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<u64>,
}

impl ProcessId {
    /// Of this machine.
    pub(super) fn here(pid: u32) -> std::io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let boot = boot.trim().to_owned();
        let network = std::fs::metadata(format!("/proc/{pid}/ns/net"));
        let network = network.ok().map(|namespace| namespace.ino());
        Ok(Self { pid, boot, network })
    }

    /// True for one process. It may enter another network before it says so.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.pid, &self.boot) == (other.pid, &other.boot)
    }

    /// True if both have the same network devices, as far as both tell.
    pub(super) fn shares_network(&self, other: &Self) -> bool {
        self.network.is_some() && (&self.boot, self.network) == (&other.boot, other.network)
    }
}

/// What became of one half's frames.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct HalfReport {
    /// Why it ended early.
    pub(super) cause: Option<String>,
    /// Frames that were held here.
    pub(super) held: u64,
    /// That were sent to the other half, or came from it.
    pub(super) carried: u64,
    /// Of these, that the other half says the guest was given.
    pub(super) confirmed: u64,
    /// The destination: of the carried, that it left to the source, which may have given them.
    pub(super) left_carried: u64,
    /// That were given back to the guest on the source.
    pub(super) given_back: u64,
    /// That were given to the network, for want of the other half.
    pub(super) forwarded: u64,
    /// That were lost: no more may be kept, or nobody took them.
    pub(super) lost: u64,
    /// Not among those that were held: lost in the tap's queue by the guest's stop.
    pub(super) left_in_queue: u64,
    /// Among those that were held: read from the tap's queue after the guest's stop.
    pub(super) swept: u64,
    /// Nobody can tell whether so many more were lost: the queue was not seen empty before the stop.
    pub(super) unseen: u64,
    /// The destination: taken from its tap's queue before the guest came, as they had come to the source too.
    pub(super) emptied: u64,
    /// Why the queue can't be swept, or emptied.
    pub(super) no_copy: Option<String>,
    /// From the hold until the guest's stop was ordered, in ms.
    pub(super) drain_ms: Option<u64>,
    /// Of the carried, that came after native ones had been given to the guest: out of order.
    pub(super) late: u64,
    /// The longest that one of the carried waited here, in ms.
    pub(super) longest_wait_ms: u64,
    /// The most bytes of frames that were kept at once.
    pub(super) most_bytes: u64,
}

/// As a chunk.
pub(super) fn to_chunk(word: &impl Serialize) -> Chunk {
    // Enums and numbers: nothing that JSON can't say.
    Chunk::Word(serde_json::to_vec(word).unwrap_or_default())
}

/// What was said; `None` if a newer version has said what this one does not know, which changes nothing.
///
/// # Errors
/// It is no JSON at all.
pub(super) fn word_of<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, serde_json::Error> {
    match serde_json::from_slice(bytes) {
        Ok(word) => Ok(Some(word)),
        Err(_) => serde_json::from_slice::<IgnoredAny>(bytes).map(|_| None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The name of a word.
    fn name(word: &Value) -> String {
        let of_object = || {
            word.as_object()
                .and_then(|object| object.keys().next().cloned())
        };
        word.as_str().map(str::to_owned).or_else(of_object).unwrap()
    }

    #[test]
    fn words_of_earlier_versions_are_understood() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/frozen");
        let mut names = std::collections::BTreeSet::new();
        for version in std::fs::read_dir(folder).unwrap() {
            let file = version.unwrap().path().join("carry-words.jsonl");
            for line in std::fs::read_to_string(file).unwrap().lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                let bytes = |word: &Value| serde_json::to_vec(word).unwrap();
                let again = if let Some(word) = line.get("to-half") {
                    names.insert(format!("to {}", name(word)));
                    let word: ToHalf = word_of(&bytes(word)).unwrap().unwrap();
                    serde_json::json!({ "to-half": word })
                } else {
                    names.insert(format!("from {}", name(&line["from-half"])));
                    let word: FromHalf = word_of(&bytes(&line["from-half"])).unwrap().unwrap();
                    serde_json::json!({ "from-half": word })
                };
                assert_eq!(again, line);
            }
        }
        assert_eq!(names.len(), 17, "each word has its sample: {names:?}");
    }

    #[test]
    fn a_report_of_an_older_half_lacks_what_it_does_not_know() {
        let word = word_of::<FromHalf>(br#"{"ended":{"carried":3,"newer":true}}"#).unwrap();
        let Some(FromHalf::Ended(report)) = word else {
            panic!("{word:?}");
        };
        assert_eq!((report.carried, report.left_carried), (3, 0));
    }
}
