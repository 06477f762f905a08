//! Loads and attaches the programs, each on its own.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader, Endianness, VerifierLogLevel,
    maps::{Map, MapError},
    programs::{FEntry, ProgramError, SchedClassifier},
};
use tandem_core::status::CheckItem;
use tandem_ebpf::Layout;
use thiserror::Error;

use super::{
    btf::{Btf, BtfError},
    hooks::Program,
    support::{Lockdown, Obstacle, Support, has_net_admin},
};

/// Characters of the verifier's message that a reason keeps.
const REASON_CHARS: usize = 300;

/// The loaded object. [`super::fast_path`] attaches its programs when they are needed; with
/// the monitor it goes away.
pub(super) type Programs = Arc<Mutex<Option<Ebpf>>>;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One program's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) program: Program,
    /// Why it is not there, in one line for people.
    pub(super) missing: Option<String>,
}

impl Report {
    pub(super) fn works(&self) -> bool {
        self.missing.is_none()
    }

    /// For the status.
    pub(super) fn part(&self) -> CheckItem {
        let function = self.program.function();
        let detail = match &self.missing {
            Some(reason) => format!("{function}: {reason}"),
            // Attached to ports and bonds while a switchover needs it.
            None if self.program.sees_frames() => format!("ready for {function}"),
            None => format!("attached to {function}"),
        };
        CheckItem {
            name: self.program.name().to_string(),
            ok: self.works(),
            detail,
        }
    }
}

/// Why no program at all could be loaded, or none of those on the traffic's paths.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Btf(#[from] BtfError),
    #[error("cannot prepare the eBPF object: {}", one_line(&error_chain(.0)))]
    Object(#[source] aya::EbpfError),
    #[error("the kernel's type information is not usable for eBPF: {0}")]
    KernelTypes(#[source] aya::BtfError),
    #[error("the eBPF object has no map `{0}`; it does not belong to this service")]
    NoMap(&'static str),
    #[error("the eBPF maps cannot be used: {0}")]
    Map(#[from] MapError),
    #[error("the messages of the eBPF programs cannot be read: {0}")]
    Log(#[from] aya_log::Error),
    #[error("the eBPF events cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    FastPaths(String),
}

/// Takes a map out of the object.
pub(super) fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::NoMap(name))
}

/// What is in the kernel once loading is done. Dropping it detaches everything.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) reports: Vec<Report>,
}

/// Loads whatever programs can be loaded.
pub(super) fn load(object: &[u8], support: &Support) -> Result<Loaded, LoadError> {
    let begun = Instant::now();
    let mut layout = Layout::UNRESOLVED;
    let kernel = Btf::from_kernel()?;
    let unresolved = resolve(&kernel, &mut layout);
    // What aya asks them for is the number of each hooked function.
    let hooked = Program::ALL
        .into_iter()
        .filter(|program| !program.sees_frames());
    let types = kernel.only_functions(hooked.map(Program::function));
    drop(kernel);
    let types = AyaBtf::parse(&types, Endianness::default()).map_err(LoadError::KernelTypes)?;
    let types_read = begun.elapsed();
    let may_probe_read = support.lockdown != Lockdown::Confidentiality;

    let mut loader = EbpfLoader::new();
    let mut ebpf = loader
        // Typed offsets come from `layout`; aya's own relocations are not used.
        .btf(None)
        // Messages of refused programs, without the trace of each instruction.
        .verifier_log_level(VerifierLogLevel::STATS)
        .override_global("LAYOUT", &layout, true)
        .override_global("MAY_PROBE_READ", &u32::from(may_probe_read), true)
        // What nobody would see is not even written; both count levels alike.
        .override_global(aya_log::LEVEL, &(log::max_level() as u8), true)
        .load(object)
        .map_err(LoadError::Object)?;
    let object_read = begun.elapsed();

    let reports = Program::ALL
        .into_iter()
        .zip(unresolved)
        .map(|(program, unresolved)| {
            let obstacle = if !may_probe_read && program.needs_probe_read() {
                Some(Obstacle::Lockdown)
            } else if program.sees_frames() && !has_net_admin() {
                Some(Obstacle::NoCapabilities(vec!["CAP_NET_ADMIN"]))
            } else {
                None
            };
            let obstacle = obstacle.map(|obstacle| obstacle.to_string());
            let missing = unresolved.or(obstacle).or_else(|| {
                let started = start(&mut ebpf, program, &types);
                started.err().map(|error| reason_of(&error))
            });
            Report { program, missing }
        })
        .collect();
    let loaded = begun.elapsed();
    tracing::debug!(
        ?types_read,
        ?object_read,
        ?loaded,
        "the kernel programs are loaded"
    );
    Ok(Loaded { ebpf, reports })
}

/// Notes that programs cannot be used although the kernel took them.
pub(super) fn give_up(reports: &mut [Report], programs: &[Program], reason: &str) {
    for report in reports {
        if programs.contains(&report.program) {
            report.missing = Some(one_line(reason));
        }
    }
}

/// Fills in the layout; for each program, why its structures could not be resolved.
fn resolve(btf: &Btf, layout: &mut Layout) -> [Option<String>; Program::ALL.len()] {
    Program::ALL.map(|program| {
        if !program.sees_frames() && !btf.has_function(program.function()) {
            return Some(format!(
                "this kernel has no function `{}` to hook",
                program.function()
            ));
        }
        let resolved = program.reads().resolve(btf, layout);
        resolved.err().map(|error| error.to_string())
    })
}

/// Loads the program, and attaches it unless that is for later.
fn start(ebpf: &mut Ebpf, program: Program, types: &AyaBtf) -> Result<(), ProgramError> {
    let found = ebpf
        .program_mut(program.name())
        .ok_or(ProgramError::NotLoaded)?;
    if program.sees_frames() {
        let found: &mut SchedClassifier = found.try_into()?;
        return found.load();
    }
    let found: &mut FEntry = found.try_into()?;
    found.load(program.function(), types)?;
    found.attach().map(|_| ())
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
        let mut reports = Program::ALL.map(|program| Report {
            program,
            missing: None,
        });
        give_up(&mut reports, &Program::TRAFFIC, "no\nroom");
        for report in &reports {
            let given_up = Program::TRAFFIC.contains(&report.program);
            assert_eq!(report.missing.as_deref(), given_up.then_some("no room"));
            assert_eq!(report.part().ok, !given_up, "{report:?}");
        }
    }
}
