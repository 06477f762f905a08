//! `tandem-host prepare` and `tandem-host resume`: the two calls that another manager puts around
//! its own detach and attach.

use anyhow::Context as _;
use tandem_core::status::Answer;
use tandem_core::types::IfName;

use super::args;
use crate::agent::{Agent, ChannelLimits};
use crate::control::LeaseClient;
use crate::hypervisor::channel_of;

/// Moves the guest's traffic off its VF; afterwards the VF may be detached.
///
/// # Errors
/// If the guest can't be asked, refuses, or has not released the VF.
pub async fn prepare(arguments: &args::OneStep) -> anyhow::Result<u8> {
    let lease_client = arguments.common.connect.lease_client();
    let (mut agent, bond) = agent(arguments, &lease_client).await?;
    let answer = agent.prepare_unplug(bond, None).await?;
    anyhow::ensure!(
        answer.ready,
        "the guest has not released the VF yet; try again"
    );
    tell(arguments, &answer)
}

/// Lets the guest take a VF again, after another one was attached or the detach was given up.
///
/// # Errors
/// If the guest can't be asked, or refuses.
pub async fn resume(arguments: &args::OneStep) -> anyhow::Result<u8> {
    let lease_client = arguments.common.connect.lease_client();
    let (mut agent, bond) = agent(arguments, &lease_client).await?;
    let answer = agent.resume(bond).await?;
    tell(arguments, &answer)
}

async fn agent(
    arguments: &args::OneStep,
    lease_client: &LeaseClient,
) -> anyhow::Result<(Agent, Option<IfName>)> {
    let name = arguments.domain.as_str();
    let bond = arguments.bond.as_deref().map(str::parse).transpose()?;
    let host = arguments.common.connect.open();
    let look = host.look(name).await?;
    let socket = channel_of(&look.facts).with_context(|| arguments.common.connect.uri.clone())?;
    let agent = lease_client
        .connect(name, &socket, ChannelLimits::default())
        .await?;
    Ok((agent, bond))
}

fn tell(arguments: &args::OneStep, answer: &Answer) -> anyhow::Result<u8> {
    if arguments.common.json {
        println!("{}", serde_json::to_string_pretty(answer)?);
        return Ok(0);
    }
    println!(
        "bond {}: traffic {:?}",
        crate::words::printable(answer.bond.as_str()),
        answer.traffic
    );
    for step in &answer.done {
        println!("  {}", crate::agent::printable(step));
    }
    Ok(0)
}
