//! Which suites there are, in the order they run: cheap ones first, so that a slip shows early; then what
//! compiles; then what boots virtual machines.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::integration;
use super::schedule::Lane;
use super::suite::{Suite, Work};
use crate::check::Check;
use crate::project;

/// The same packages and features everywhere, so that nothing is compiled twice.
const WHOLE: &str = "--workspace --features tandem-wire/schema";

/// No suite takes longer, in minutes.
const LONGEST_MINUTES: u64 = 120;

/// For each of the 12 targets of `long-fuzz`: an hour in all.
const FUZZ_SECONDS: &str = "300";

/// All suites.
pub(super) fn all() -> Result<Vec<Suite>> {
    let mut suites = checks()?;
    suites.extend(builds()?);
    let (lab, other): (Vec<_>, Vec<_>) = integration::suites(&project::metadata()?)?
        .into_iter()
        .partition(|suite| suite.is_lab);
    suites.extend(other);
    suites.extend(before_the_lab()?);
    let (mut beside, alone): (Vec<_>, Vec<_>) = lab
        .into_iter()
        .chain(stories()?)
        .partition(|suite| suite.lane != Lane::Alone);
    beside.sort_by_key(|suite| {
        let mut names = integration::SIDE_BY_SIDE.iter();
        // What is not named boots nothing and is short.
        names
            .position(|name| *name == suite.name)
            .unwrap_or(usize::MAX)
    });
    suites.extend(beside);
    suites.extend(alone);
    let long = long(&suites)?;
    suites.extend(long);
    suites.sort_by_key(|suite| suite.is_long);
    Ok(suites)
}

fn checks() -> Result<Vec<Suite>> {
    let setup = Work::Check(project::xtask(&["setup"])?);
    let fmt = Work::Check(cargo("fmt --all --check -- --color never"));
    let about = "what building and testing need is there";
    let mut suites = vec![
        suite("setup", about, 20, &[], setup),
        suite("fmt", "rustfmt would change nothing", 1, &[], fmt),
    ];
    for check in Check::value_variants() {
        let value = check
            .to_possible_value()
            .context("a check without a name")?;
        let about = value.get_help().map(ToString::to_string);
        let work = Work::Check(project::xtask(&["check", value.get_name()])?);
        // These build what they check with.
        let minutes = match check {
            Check::Deny | Check::Cycles => 25,
            _ => 5,
        };
        let about = about.unwrap_or_default();
        suites.push(Suite {
            is_long: *check == Check::Cycles,
            ..suite(value.get_name(), &about, minutes, &[], work)
        });
    }
    Ok(suites)
}

fn builds() -> Result<Vec<Suite>> {
    let clippy = cargo(&format!("clippy {WHOLE} --all-targets -- -D warnings"));
    let mut docs = cargo(&format!("doc {WHOLE} --no-deps"));
    docs.env("RUSTDOCFLAGS", "-D warnings");
    let build = cargo(&format!(
        "test {WHOLE} --no-run --message-format=json-render-diagnostics"
    ));
    let doctests = cargo(&format!("test {WHOLE} --doc --no-fail-fast"));
    let setup = &["setup"];
    let fetch = project::xtask(&["setup", "--guests"])?;
    let fetched = "what guests boot from: kernels, busybox, Debian's root";
    let units = "each library's and program's own tests";
    let examples = "the documentation's examples";
    Ok(vec![
        check("clippy", "no warning in any target", setup, clippy).in_lane(Lane::Cargo),
        check("fetch", fetched, setup, fetch).in_lane(Lane::Waiting),
        check("docs", "rustdoc warns of nothing", setup, docs).in_lane(Lane::Cargo),
        suite(
            "build",
            "every test program builds",
            15,
            setup,
            Work::Build(build),
        ),
        suite("unit", units, 10, &["build"], Work::Units),
        suite("doctest", examples, 5, &["build"], Work::Tests(doctests)),
    ])
}

fn before_the_lab() -> Result<Vec<Suite>> {
    let ebpf = project::xtask(&["ebpf", "--check"])?;
    let package = project::xtask(&["package", "--deb", "--check", "--debug-host"])?;
    let release = cargo(
        "build --release --package tandem-guest --bin tandem --message-format=json-render-diagnostics",
    );
    let fuzz = project::xtask(&["fuzz", "--seconds", "5"])?;
    let parsers = "hostile bytes for every parser: what is known, and 5 s of what is not";
    let packages = "both .deb, as lintian sees them; tandem-host from a dev build";
    let shipped = "the guest service as it is shipped";
    Ok(vec![
        suite("fuzz", parsers, 20, &["setup"], Work::Check(fuzz)),
        check(
            "ebpf",
            "the committed eBPF object is its source's",
            &[],
            ebpf,
        ),
        suite("release", shipped, 15, &["setup"], Work::Programs(release)),
        check("package", packages, &["build", "release"], package).in_lane(Lane::Cargo),
    ])
}

fn stories() -> Result<Vec<Suite>> {
    // The benches of CI hold nothing against the clock.
    let stories: [(_, _, &[&str], _); 4] = [
        (
            "demo",
            "the whole story, as a reader runs it",
            &["demo"],
            Lane::Alone,
        ),
        (
            "demo-libvirt",
            "the whole story between two libvirt hosts",
            &["demo", "--libvirt"],
            Lane::Alone,
        ),
        (
            "bench-serve",
            "`tandem-host serve` with 50 and 500 simulated guests",
            &["bench", "--serve", "--debug-build", "--idle-s", "5"],
            Lane::Waiting,
        ),
        (
            "bench",
            "an idle service: wake-ups, memory, size",
            &["bench", "--idle", "--idle-s", "30"],
            Lane::Waiting,
        ),
    ];
    let suites = stories.into_iter().map(|(name, about, task, lane)| {
        Ok(check(name, about, &["release"], project::xtask(task)?).in_lab(lane))
    });
    suites.collect()
}

/// What takes so long that nobody wants it after each change; none longer than [`LONGEST_MINUTES`].
fn long(suites: &[Suite]) -> Result<Vec<Suite>> {
    // Tests of other suites, which do more with such a variable.
    let more = [
        (
            "long-fault-schedule",
            "500,000 evacuations in which anything may fail",
            "host-fault-schedule",
            ("TANDEM_HOST_RUNS", "500000"),
        ),
        (
            "long-never-worse",
            "the rarer of what lab-never-worse breaks, and a boot for each",
            "lab-never-worse",
            ("TANDEM_NEVER_WORSE_EVERYTHING", "1"),
        ),
        (
            "long-mixed-versions",
            "guests and hosts of earlier commits with those of now, through whole evacuations",
            "lab-plain-qemu",
            ("TANDEM_MIXED_VERSIONS", "1"),
        ),
        (
            "long-packaging",
            "lab-packaging, and a boot after the installation and after the removal",
            "lab-packaging",
            ("TANDEM_PACKAGING_EVERYTHING", "1"),
        ),
        (
            "long-evacuation-on-6-1",
            "lab-evacuation on Linux 6.1",
            "lab-evacuation",
            ("LAB_KERNEL_VERSION", "6.1"),
        ),
        (
            "long-evacuation-on-7-3",
            "lab-evacuation on Linux 7.3",
            "lab-evacuation",
            ("LAB_KERNEL_VERSION", "7.3"),
        ),
        (
            "long-fast-path-on-6-1",
            "lab-fast-path on Linux 6.1",
            "lab-fast-path",
            ("LAB_KERNEL_VERSION", "6.1"),
        ),
        (
            "long-fast-path-on-7-3",
            "lab-fast-path on Linux 7.3",
            "lab-fast-path",
            ("LAB_KERNEL_VERSION", "7.3"),
        ),
        (
            "long-situations",
            "the situations that take long, such as what happens by chance, again and again",
            "lab-situations",
            ("TANDEM_LONG_SITUATIONS", "1"),
        ),
    ];
    let steps = "the simulation to 10,000,000 steps";
    let sim = cargo("test --profile simulation --package tandem-lab --test sim -- --nocapture");
    let mut long = vec![Suite {
        env: vec![("TANDEM_SIM_STEPS", "10000000")],
        ..suite(
            "long-sim",
            steps,
            LONGEST_MINUTES,
            &["setup"],
            Work::Tests(sim),
        )
    }];
    for (name, about, of, variable) in more {
        let of = suites.iter().find(|suite| suite.name == of);
        let of = of.with_context(|| format!("there is no suite for {name}"))?;
        let Work::Integration(source) = &of.work else {
            bail!("the suite for {name} has no tests");
        };
        let minutes = if of.is_lab { 60 } else { LONGEST_MINUTES };
        let work = Work::Integration(source.clone());
        long.push(Suite {
            env: vec![variable],
            is_lab: of.is_lab,
            lane: if of.is_lab { Lane::Alone } else { Lane::Beside },
            ..suite(name, about, minutes, of.needs, work)
        });
    }
    let tasks: [(_, _, &[&str]); 3] = [
        (
            "long-fuzz",
            "an hour of hostile bytes, a share for each parser",
            &["fuzz", "--seconds", FUZZ_SECONDS],
        ),
        (
            "long-findings",
            "each finding of the security review: its test fails without its mending",
            &["findings"],
        ),
        (
            "long-findings-fuzz",
            "those that the fuzzer can meet: its corpora find them without their mendings",
            &["findings", "--fuzz"],
        ),
    ];
    for (name, about, arguments) in tasks {
        let work = Work::Check(project::xtask(arguments)?);
        long.push(suite(name, about, LONGEST_MINUTES, &["setup"], work));
    }
    let packages = "both .deb and both .rpm as they are shipped, as lintian and rpm see them";
    let package = Work::Check(project::xtask(&["package", "--check"])?);
    long.push(suite("long-package", packages, 60, &["setup"], package).in_lane(Lane::Cargo));
    let faults = "an hour of random faults for a guest and two libvirt hosts";
    let soak = Work::Check(project::xtask(&["soak", "--minutes", "60"])?);
    let needs = &["build", "release", "fetch"];
    long.push(suite("long-soak", faults, LONGEST_MINUTES, needs, soak).in_lab(Lane::Alone));
    let benches: [(_, _, &[&str]); 9] = [
        (
            "long-bench-evacuation",
            "all systems side by side: losses, gaps, claims",
            &["bench", "--evacuation", "--minutes", "90"],
        ),
        (
            "long-bench-costs",
            "what each system's service costs a guest",
            &["bench", "--costs"],
        ),
        (
            "long-bench-growth",
            "how the service's costs grow with the guest",
            &["bench", "--growth"],
        ),
        (
            "long-bench-tcp",
            "what the programs of the fast path cost TCP",
            &["bench", "--tcp"],
        ),
        (
            "long-bench-instructions",
            "unplugs in guests whose clock counts instructions: what is left of the warning",
            &["bench", "--instructions"],
        ),
        (
            "long-bench-boot",
            "boots with Tandem and without it, side by side",
            &["bench", "--boot"],
        ),
        (
            "long-bench-armed",
            "how long it takes until a VF is armed, in idle and busy guests",
            &["bench", "--armed"],
        ),
        (
            "long-bench-watch",
            "what it costs to watch the path of a VF that carries frames",
            &["bench", "--watch"],
        ),
        (
            "long-bench-serve",
            "`tandem-host serve` as it is shipped, with 50 and 500 simulated guests",
            &["bench", "--serve"],
        ),
    ];
    for (name, about, arguments) in benches {
        let work = Work::Check(project::xtask(arguments)?);
        long.push(suite(name, about, LONGEST_MINUTES, &["release"], work).in_lab(Lane::Alone));
    }
    for suite in &mut long {
        suite.is_long = true;
    }
    Ok(long)
}

/// `cargo` with these arguments, none of which has a space in it.
fn cargo(arguments: &str) -> Command {
    let mut cargo = project::cargo();
    cargo.args(arguments.split_whitespace());
    cargo
}

fn suite(
    name: &str,
    about: &str,
    minutes: u64,
    needs: &'static [&'static str],
    work: Work,
) -> Suite {
    Suite {
        name: name.to_owned(),
        about: about.to_owned(),
        limit: Duration::from_secs(minutes * 60),
        needs,
        is_lab: false,
        lane: match &work {
            // These build in cargo's own folder.
            Work::Build(_) | Work::Programs(_) | Work::Tests(_) => Lane::Cargo,
            _ => Lane::Beside,
        },
        is_long: false,
        env: Vec::new(),
        work,
    }
}

/// A command whose success is one check passed, within a quarter of an hour.
fn check(name: &str, about: &str, needs: &'static [&'static str], command: Command) -> Suite {
    suite(name, about, 15, needs, Work::Check(command))
}

impl Suite {
    fn in_lane(self, lane: Lane) -> Self {
        Self { lane, ..self }
    }

    fn in_lab(self, lane: Lane) -> Self {
        let is_lab = true;
        Self {
            is_lab,
            lane,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labs_tests_come_last_and_need_the_release_program() {
        let suites = all().unwrap();
        let first_lab = suites
            .iter()
            .position(|suite| suite.is_lab)
            .unwrap_or(suites.len());
        let short = suites[first_lab..].iter().filter(|suite| !suite.is_long);
        for suite in short {
            assert!(
                suite.is_lab && suite.needs.contains(&"release"),
                "{}",
                suite.name
            );
        }
    }

    #[test]
    fn what_is_named_as_beside_is_there() {
        let suites = all().unwrap();
        for name in integration::SIDE_BY_SIDE {
            let suite = suites.iter().find(|suite| suite.name == name);
            let lane = suite.map(|suite| suite.lane);
            assert!(
                matches!(lane, Some(Lane::Beside | Lane::Waiting)),
                "{name}: {lane:?}"
            );
        }
    }

    #[test]
    fn long_suites_come_last_and_are_bounded() {
        let suites = all().unwrap();
        let first = suites.iter().position(|suite| suite.is_long).unwrap();
        assert!(suites[first..].iter().all(|suite| suite.is_long));
        let longest = Duration::from_secs(LONGEST_MINUTES * 60);
        assert!(suites.iter().all(|suite| suite.limit <= longest));
    }

    #[test]
    fn names_are_unique_and_needs_come_before() {
        let suites = all().unwrap();
        for (index, suite) in suites.iter().enumerate() {
            let before: Vec<_> = suites[..index]
                .iter()
                .map(|suite| suite.name.as_str())
                .collect();
            assert!(
                !before.contains(&suite.name.as_str()),
                "{} is there twice",
                suite.name
            );
            assert!(
                suite.needs.iter().all(|need| before.contains(need)),
                "{} comes before what it needs",
                suite.name
            );
        }
    }
}
