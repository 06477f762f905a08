//! A move between two plain QEMUs by `tandem-host`, with the guest's frames carried: both halves in the hosts' namespaces.

mod disturb;
mod moves;
mod stage;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::libvirt::{EVACUATION_LIMIT, host_program, tandem_host_of};
use crate::qemu::named_with_control;
use crate::{DOWNTIME_LIMIT_MS, Host, Vm, Waiting};

pub use disturb::{Disturbance, Side, When};
pub use moves::{Move, Moved};
pub use stage::Stage;

/// The name of the domain in both QEMUs.
pub const CARRIED: &str = "g1";
/// Bytes per second that don't matter.
const BANDWIDTH: u64 = 10 << 30;

/// A move that stands ready.
pub struct CarriedMove {
    /// The QEMU that the guest goes to.
    pub waiting: Waiting,
    /// Its control socket for `tandem-host`.
    pub qmp: PathBuf,
    /// What `tandem-host` is to be called with.
    pub words: Vec<String>,
}

impl CarriedMove {
    /// To `there`, for a guest whose QEMU has the control socket `from`; files of this move are in `folder` and begin with its
    /// `number`.
    ///
    /// # Errors
    /// The destination does not start, or the guest has no standby.
    pub fn new(vm: &Vm, from: &Path, there: &Host, folder: &Path, number: usize) -> Result<Self> {
        Self::able_to(&[], vm, from, there, folder, number)
    }

    /// The same, with capabilities of QEMU's migration that it takes on both sides.
    fn able_to(
        capabilities: &[&str],
        vm: &Vm,
        from: &Path,
        there: &Host,
        folder: &Path,
        number: usize,
    ) -> Result<Self> {
        let file = |what: &str| folder.join(format!("{number}.{what}"));
        let (qmp, memory) = (file("qmp"), file("memory"));
        let control = named_with_control(CARRIED, &qmp);
        let waiting = vm.wait_able_to(capabilities, there, "none", &memory, control)?;
        let parameters = json!({ "downtime-limit": DOWNTIME_LIMIT_MS, "max-bandwidth": BANDWIDTH });
        vm.qmp().execute("migrate-set-parameters", parameters)?;
        let words = [
            "migrate",
            CARRIED,
            &uri_of(&qmp),
            "-c",
            &uri_of(from),
            "--migrate-uri",
            &format!("unix:{}", memory.display()),
            "--state-dir",
            &file("state").display().to_string(),
            "--records-dir",
            &file("records").display().to_string(),
            "--serve-socket",
            &file("serve").display().to_string(),
            "--json",
        ];
        Ok(Self {
            waiting,
            qmp,
            words: words.map(str::to_owned).to_vec(),
        })
    }

    /// The words that have the frames carried.
    ///
    /// # Errors
    /// `tandem-host` is not built, or the guest has no standby.
    pub fn carry(&mut self, vm: &Vm, there: &Host) -> Result<()> {
        let program = host_program()?.display().to_string();
        let [from, to] = [vm.host(), there].map(|host| {
            let namespace = host.namespace().name();
            format!("ip netns exec {namespace} {program}")
        });
        let taps = [vm.tap("standby")?, self.waiting.tap("standby")?].join("=");
        let pause = DOWNTIME_LIMIT_MS.to_string();
        let words = [
            &format!("--carry={taps}"),
            "--carry-from",
            &from,
            "--carry-to",
            &to,
            "--max-pause",
            &pause,
        ];
        self.words.extend(words.map(str::to_owned));
        Ok(())
    }

    /// Has that half started by a command before its own.
    fn wrap(&mut self, side: Side, command: &str) -> Result<()> {
        let option = match side {
            Side::Source => "--carry-from",
            Side::Destination => "--carry-to",
        };
        let at = self.words.iter().position(|word| word == option);
        let at = at.with_context(|| format!("no {option}"))? + 1;
        self.words[at] = format!("{command} {}", self.words[at]);
        Ok(())
    }

    /// Moves the guest; gives the control socket of the QEMU that it is in now, and what is reported of the carry.
    ///
    /// # Errors
    /// It does not move.
    pub fn run(self, vm: &mut Vm) -> Result<(PathBuf, Value)> {
        let words: Vec<_> = self.words.iter().map(String::as_str).collect();
        let ran = tandem_host_of(&host_program()?, &words, EVACUATION_LIMIT)?;
        ensure!(ran.code == Some(0), "{ran:#?}");
        vm.arrived(self.waiting)?.quit()?;
        let carry = ran.json()?["carry"].take();
        Ok((self.qmp, carry))
    }
}

/// How `tandem-host` is told of a QEMU by its control socket.
pub fn uri_of(qmp: &Path) -> String {
    format!("qmp:{}", qmp.display())
}
