//! Tandem's own tasks: `cargo xtask test` is all of CI, the others are parts of it or built on the same lab.

mod bench;
mod cargo_tool;
mod check;
mod demo;
mod ebpf;
mod findings;
mod fuzz;
mod lab;
mod manual;
mod package;
mod project;
mod setup;
mod soak;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tandem's own tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Everything that CI runs, with a line per suite and a closing total
    Test(test::Options),
    /// The whole story in one terminal: a VF leaves, the VM moves, another VF arrives
    Demo(demo::Options),
    /// Carry out a situation: a text such as those in tests/situations
    Lab(lab::Options),
    /// Measure: the idle service, evacuations beside other systems, how costs grow, what TCP pays
    Bench(Box<bench::Options>),
    /// Build the kernel programs and write the object that is committed
    Ebpf(ebpf::Options),
    /// Hostile bytes for every parser: what is in tests/fuzz/corpus, and what libFuzzer makes of it
    Fuzz(fuzz::Options),
    /// Whether each mended finding of the security review has a test that fails without its mending
    Findings(findings::Options),
    /// A guest and two libvirt hosts under random faults, the same check after each
    Soak(soak::Options),
    /// One of the checks that need no compiler
    Check {
        /// Which one
        #[arg(value_enum)]
        check: check::Check,
    },
    /// Write docs/reference.md from the types
    Reference,
    /// Write manual pages and shell completions into target/manual
    Man,
    /// Build packages for guest and host, .deb and .rpm, into target/packages
    Package(package::Options),
    /// Install what this machine lacks to build and test (as root on Debian; elsewhere: say what)
    Setup(setup::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Lab(options) => lab::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Ebpf(options) => ebpf::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Findings(options) => findings::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Check { check } => check::run(check),
        Task::Reference => manual::reference(),
        Task::Man => manual::man(),
        Task::Package(options) => package::run(&options),
        Task::Setup(options) => setup::run_with(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_documents_name_tasks_that_exist() {
        let architecture = project::text("ARCHITECTURE.md".as_ref()).unwrap().unwrap();
        let pages = tandem_lab::readme::pages().unwrap().into_iter();
        let pages = pages.map(|page| (page.name, page.text));
        let mut all_named = 0;
        let situations = project::text("tests/situations/README.md".as_ref())
            .unwrap()
            .unwrap();
        let others = [
            ("ARCHITECTURE.md".to_owned(), architecture),
            ("tests/situations/README.md".to_owned(), situations),
        ];
        for (page, text) in pages.chain(others) {
            let mut named = 0;
            for (at, _) in text.match_indices("cargo xtask ") {
                let line = text[at..].split(['`', '\n', '#']).next().unwrap();
                let words = line.trim_start_matches("cargo ").split_whitespace();
                let parsed = Cli::try_parse_from(words);
                let help = |error: &clap::Error| error.kind() == ErrorKind::DisplayHelp;
                assert!(
                    parsed.as_ref().err().is_none_or(help),
                    "{page}: `{line}`: {parsed:?}"
                );
                named += 1;
            }
            all_named += named;
        }
        assert!(all_named > 10, "the pages name {all_named} tasks");
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace());
        for line in [
            "xtask bench",
            "xtask bench --costs --pairs 500 --services networkd --idle-s 30",
            "xtask bench --evacuation --rates-hz 1000,500 --tandem-rounds 10 --minutes 30 --write-results",
            "xtask bench --growth --axis links --samples 1",
            "xtask bench --instructions --unplugs 8 --write-results",
            "xtask bench --boot --boots 3",
            "xtask fuzz xml record --seconds 600",
            "xtask fuzz xml --input crash",
            "xtask soak --minutes 60 --seed 7",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        for line in [
            "xtask bench --pairs 500",
            "xtask bench --costs --evacuation",
            "xtask fuzz --input crash",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
