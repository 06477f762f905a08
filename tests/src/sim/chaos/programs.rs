//! When the fast-path programs are there.

use tandem_core::Input;

use super::Chaos;
use crate::sim::fake::{Flow, Path};

impl Chaos {
    /// The fast-path programs are loaded late, or fail one day.
    pub(super) fn paths_come_or_go(&mut self) -> bool {
        let supported = self.rng.chance(700);
        let before = self.stage.fast_paths.supported;
        self.stage.support_fast_path(supported);
        before != supported
    }

    /// Somebody attaches a program before the fast path's, or takes it off.
    pub(super) fn others_program(&mut self) -> bool {
        let first = &mut self.stage.fast_paths.others_come_first;
        *first = !*first;
        true
    }

    /// A path dies, in one direction or both, or works again; and what flows changes.
    pub(super) fn path_or_flow(&mut self) -> bool {
        let flow = Flow {
            sent_per_s: self.rng.pick(&[0, 1, 1_000]).copied().unwrap_or(0),
            has_neighbour: self.rng.chance(800),
        };
        let of_vf = self.rng.chance(800);
        let nic = if of_vf { self.vf } else { self.standby };
        let whole = self.rng.chance(500);
        let path = Path {
            out: whole || self.rng.chance(300),
            back: whole || self.rng.chance(300),
            learnt: whole || self.rng.chance(700),
            guarded: self.rng.chance(200),
        };
        let before = nic.and_then(|nic| self.stage.kernel.path(nic));
        self.stage.change(|kernel| {
            kernel.flow = flow;
            if let Some(nic) = nic {
                kernel.set_path(nic, path);
            }
        });
        before.is_some_and(|before| before != path)
    }

    /// The fast-path programs take their time to be loaded, and mostly not that long.
    pub(super) fn load_programs(&mut self) {
        self.note("FastPathsLoading");
        let supported = self.stage.fast_paths.supported;
        self.stage.feed(Input::FastPathsLoading);
        let longest_ms = if self.rng.chance(800) { 5_000 } else { 60_000 };
        let loading_ms = self.rng.below(longest_ms);
        self.stage.run_ms(loading_ms);
        self.stage.support_fast_path(supported);
    }
}
