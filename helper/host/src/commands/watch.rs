//! `watch`: each change of a domain as it happens, from `serve`.

use anyhow::{Result, bail};
use clap::Args;

use super::connect::Connect;
use super::status;
use crate::agent::printable;
use crate::control::{ControlReply, ControlRequest, Watching};
use crate::report::domain_text;

/// `tandem-host watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Name of the domain; by default all that run
    pub domain: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub connect: Connect,
}

/// Prints what is known, then each change, until it is interrupted or `serve` ends.
///
/// # Errors
/// If no `serve` runs, or it ends.
pub async fn run(arguments: &WatchArgs) -> Result<u8> {
    let request = ControlRequest::Watch {
        uri: arguments.connect.open().uri().to_owned(),
        domain: arguments.domain.clone(),
    };
    let mut serve = Watching::ask(&arguments.connect.serve_socket, &request).await?;
    loop {
        let reply = serve.next().await?;
        match text_of(&reply, arguments.json)? {
            Some(text) if !printed(&text)? => return Ok(0),
            _ => {}
        }
    }
}

/// False once nobody reads any more, as with `| head`.
fn printed(text: &str) -> std::io::Result<bool> {
    use std::io::Write as _;
    let mut output = std::io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true),
    }
}

fn text_of(reply: &ControlReply, as_json: bool) -> Result<Option<String>> {
    Ok(match reply {
        ControlReply::Domain(shown) if as_json => Some(format!("{}\n", status::json(shown))),
        ControlReply::Domain(shown) => Some(domain_text(&shown.report, Some(shown.age_ms))),
        ControlReply::Gone { domain } if as_json => {
            let gone = serde_json::json!({ "domain": domain, "state": "absent" });
            Some(format!("{gone}\n"))
        }
        ControlReply::Gone { domain } => Some(format!("{}: gone\n", printable(domain))),
        ControlReply::OtherHost { uri } => bail!(
            "the `tandem-host serve` on this socket cares for {uri}; name that one by --connect, or \
             another socket by --serve-socket"
        ),
        _ => None,
    })
}
