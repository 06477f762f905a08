//! The command lines, as clap has them.

use clap::{Arg, Command, CommandFactory};

/// `tandem`, with all names of its parts.
pub(crate) fn guest() -> Command {
    built(tandem_guest::cli::Cli::command())
}

/// `tandem-host`, with all names of its parts.
pub(crate) fn host() -> Command {
    built(tandem_host::cli::Cli::command())
}

fn built(command: Command) -> Command {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    command
}

/// Every command that does something, `tandem status` for one, in the order of `--help`.
pub(crate) fn leaves(command: &Command) -> Vec<Command> {
    let mut subcommands = command.get_subcommands().peekable();
    if subcommands.peek().is_none() {
        return vec![command.clone()];
    }
    subcommands.flat_map(leaves).collect()
}

/// Its whole name.
pub(crate) fn name(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    name.to_owned()
}

/// How it is called, without the word `Usage:`.
pub(crate) fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").split_whitespace();
    usage.collect::<Vec<_>>().join(" ")
}

/// What it does, in one line.
pub(crate) fn about(command: &Command) -> String {
    command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// An argument of a command.
#[derive(Debug)]
pub(crate) struct Argument {
    /// As it is written: `-c, --connect <URI>`, `[BOND]`.
    pub(crate) written: String,
    /// What holds without it, if that can be said.
    pub(crate) default: Option<String>,
    /// What it is for.
    pub(crate) help: String,
}

/// The arguments, without `--help` and `--version`.
pub(crate) fn arguments(command: &Command) -> Vec<Argument> {
    let arguments = command.get_arguments();
    let own = arguments
        .filter(|one| !one.is_hide_set() && !["help", "version"].contains(&one.get_id().as_str()));
    own.map(argument).collect()
}

fn argument(one: &Arg) -> Argument {
    let takes_value = one.get_action().takes_values();
    let values = one.get_value_names().into_iter().flatten();
    let values: Vec<String> = values.map(ToString::to_string).collect();
    let value = takes_value.then(|| values.join(" "));
    let short = one.get_short().map(|short| format!("-{short}, "));
    let written = match (one.get_long(), value) {
        (Some(long), Some(value)) => format!("{}--{long} <{value}>", short.unwrap_or_default()),
        (Some(long), None) => format!("{}--{long}", short.unwrap_or_default()),
        (None, value) if one.is_required_set() => format!("<{}>", value.unwrap_or_default()),
        (None, value) => format!("[{}]", value.unwrap_or_default()),
    };
    let defaults = one.get_default_values().iter();
    let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
    Argument {
        written,
        default: (takes_value && !defaults.is_empty()).then(|| defaults.join(" ")),
        help: one.get_help().map(ToString::to_string).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_arguments_are_written_as_they_are_typed() {
        let names: Vec<String> = leaves(&host()).iter().map(name).collect();
        assert!(
            names.contains(&"tandem-host xml set".to_owned()),
            "{names:?}"
        );
        let status = leaves(&guest())
            .into_iter()
            .find(|one| name(one) == "tandem status")
            .unwrap();
        assert!(
            usage(&status).starts_with("tandem status"),
            "{}",
            usage(&status)
        );
        let socket = arguments(&status)
            .into_iter()
            .find(|one| one.written.contains("--socket"))
            .unwrap();
        assert_eq!(socket.written, "--socket <PATH>");
        assert_eq!(
            socket.default.as_deref(),
            Some(tandem_guest::channel::SOCKET_PATH)
        );
        assert!(arguments(&status).iter().all(|one| !one.help.is_empty()));
    }
}
