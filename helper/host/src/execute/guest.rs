//! What the guest is asked, and what its answers mean for the evacuation.

use tandem_core::Policy;
use tandem_core::policy::{Origin, PortMatch};
use tandem_core::status::{BondStatus, Status, Traffic};
use tandem_core::types::IfName;
use tokio::sync::Mutex;

use crate::agent::{Agent, AgentError, ChannelLimits, printable};
use crate::control::LeaseClient;
use crate::evacuate::{Failure, FailureKind, GuestCall, GuestStatus, Reply, Spec};
use crate::hypervisor::ChannelSocket;

/// What stops nothing, for the report; each text once.
#[derive(Debug, Default)]
pub(super) struct Warnings(std::sync::Mutex<Vec<String>>);

impl Warnings {
    /// More of one evacuation are not kept.
    const MOST: usize = 16;

    fn add(&self, text: String) {
        let mut all = self.0.lock().expect("no holder panics");
        if all.len() < Self::MOST && !all.contains(&text) {
            all.push(text);
        }
    }

    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no holder panics"))
    }
}

/// One host's end of the channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    /// Where the hypervisor listens, as the last look showed.
    pub(super) socket: std::sync::Mutex<Option<ChannelSocket>>,
    /// Why there is none, if its XML names one that is not opened.
    pub(super) refused: std::sync::Mutex<Option<String>>,
    agent: Mutex<Option<Agent>>,
}

impl Channel {
    /// Asks, over the connection there is or a new one.
    pub(super) async fn ask(
        &self,
        lease_client: &LeaseClient,
        domain: &str,
        spec: &Spec,
        policy: Option<&Policy>,
        warnings: &Warnings,
        call: GuestCall,
    ) -> Reply {
        let mut agent = self.agent.lock().await;
        let answer = match agent.take() {
            Some(known) => Ok(known),
            None => self.connect(lease_client, domain).await,
        };
        let mut connected = match answer {
            Ok(connected) => connected,
            Err(failure) => return Reply::Failed(failure),
        };
        match carry_out(&mut connected, spec, policy, warnings, call).await {
            Ok(reply) => {
                *agent = Some(connected);
                reply
            }
            Err(error) => {
                // A refusal is an answer; after all else the next call begins anew.
                if matches!(error, AgentError::Refused { .. }) {
                    *agent = Some(connected);
                }
                Reply::Failed(failure(&error))
            }
        }
    }

    async fn connect(&self, lease_client: &LeaseClient, domain: &str) -> Result<Agent, Failure> {
        let socket = self.socket.lock().expect("no holder panics").clone();
        let Some(socket) = socket else {
            let refused = self.refused.lock().expect("no holder panics").clone();
            if let Some(reason) = refused {
                let text = format!("the guest is not asked: {reason}");
                return Err(Failure::new(FailureKind::AgentSilent, text));
            }
            let text = "the guest has not opened the channel org.tandem.agent.0 on this host: is \
                        tandem running in it, and does `virsh dumpxml` show the channel?";
            return Err(Failure::new(FailureKind::AgentSilent, text));
        };
        let connected = lease_client
            .connect(domain, &socket, ChannelLimits::default())
            .await;
        connected.map_err(|error| failure(&error))
    }
}

async fn carry_out(
    agent: &mut Agent,
    spec: &Spec,
    policy: Option<&Policy>,
    warnings: &Warnings,
    call: GuestCall,
) -> Result<Reply, AgentError> {
    let bond = |device: usize| bond_of(spec, device);
    match call {
        GuestCall::Hello => {
            agent.info().await?;
        }
        GuestCall::Configure => {
            let Some(policy) = policy else {
                return Ok(Reply::Accepted);
            };
            match agent.configure(policy.clone()).await {
                // The guest has bonds of its own, and says how they are.
                Err(AgentError::Refused { refusal, .. }) if is_own_choice(&refusal.code) => {}
                answer => {
                    let (_, lacks) = answer?;
                    if let Some(lacks) = lacks {
                        tracing::warn!("domain {}: {lacks}", printable(&spec.domain));
                        warnings.add(lacks);
                    }
                }
            }
        }
        GuestCall::PrepareUnplug(device) => {
            let vf = spec.devices.get(device).and_then(|one| one.source.as_ref());
            let mac = vf.and_then(|vf| vf.guest_mac);
            let answer = agent.prepare_unplug(bond(device), mac).await?;
            if !answer.ready {
                let of = bond(device).map(|bond| format!(" of {}", printable(bond.as_str())));
                let text = format!(
                    "the guest has not released the VF{} yet; `tandem status` in it says what it waits for",
                    of.unwrap_or_default()
                );
                return Ok(Reply::Failed(Failure::new(FailureKind::AgentSilent, text)));
            }
        }
        GuestCall::Announce(device) => {
            agent.announce(bond(device)).await?;
        }
        GuestCall::Resume(device) => {
            agent.resume(bond(device)).await?;
        }
        GuestCall::Status => {
            let status = agent.status().await?.status;
            let bonds = spec.of_bonds();
            let told = bonds.map(|device| {
                let mut told = status_of(&status, bond(device).as_ref());
                told.knows_vf = knows_vf(&status, spec, device);
                (device, told)
            });
            return Ok(Reply::Status(told.collect()));
        }
    }
    Ok(Reply::Accepted)
}

fn bond_of(spec: &Spec, device: usize) -> Option<IfName> {
    spec.devices.get(device)?.bond()?.parse().ok()
}

fn is_own_choice(code: &Option<String>) -> bool {
    matches!(code.as_deref(), Some("defined-by-file" | "not-allowed"))
}

fn failure(error: &AgentError) -> Failure {
    let kind = match error {
        AgentError::Refused { .. } => FailureKind::AgentRefused,
        AgentError::NotUnderstood { .. }
        | AgentError::OtherProtocol(_)
        | AgentError::Floods { .. } => FailureKind::AgentHostile,
        AgentError::Socket { .. }
        | AgentError::Foreign { .. }
        | AgentError::Leased { .. }
        | AgentError::Silent { .. }
        | AgentError::Closed => FailureKind::AgentSilent,
    };
    Failure::new(kind, error.to_string())
}

/// Whether a guest with bonds of its own would use the VF that is to come. One that does not say which VFs it knows
/// is an older one, and a VF without a MAC may be any: nothing speaks against them.
fn knows_vf(status: &Status, spec: &Spec, device: usize) -> Option<bool> {
    if status.policy != Origin::File {
        return None;
    }
    let bond = bond_of(spec, device);
    let named = |one: &&BondStatus| bond.as_ref().is_none_or(|name| one.name == *name);
    let known = &status.bonds.iter().find(named)?.known_vfs;
    let mac = spec.devices.get(device)?.destination.as_ref()?.guest_mac;
    let may_be = |one: &PortMatch| one.mac.is_none() || mac.is_none() || one.mac == mac;
    Some(known.is_empty() || known.iter().any(may_be))
}

/// What the guest's status says of the bond.
pub(crate) fn status_of(status: &Status, bond: Option<&IfName>) -> GuestStatus {
    let named = |one: &&BondStatus| bond.is_none_or(|name| one.name == *name);
    let Some(bond) = status.bonds.iter().find(named) else {
        return GuestStatus {
            reason: "it has no such bond".to_owned(),
            ..GuestStatus::default()
        };
    };
    let usable = |carrier: bool, enslaved: bool| carrier && enslaved;
    let standby = bond.standby.as_ref();
    // From the switchover off the last VF on: those of one evacuation.
    let left = bond
        .switchovers
        .iter()
        .rposition(|one| one.from == Traffic::Vf);
    let recent = bond.switchovers.iter().skip(left.unwrap_or(0));
    let gaps = recent.filter_map(|switchover| switchover.gap);
    let gaps = gaps.flat_map(|gap| [gap.receive_us, gap.transmit_us]);
    GuestStatus {
        bond_known: true,
        standby_usable: standby.is_some_and(|port| usable(port.carrier, port.enslaved)),
        vf_active: bond.traffic == Traffic::Vf,
        knows_vf: None,
        gap_us: gaps.flatten().max(),
        reason: printable(&bond.reason),
    }
}
