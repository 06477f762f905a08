//! The programs on a tap, and what they share with this process.

use aya::maps::{Array, MapData};
use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    tc::{SchedClassifierLink, TcAttachOptions},
};
use aya::{Ebpf, EbpfLoader};
use tandem_ebpf::{
    CARRY_BEAT, CARRY_CLOSED, CARRY_CLOSED_TO, CARRY_DRAIN, CARRY_EARLY, CARRY_GIVEN, CARRY_HELD,
    CARRY_HOLD, CARRY_HOLD_TAP, CARRY_LEASE_NS, CARRY_MODE, CARRY_PASSED,
};

use crate::error::KernelError;
use crate::hold_tap::HoldTap;

/// The programs, as they were built.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../helper-ebpf/tandem.bpf.o");
/// The map that both share.
const MAP: &str = "CARRY";

/// A process that has not said for so long that it works holds nothing, in ms.
pub const LEASE_MS: u64 = CARRY_LEASE_NS / 1_000_000;

/// What becomes of a frame for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is dropped: somebody else gets it.
    Closed,
    /// It is held.
    Hold,
    /// It passes, unless frames are held that have yet to be given back: then it is held behind them.
    Drain,
}

/// The programs on one tap. They go when this is dropped, or with the process.
pub struct Hold {
    words: Array<MapData, u64>,
    beat_ns: u64,
    _links: [SchedClassifierLink; 2],
}

impl Hold {
    /// Attaches the programs to a tap, in a first mode; `tap` takes the frames. After all other programs
    /// there: what they drop is not held.
    ///
    /// # Errors
    /// If the kernel refuses a part of it; nothing is left then.
    pub fn attach(device: &str, tap: &HoldTap, mode: Mode) -> Result<Self, KernelError> {
        let object_error = |error: &dyn std::error::Error| KernelError::Object(error.to_string());
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .load(OBJECT)
            .map_err(|error| object_error(&error))?;
        let map = ebpf
            .take_map(MAP)
            .ok_or_else(|| KernelError::Object(format!("it has no map {MAP}")))?;
        let mut words = Array::try_from(map).map_err(|error| object_error(&error))?;
        let beat_ns = monotonic_ns();
        let first = [
            (CARRY_HOLD_TAP, tap.ifindex()),
            (CARRY_MODE, mode.word()),
            (CARRY_BEAT, beat_ns),
        ];
        for (index, value) in first {
            words
                .set(index, value, 0)
                .map_err(|error| object_error(&error))?;
        }
        // The guest's first frame makes a closed tap hold.
        let ingress = attach(&mut ebpf, "carry_ingress", device, TcAttachType::Ingress)?;
        let egress = attach(&mut ebpf, "carry_egress", device, TcAttachType::Egress)?;
        Ok(Self {
            words,
            beat_ns,
            _links: [ingress, egress],
        })
    }

    /// Changes the mode.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn set_mode(&mut self, mode: Mode) -> Result<(), KernelError> {
        self.set(CARRY_MODE, mode.word())
    }

    /// This process works: without that, at least every [`tandem_ebpf::CARRY_BEAT_NS`], all frames pass after a while. True if
    /// some may have passed so since the last time.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn beat(&mut self) -> Result<bool, KernelError> {
        let now_ns = monotonic_ns();
        self.set(CARRY_BEAT, now_ns)?;
        let lapsed = now_ns.saturating_sub(self.beat_ns) > CARRY_LEASE_NS;
        self.beat_ns = now_ns;
        Ok(lapsed)
    }

    /// Tells how many of the held frames this process is done with. In [`Mode::Drain`] the tap is open once they are all.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn set_given(&mut self, frames: u64) -> Result<(), KernelError> {
        self.set(CARRY_GIVEN, frames)
    }

    /// How many frames were held.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn held(&self) -> Result<u64, KernelError> {
        self.get(CARRY_HELD)
    }

    /// How many frames were held when the guest's first one left; `None` before that.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn early(&self) -> Result<Option<u64>, KernelError> {
        Ok(self.get(CARRY_EARLY)?.checked_sub(1))
    }

    /// How many frames the closed tap has dropped.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn closed_to(&self) -> Result<u64, KernelError> {
        self.get(CARRY_CLOSED_TO)
    }

    /// How many frames have passed into the tap's queue.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn passed(&self) -> Result<u64, KernelError> {
        self.get(CARRY_PASSED)
    }

    fn set(&mut self, index: u32, value: u64) -> Result<(), KernelError> {
        let set = self.words.set(index, value, 0);
        set.map_err(|error| KernelError::Object(error.to_string()))
    }

    fn get(&self, index: u32) -> Result<u64, KernelError> {
        let word = self.words.get(&index, 0);
        word.map_err(|error| KernelError::Object(error.to_string()))
    }
}

/// The clock of `bpf_ktime_get_ns`.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let at = u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000;
    at + u64::try_from(now.tv_nsec).unwrap_or(0)
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

impl Mode {
    const fn word(self) -> u64 {
        match self {
            Self::Closed => CARRY_CLOSED,
            Self::Hold => CARRY_HOLD,
            Self::Drain => CARRY_DRAIN,
        }
    }
}

fn attach(
    ebpf: &mut Ebpf,
    program: &'static str,
    device: &str,
    direction: TcAttachType,
) -> Result<SchedClassifierLink, KernelError> {
    let refused = |reason: String| KernelError::Attach {
        program,
        device: device.to_owned(),
        reason,
    };
    let found = ebpf.program_mut(program);
    let found = found.ok_or_else(|| refused("it is not part of the object".to_owned()))?;
    let classifier: &mut SchedClassifier = found
        .try_into()
        .map_err(|error: aya::programs::ProgramError| refused(error.to_string()))?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::last());
    let attached = classifier
        .load()
        .and_then(|()| classifier.attach_with_options(device, direction, options))
        .and_then(|id| classifier.take_link(id));
    attached.map_err(|error| refused(error.to_string()))
}
