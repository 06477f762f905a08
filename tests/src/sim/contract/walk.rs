//! Two kernels put through the same, step by step and by chance, and compared
//! after each step: finds what nobody thought of writing a case for.

use anyhow::{Context as _, Result, ensure};
use tandem_core::action::{ActionKind, BondOptions};
use tandem_core::input::Outcome;
use tandem_core::link::{FailOverMac, PrimaryReselect};
use tandem_core::{Ifindex, Mac};

use super::view::{KernelView, Role};
use super::{BOND_MAC, Rig, address, address6, bond_name, route, usual};
use crate::sim::Kernel;
use crate::sim::fake::name;
use crate::sim::rng::Rng;

/// Steps that do not fit are drawn again, so often.
const DRAWS: u32 = 1_000;

/// What the service, other managers or the host may do.
#[derive(Debug, Clone, Copy)]
enum Step {
    CreateBond(Option<Mac>, FailOverMac, PrimaryReselect),
    SetOptions(BondOptions),
    SetMac,
    SetMtu(u32),
    SetAdminUp(Role, bool),
    Enslave(Role),
    Release(Role),
    SetPrimary(Role),
    AddAddressing(Role),
    MoveAddressing(Role),
    FlushAddressing(Role),
    PlugVf,
    UnplugVf,
    SetCable(Role, bool),
    RenameVf,
    SetActive(Role),
    DeleteBond,
}

/// Puts two kernels through the same steps, which the seed decides.
///
/// # Errors
/// They differ: the steps and what was seen of each; or one of them can't be asked.
pub fn walk(kernels: [&mut dyn Kernel; 2], seed: u64, steps: u32) -> Result<()> {
    let mut rigs = kernels.map(Rig::new);
    let walked = walk_both(&mut rigs, seed, steps);
    let mut cleaned = Ok(());
    for rig in &mut rigs {
        cleaned = cleaned.and(rig.clean_up().context("cleaning up"));
    }
    walked.and(cleaned)
}

fn walk_both([one, other]: &mut [Rig<'_>; 2], seed: u64, steps: u32) -> Result<()> {
    let mut rng = Rng::new(seed);
    let mut history = String::new();
    let mut view = one.view()?;
    let differences = view.differences(&other.view()?);
    ensure!(
        differences.is_empty(),
        "different at first:\n{}",
        differences.join("\n")
    );
    for number in 1..=steps {
        let step = draw(&mut rng, &view).context("no step fits")?;
        history.push_str(&format!("\n{number:3} {step:?}"));
        let (first, first_view) = one.take(step).context(history.clone())?;
        let (second, second_view) = other.take(step).context(history.clone())?;
        ensure!(
            first == second,
            "seed {seed}:{history}\nended {first} and {second}"
        );
        let differences = first_view.differences(&second_view);
        ensure!(
            differences.is_empty(),
            "seed {seed}:{history}\nleft them different:\n{}",
            differences.join("\n")
        );
        view = first_view;
    }
    Ok(())
}

fn draw(rng: &mut Rng, view: &KernelView) -> Option<Step> {
    let mut draws = (0..DRAWS).map(|_| any_step(rng));
    draws.find(|step| fits(*step, view))
}

fn any_step(rng: &mut Rng) -> Step {
    let nic = if rng.chance(500) {
        Role::Standby
    } else {
        Role::Vf
    };
    let any = if rng.chance(300) { Role::Bond } else { nic };
    let reselect = match rng.below(4) {
        0 => PrimaryReselect::Always,
        _ => PrimaryReselect::Failure,
    };
    let fail_over_mac = if rng.chance(300) {
        FailOverMac::Active
    } else {
        FailOverMac::None
    };
    match rng.below(100) {
        0..10 => {
            let mac = rng.chance(700).then_some(BOND_MAC);
            Step::CreateBond(mac, fail_over_mac, reselect)
        }
        10..14 => Step::SetOptions(BondOptions {
            fail_over_mac: rng.chance(300).then_some(fail_over_mac),
            primary_reselect: rng.chance(500).then_some(reselect),
            all_ports_active: rng.chance(500).then_some(true),
            ..BondOptions::default()
        }),
        14..17 => Step::SetMac,
        17..20 => Step::SetMtu(*rng.pick(&[1400, 1500, 9000, 10_000]).unwrap_or(&1500)),
        20..30 => Step::SetAdminUp(any, rng.chance(700)),
        30..44 => Step::Enslave(nic),
        44..50 => Step::Release(nic),
        50..58 => Step::SetPrimary(nic),
        58..64 => Step::AddAddressing(any),
        64..70 => Step::MoveAddressing(nic),
        70..74 => Step::FlushAddressing(any),
        74..82 => Step::PlugVf,
        82..86 => Step::UnplugVf,
        86..93 => Step::SetCable(nic, rng.chance(600)),
        93..95 => Step::RenameVf,
        95..99 => Step::SetActive(nic),
        _ => Step::DeleteBond,
    }
}

/// The interfaces are there, and it is something that somebody does.
fn fits(step: Step, view: &KernelView) -> bool {
    let seen = |role: Role| view.links.get(&role);
    let has = |role: Role| seen(role).is_some();
    let is_port = |role: Role| seen(role).is_some_and(|one| one.controller.is_some());
    let bond_is_open = seen(Role::Bond).is_some_and(|bond| bond.admin_up);
    let has_addresses = |role: Role| seen(role).is_some_and(|one| !one.addresses.is_empty());
    match step {
        Step::CreateBond(..) => !has(Role::Bond),
        Step::PlugVf => !has(Role::Vf),
        Step::UnplugVf => has(Role::Vf),
        Step::SetOptions(_) | Step::DeleteBond => has(Role::Bond),
        // An open NIC may reset itself for another MTU, and be without carrier for
        // a moment; with ports the core leaves the bond's MAC and MTU alone.
        Step::SetMac | Step::SetMtu(_) => has(Role::Bond) && view.ports() == 0,
        Step::SetAdminUp(role, up) => seen(role).is_some_and(|one| one.admin_up != up),
        // virtio_net tells its carrier from a work queue once it is opened (`virtnet_open`,
        // Linux 6.12): whether a new port counts as up is chance, which only the link
        // monitor of an open bond corrects.
        Step::Enslave(nic) => has(nic) && bond_is_open && !is_port(nic),
        Step::Release(nic) | Step::SetPrimary(nic) | Step::SetActive(nic) => is_port(nic),
        Step::AddAddressing(role) => has(role) && !is_port(role),
        Step::MoveAddressing(nic) => has_addresses(nic) && has(Role::Bond),
        Step::FlushAddressing(role) => has_addresses(role),
        Step::SetCable(nic, _) => has(nic),
        // Linux before 6.2 renames closed interfaces only.
        Step::RenameVf => seen(Role::Vf).is_some_and(|vf| !vf.admin_up),
    }
}

impl Rig<'_> {
    /// Takes a step; says how it ended and what there is then.
    fn take(&mut self, step: Step) -> Result<(String, KernelView)> {
        let outcome = self.try_step(step)?;
        self.settle()?;
        Ok((outcome, self.view()?))
    }

    fn try_step(&mut self, step: Step) -> Result<String> {
        let action = match step {
            Step::PlugVf => {
                self.plug_vf()?;
                return Ok("well".into());
            }
            Step::UnplugVf => {
                self.unplug_vf()?;
                return Ok("well".into());
            }
            Step::SetCable(nic, plugged) => {
                let nic = self.index(nic)?;
                self.set_cable(nic, plugged)?;
                return Ok("well".into());
            }
            Step::RenameVf => {
                let vf = self.index(Role::Vf)?;
                self.kernel.rename(vf, &name("renamed0"))?;
                return Ok("well".into());
            }
            Step::DeleteBond => {
                let bond = self.index(Role::Bond)?;
                self.kernel.delete_bond(bond)?;
                return Ok("well".into());
            }
            Step::SetActive(port) => {
                let (bond, port) = (self.index(Role::Bond)?, self.index(port)?);
                let taken = self.kernel.set_active(bond, port)?;
                return Ok(format!("taken: {taken}"));
            }
            Step::CreateBond(mac, fail_over_mac, primary_reselect) => ActionKind::CreateBond {
                name: bond_name(),
                mac,
                options: BondOptions {
                    fail_over_mac: Some(fail_over_mac),
                    primary_reselect: Some(primary_reselect),
                    ..usual()
                },
            },
            Step::SetOptions(options) => ActionKind::SetBondOptions {
                bond: self.index(Role::Bond)?,
                options,
            },
            Step::SetMac => ActionKind::SetMac {
                link: self.index(Role::Bond)?,
                mac: BOND_MAC,
            },
            Step::SetMtu(mtu) => ActionKind::SetMtu {
                link: self.index(Role::Bond)?,
                mtu,
            },
            Step::SetAdminUp(role, up) => ActionKind::SetAdminUp {
                link: self.index(role)?,
                up,
            },
            Step::Enslave(nic) => ActionKind::Enslave {
                port: self.index(nic)?,
                bond: self.index(Role::Bond)?,
            },
            Step::Release(nic) => ActionKind::Release {
                port: self.index(nic)?,
                bond: self.index(Role::Bond)?,
            },
            Step::SetPrimary(nic) => ActionKind::SetPrimary {
                bond: self.index(Role::Bond)?,
                port: self.index(nic)?,
            },
            Step::AddAddressing(role) => ActionKind::AddAddressing {
                link: self.index(role)?,
                addresses: vec![address([192, 0, 2, last_byte(role)]), address6()],
                routes: vec![route()],
            },
            Step::MoveAddressing(nic) => ActionKind::MoveAddressing {
                from: self.index(nic)?,
                to: self.index(Role::Bond)?,
            },
            Step::FlushAddressing(role) => ActionKind::FlushAddressing {
                link: self.index(role)?,
            },
        };
        Ok(match self.kernel.act(&action)? {
            // The words are the kernel's own.
            Outcome::Failed { errno, .. } => format!("errno {errno}"),
            other => format!("{other:?}"),
        })
    }

    fn index(&mut self, role: Role) -> Result<Ifindex> {
        let index = self.index_of(role)?;
        index.with_context(|| format!("there is no {role:?}"))
    }
}

fn last_byte(role: Role) -> u8 {
    match role {
        Role::Standby => 71,
        Role::Vf => 72,
        Role::Bond => 73,
    }
}
