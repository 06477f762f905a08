//! Loads and attaches the programs, each on its own.

use std::io;

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader, VerifierLogLevel,
    programs::{FEntry, FExit, ProgramError, SchedClassifier},
};
use tandem_ebpf::{Layout, Settings};
use thiserror::Error;

use super::{
    btf::Btf,
    hooks::{Point, Program},
    support::{Lockdown, Obstacle, Support, has_net_admin},
};

/// Characters of the verifier's message that a reason keeps.
const REASON_CHARS: usize = 300;

/// Whether a program works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramState {
    /// Loaded and attached.
    Attached,
    /// Loaded; attached to ports and bonds while a switchover needs it.
    Ready,
    /// Not there, and why.
    Missing {
        /// One line for people.
        reason: String,
    },
}

/// One program's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramReport {
    /// The program.
    pub program: Program,
    /// Its state.
    pub state: ProgramState,
}

impl ProgramReport {
    /// Whether the program works.
    pub fn works(&self) -> bool {
        !matches!(self.state, ProgramState::Missing { .. })
    }
}

/// Why no program at all could be loaded.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Btf(#[from] super::btf::BtfError),
    #[error("cannot prepare the eBPF object: {}", one_line(&error_chain(.0)))]
    Object(#[source] aya::EbpfError),
    #[error("the kernel's type information is not usable for eBPF: {0}")]
    KernelTypes(#[source] aya::BtfError),
}

/// What is in the kernel once loading is done. Dropping it detaches everything.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) reports: Vec<ProgramReport>,
}

/// Loads whatever programs can be loaded.
pub(super) fn load(
    object: &[u8],
    support: &Support,
    watch_parented: bool,
    log_level: u8,
) -> Result<Loaded, LoadError> {
    let mut layout = Layout::UNRESOLVED;
    let unresolved = resolve(&mut layout)?;
    let settings = Settings {
        watch_parented: u32::from(watch_parented),
        may_probe_read: u32::from(support.lockdown != Lockdown::Confidentiality),
    };

    let mut loader = EbpfLoader::new();
    let mut ebpf = loader
        // Typed offsets come from `layout`; aya's own relocations are not used.
        .btf(None)
        // Messages of refused programs, without the trace of each instruction.
        .verifier_log_level(VerifierLogLevel::STATS)
        .override_global("LAYOUT", &layout, true)
        .override_global("SETTINGS", &settings, true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .load(object)
        .map_err(LoadError::Object)?;
    let types = AyaBtf::from_sys_fs().map_err(LoadError::KernelTypes)?;

    let reports = Program::ALL
        .into_iter()
        .zip(unresolved)
        .map(|(program, unresolved)| {
            let obstacle = if settings.may_probe_read == 0 && program.needs_probe_read() {
                Some(Obstacle::Lockdown)
            } else if program.point() == Point::Traffic && !has_net_admin() {
                Some(Obstacle::NoCapabilities(vec!["CAP_NET_ADMIN"]))
            } else {
                None
            };
            let obstacle = obstacle.map(|obstacle| obstacle.to_string());
            let reason = unresolved.or(obstacle).or_else(|| {
                let started = start(&mut ebpf, program, &types);
                started.err().map(|error| reason_of(&error))
            });
            let state = match reason {
                Some(reason) => ProgramState::Missing { reason },
                None if program.point() == Point::Traffic => ProgramState::Ready,
                None => ProgramState::Attached,
            };
            ProgramReport { program, state }
        })
        .collect();
    Ok(Loaded { ebpf, reports })
}

/// Notes that programs cannot be used although the kernel took them.
pub(super) fn give_up(reports: &mut [ProgramReport], programs: &[Program], reason: &str) {
    let useless = reports
        .iter_mut()
        .filter(|report| programs.contains(&report.program));
    for report in useless {
        report.state = ProgramState::Missing {
            reason: one_line(reason),
        };
    }
}

/// Fills in the layout; for each program, why its structures could not be resolved.
fn resolve(layout: &mut Layout) -> Result<[Option<String>; Program::ALL.len()], LoadError> {
    let btf = Btf::from_kernel()?;
    Ok(Program::ALL.map(|program| {
        if program.point() != Point::Traffic && !btf.has_function(program.function()) {
            return Some(format!(
                "this kernel has no function `{}` to hook",
                program.function()
            ));
        }
        let resolved = program.reads().resolve(&btf, layout);
        resolved.err().map(|error| error.to_string())
    }))
}

/// Loads the program, and attaches it unless that is for later.
fn start(ebpf: &mut Ebpf, program: Program, types: &AyaBtf) -> Result<(), ProgramError> {
    let found = ebpf
        .program_mut(program.name())
        .ok_or(ProgramError::NotLoaded)?;
    match program.point() {
        Point::Entry => {
            let found: &mut FEntry = found.try_into()?;
            found.load(program.function(), types)?;
            found.attach().map(|_| ())
        }
        Point::Exit => {
            let found: &mut FExit = found.try_into()?;
            found.load(program.function(), types)?;
            found.attach().map(|_| ())
        }
        Point::Traffic => {
            let found: &mut SchedClassifier = found.try_into()?;
            found.load()
        }
    }
}

/// One line: what the kernel said, and the verifier's last words.
pub(super) fn reason_of(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let said = last_words(&verifier_log.to_string());
            match (io_error.kind(), said.is_empty()) {
                (io::ErrorKind::PermissionDenied, true) => format!(
                    "the kernel does not permit it ({io_error}) although the capabilities are there; a security module or the sandbox around this system forbids tracing programs"
                ),
                (_, true) => format!("the kernel refuses to load it: {io_error}"),
                (_, false) => format!("the kernel's verifier refuses it ({io_error}): {said}"),
            }
        }
        other => one_line(&error_chain(other)),
    }
}

/// The verifier's message: what stands before its statistics.
fn last_words(log: &str) -> String {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    let said = log
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start)));
    one_line(said.unwrap_or(""))
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(REASON_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_words_are_kept_without_its_statistics() {
        let log = "0: R1=ctx()\nR1 type=scalar expected=ptr_\nprocessed 9 insns (limit 1000000)\n\
                   verification time 7 usec\nstack depth 40\n";
        assert_eq!(last_words(log), "R1 type=scalar expected=ptr_");
        assert_eq!(last_words("processed 9 insns\n"), "");
        assert_eq!(last_words(&"x".repeat(1000)).len(), REASON_CHARS);
    }

    #[test]
    fn errors_with_their_causes_are_one_line() {
        let error = LoadError::Object(aya::EbpfError::FileError {
            path: "/a/b".into(),
            error: io::Error::other("first\nsecond"),
        });
        let text = error.to_string();
        assert!(text.contains("first second"), "{text}");
    }

    #[test]
    fn only_the_programs_that_are_given_up_are_missing() {
        let mut reports = Program::ALL.map(|program| ProgramReport {
            program,
            state: ProgramState::Attached,
        });
        give_up(&mut reports, &Program::TRAFFIC, "no\nroom");
        for report in &reports {
            let missing = ProgramState::Missing {
                reason: "no room".to_owned(),
            };
            let given_up = Program::TRAFFIC.contains(&report.program);
            assert_eq!(report.state == missing, given_up, "{report:?}");
            assert_eq!(report.works(), !given_up, "{report:?}");
        }
    }
}
