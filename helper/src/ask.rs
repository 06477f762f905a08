//! Commands that ask the running service.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use tandem_core::IfName;
use tandem_core::input::Request;
use tandem_core::status::Answer;
use tandem_wire::Call;
use tandem_wire::reply::StatusReport;

use crate::cli::{Ask, StatusArgs, exit};
use crate::client::{Client, ClientError};
use crate::config::{self, Config, ConfigError};
use crate::managers;
use crate::nics::{Obstacle, Readiness};
use crate::observe::once;
use crate::render::{self, Style};
use crate::surroundings;
use crate::system_files::SystemFiles;
use crate::udev_marks::effective;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The service could not be asked, or refused.
    #[error(transparent)]
    Service(#[from] ClientError),
    /// The output can't be written.
    #[error("the output can't be written: {0}")]
    Output(#[from] io::Error),
}

impl AskError {
    /// The command's exit status.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Service(ClientError::NotRunning { .. }) => exit::NOT_RUNNING,
            Self::Service(ClientError::TimedOut { .. }) => exit::TIMED_OUT,
            Self::Service(_) | Self::Output(_) => exit::FAILED,
        }
    }
}

/// Colours where standard output is a terminal, unless `NO_COLOR` is set.
fn style_of_stdout() -> Style {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !unwanted {
        Style::Coloured
    } else {
        Style::Plain
    }
}

/// Carries out a command on standard output, with errors on standard error, and
/// gives the exit status.
pub fn ask(ask: Ask) -> u8 {
    match carry_out(ask, style_of_stdout(), &mut io::stdout().lock()) {
        Ok(status) => status,
        // The reader has seen enough, as `head` has.
        Err(AskError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => exit::OK,
        Err(error) => {
            eprintln!("tandem: {error}");
            if matches!(error, AskError::Service(ClientError::NotRunning { .. })) {
                let config = config::load(config::DEFAULT_PATH.as_ref());
                for line in why_not(&SystemFiles::this(), &config) {
                    eprintln!("tandem: {line}");
                }
            }
            error.exit_status()
        }
    }
}

/// Why the service does not run, and what became of the NICs.
fn why_not(files: &SystemFiles, config: &Result<Config, ConfigError>) -> Vec<String> {
    let readiness = Readiness::look(files, config);
    let told = |what: &str, obstacle: &Obstacle| {
        format!(
            "{what} are left to their network manager: {obstacle}; {}",
            obstacle.remedy()
        )
    };
    let obstacle = readiness.obstacle.as_ref();
    let general = obstacle.map(|obstacle| told("NICs that are in no bond", obstacle));
    let already = obstacle.map(ToString::to_string);
    let others = readiness
        .given_back
        .into_iter()
        .filter(|(_, reason)| already.as_ref() != Some(reason));
    let others = others
        .map(|(bond, reason)| told(&format!("the NICs of {bond}"), &Obstacle::GivenBack(reason)));
    general.into_iter().chain(others).collect()
}

/// Carries out a command, writes its result and gives the exit status.
///
/// # Errors
/// If the service can't be asked or refuses, or `out` can't be written.
pub fn carry_out(ask: Ask, style: Style, out: &mut impl Write) -> Result<u8, AskError> {
    let (request, service) = match ask {
        Ask::Status(args) => return status(&args, style, out),
        Ask::Failover(args) => (Request::Failover { bond: args.bond }, args.service),
        Ask::Failback(args) => (Request::Failback { bond: args.bond }, args.service),
        Ask::Resume(args) => (Request::Resume { bond: args.bond }, args.service),
        Ask::Announce(args) => (Request::Announce { bond: args.bond }, args.service),
        Ask::PrepareUnplug(args) => {
            let request = Request::PrepareUnplug {
                bond: args.bond,
                vf: args.vf,
            };
            (request, args.service)
        }
    };
    let call = Call::Command(request);
    let answer: Answer = Client::connect(&service.socket)?.call(call, service.limit)?;
    out.write_all(render::answer(&answer).as_bytes())?;
    Ok(if answer.ready { exit::OK } else { exit::FAILED })
}

fn status(args: &StatusArgs, style: Style, out: &mut impl Write) -> Result<u8, AskError> {
    let limit = args.service.limit;
    let mut client = Client::connect(&args.service.socket)?;
    if args.watch {
        // Before the status, so that nothing falls between the two.
        client.subscribe(limit)?;
    }
    let mut report: StatusReport = client.call(Call::TandemStatus, limit)?;
    surroundings::add_to(&mut report.status.bonds, concerns());
    let text = match (args.json, args.watch) {
        (false, _) => render::status(&report, &managers(&report), style),
        (true, false) => json(serde_json::to_string_pretty(&report))?,
        (true, true) => json(serde_json::to_string(&report))?,
    };
    out.write_all(text.as_bytes())?;
    if args.watch {
        watch(&mut client, args.json, out)?;
    }
    Ok(exit::OK)
}

/// What is wrong around the bonds. Who may not look is told nothing.
fn concerns() -> Vec<surroundings::Concern> {
    let config = config::load(config::DEFAULT_PATH.as_ref());
    let policy = config.ok().and_then(|config| effective(&config).ok());
    let links = once::links().ok();
    let (Some(policy), Some(links)) = (policy, links) else {
        return Vec::new();
    };
    let permanent = once::permanent_addresses().unwrap_or_default();
    surroundings::concerns(&SystemFiles::this(), &policy, &links, &permanent)
}

/// Who configures the bonds that Tandem gives no addresses.
fn managers(report: &StatusReport) -> BTreeMap<IfName, String> {
    let files = SystemFiles::this();
    let bonds = report.status.bonds.iter();
    let told = bonds.map(|bond| (bond.name.clone(), managers::told(&files, &bond.name)));
    told.filter_map(|(bond, told)| Some((bond, told?)))
        .collect()
}

/// Until the service stops or the output is closed.
fn watch(client: &mut Client, as_json: bool, out: &mut impl Write) -> Result<(), AskError> {
    if !as_json {
        out.write_all(b"\n")?;
    }
    loop {
        out.flush()?;
        let event = match client.next_event() {
            Ok(event) => event,
            Err(ClientError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if as_json {
            out.write_all(&event.to_line())?;
        } else {
            out.write_all(render::event(&event).as_bytes())?;
        }
    }
}

fn json(text: serde_json::Result<String>) -> io::Result<String> {
    Ok(text? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::GIVEN_BACK_PATH;
    use crate::nics::testing::Folder;

    #[test]
    fn who_asks_in_vain_is_told_why() {
        let folder = Folder::complete();
        let why = || {
            let config = config::load(&folder.path("/etc/tandem/tandem.toml"));
            why_not(&folder.files(), &config).join("\n")
        };
        assert_eq!(why(), "");
        folder.write(GIVEN_BACK_PATH, r#"{"bond0": "the service fails: signal"}"#);
        assert!(why().contains("the NICs of bond0 are left"), "{}", why());
        assert!(
            why().contains("the service fails: signal; `journalctl"),
            "{}",
            why()
        );
        folder.write("/etc/tandem/tandem.toml", "[[bond]\n");
        assert!(why().contains("the configuration is wrong: "), "{}", why());
    }
}
