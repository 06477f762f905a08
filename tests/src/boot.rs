//! How a guest comes up: it boots, or goes on from the state that another one like it had when it had booted.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::agent::Agent;
use crate::agent::proto::{Hex, Op};
use crate::command;
use crate::lab::Inner;
use crate::net::Host;
use crate::qemu::{Accelerator, Console, MachineSpec, Qemu, Start};
use crate::saved_state::SavedState;
use crate::vm::{GuestImage, start};

/// How often the console is looked at for silence while the guest boots.
const BOOT_STEP: Duration = Duration::from_secs(5);
/// A guest that goes on from a saved state answers at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// So many random bytes a guest gets that goes on from a saved state.
const SEED_BYTES: usize = 64;

/// A guest whose agent has answered.
pub(crate) struct Up {
    pub(crate) qemu: Qemu,
    pub(crate) agent: Agent,
    pub(crate) from_saved_state: bool,
}

/// Brings a guest up in whichever way is shorter.
pub(crate) fn bring_up(
    lab: &Inner,
    host: &Host,
    spec: &mut MachineSpec,
    image: &GuestImage,
) -> Result<Up> {
    let state = match image.reusable && spec.extra_arguments.is_empty() {
        true => SavedState::of(spec)?,
        false => None,
    };
    let state = match state {
        Some(state) => match from_state(lab, host, spec, &state) {
            Ok(Some(up)) => return Ok(up),
            Ok(None) => Some(state),
            Err(error) => {
                command::progress(&format!("a saved state is of no use: {error:#}"));
                state.forget();
                None
            }
        },
        None => None,
    };
    let up = command::step("booting a guest", None, || {
        by_booting(lab, host, spec, image)
    })?;
    if let Some(state) = state {
        // Whoever cannot save it has a guest all the same.
        if let Err(error) = state.keep(|file| up.qemu.save(file)) {
            command::progress(&format!("{error:#}"));
        }
    }
    Ok(up)
}

fn by_booting(lab: &Inner, host: &Host, spec: &mut MachineSpec, image: &GuestImage) -> Result<Up> {
    let (qemu, stream) = start(lab, host, spec, Start::Boot)?;
    let agent = Agent::in_guest(stream, Some(qemu.console().clone()))?;
    wait_agent(&agent, qemu.console(), image)?;
    Ok(Up {
        qemu,
        agent,
        from_saved_state: false,
    })
}

/// Nothing if the state is not there yet.
fn from_state(
    lab: &Inner,
    host: &Host,
    spec: &mut MachineSpec,
    state: &SavedState,
) -> Result<Option<Up>> {
    let Some(file) = state.ready() else {
        return Ok(None);
    };
    command::step("starting a guest from a saved state", None, || {
        let (qemu, stream) = start(lab, host, spec, Start::Incoming)?;
        qemu.load(file)?;
        let agent = Agent::in_guest(stream, Some(qemu.console().clone()))?;
        agent.ping(ANSWER_LIMIT)?;
        renew(&agent).context("a guest from a saved state does not become one of its own")?;
        Ok(Some(Up {
            qemu,
            agent,
            from_saved_state: true,
        }))
    })
}

/// What two guests of one state would share: randomness, and the wall clock of the moment it was saved.
fn renew(agent: &Agent) -> Result<()> {
    let mut seed = vec![0; SEED_BYTES];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut seed)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let renew = Op::Renew {
        seed: Hex(seed),
        unix_ms: u64::try_from(now.as_millis())?,
    };
    agent.call(renew, ANSWER_LIMIT).map(drop)
}

fn wait_agent(agent: &Agent, console: &Console, image: &GuestImage) -> Result<()> {
    let deadline = Instant::now() + image.boot_limit;
    // A request waits in the socket until the guest opens the port, so one ping is enough.
    let pinging = agent.clone();
    let limit = image.boot_limit;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(pinging.ping(limit)));
    loop {
        if let Ok(answer) = receiver.recv_timeout(BOOT_STEP) {
            return answer.context("the guest did not boot");
        }
        let silence = console.silence();
        if silence > image.silence_limit && Instant::now() < deadline {
            return Err(console.fail_silent(silence).into());
        }
    }
}

/// The lab's own kernel parameters: everything on the serial console, trouble ends the guest, and no time is
/// spent on mitigations.
pub(crate) fn kernel_parameters(accelerator: Accelerator) -> Vec<String> {
    let mut parameters = [
        "console=ttyS0",
        "loglevel=5",
        "panic=-1",
        "oops=panic",
        "mitigations=off",
        "bonding.max_bonds=0",
        // Self-tests of algorithms nobody uses here are a tenth of the time to boot.
        "cryptomgr.notests",
        // Emulated CPUs share busy cores: the default of 21 s can pass for no fault of the guest. So both
        // watchdogs bark after 60 s (the second after twice its threshold).
        "rcupdate.rcu_cpu_stall_timeout=60",
        "watchdog_thresh=30",
    ]
    .map(str::to_owned)
    .to_vec();
    if accelerator == Accelerator::Tcg {
        // At boot the kernel waits for a few ticks and wants five interrupts of the timer in that time
        // (`timer_irq_works`, arch/x86/kernel/apic/io_apic.c, 6.12). An emulated CPU that gets no time
        // meanwhile misses them, and the guest panics: "IO-APIC + timer doesn't work".
        parameters.push("no_timer_check".to_owned());
        // Nor does such a CPU read its clocks in time, so the kernel's watchdog calls a sound TSC unstable
        // (`clocksource_watchdog`, kernel/time/clocksource.c, 6.12) and patches its code while it runs. Once a
        // guest's oops in `tick_irq_enter`, 5 s after its start, lay where that leads. An emulator's TSC is one
        // for all CPUs.
        parameters.push("tsc=reliable".to_owned());
    }
    parameters
}
