//! A guest: booted, spoken to, its NICs coming and going, moved from host to host.

use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

use crate::agent::Agent;
use crate::agent::proto::PORT_NAME;
use crate::boot;
use crate::lab::{Inner, Lab};
use crate::net::Host;
use crate::qemu::accel;
use crate::qemu::{
    Console, Drive, HotPlug, Listener, Mac, MachineSpec, MigrationReport, Nic, NicModel, Qemu, Qmp,
    Slot, Start, VirtioPort,
};

/// The virtio-serial port of Tandem's own channel.
pub use tandem_wire::PORT_NAME as CHANNEL_PORT_NAME;
/// Root ports of a guest: so many NICs can come and go.
const ROOT_PORTS: u8 = 4;
/// The first device number of NICs that stay.
const FIRST_NIC_NUMBER: u8 = 4;

/// What a guest boots from.
#[derive(Debug, Clone)]
pub struct GuestImage {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// Kernel parameters beyond the lab's own.
    pub kernel_parameters: Vec<String>,
    /// Disks.
    pub drives: Vec<Drive>,
    /// Files that the lab's agent writes once the guest has booted: path and text.
    pub texts: Vec<(String, String)>,
    /// Whether a guest may start from the state that an earlier one had when it had booted the same.
    pub reusable: bool,
    /// The time until the lab's agent in the guest must answer.
    pub boot_limit: Duration,
    /// The longest time the console may be silent until then.
    pub silence_limit: Duration,
}

/// A guest's hardware.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u8,
    /// How hot-plug is signalled.
    pub hot_plug: HotPlug,
    /// Whether the guest has Tandem's channel.
    pub channel: bool,
    /// Whether its clock counts its instructions ([`MachineSpec::counts_instructions`]).
    pub counts_instructions: bool,
    /// NICs at the start.
    pub nics: Vec<Nic>,
    /// Further arguments for QEMU.
    pub extra_arguments: Vec<String>,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            memory_mib: 384,
            cpus: 2,
            hot_plug: HotPlug::Acpi,
            channel: true,
            counts_instructions: false,
            nics: Vec::new(),
            extra_arguments: Vec::new(),
        }
    }
}

impl Hardware {
    /// Adds the standby: a virtio NIC with the id `standby` (then `standby2`, …) that stays.
    pub fn add_standby(&mut self, mac: Mac) {
        let staying = self
            .nics
            .iter()
            .filter(|nic| matches!(nic.slot, Slot::RootBus(_)))
            .count();
        let number = u8::try_from(staying).unwrap_or(u8::MAX);
        let slot = Slot::RootBus(FIRST_NIC_NUMBER.saturating_add(number));
        let id = numbered("standby", staying);
        self.nics.push(Nic {
            id,
            model: NicModel::VirtioNet,
            mac,
            slot,
            properties: Vec::new(),
        });
    }

    /// Gives each virtio NIC of it two queues.
    pub fn two_queues(&mut self) {
        for nic in &mut self.nics {
            if nic.model == NicModel::VirtioNet {
                nic.two_queues();
            }
        }
    }

    /// Adds a NIC that can leave, with the id `vf` (then `vf2`, …).
    pub fn add_vf(&mut self, model: NicModel, mac: Mac) {
        let leaving = self
            .nics
            .iter()
            .filter(|nic| matches!(nic.slot, Slot::RootPort(_)))
            .count();
        let port = u8::try_from(leaving).unwrap_or(u8::MAX);
        self.nics
            .push(vf(&numbered("vf", leaving), model, mac, port));
    }
}

fn numbered(name: &str, before: usize) -> String {
    if before == 0 {
        name.to_owned()
    } else {
        format!("{name}{}", before + 1)
    }
}

fn vf(id: &str, model: NicModel, mac: Mac, port: u8) -> Nic {
    Nic {
        id: id.to_owned(),
        model,
        mac,
        slot: Slot::RootPort(port),
        properties: Vec::new(),
    }
}

/// A running guest. Its agent's methods can be called on it directly. Dropping it kills it.
#[derive(Debug)]
pub struct Vm {
    qemu: Qemu,
    agent: Agent,
    spec: MachineSpec,
    host: Host,
    booted_in: Duration,
    from_saved_state: bool,
    lab: Arc<Inner>,
}

impl Vm {
    /// Boots a guest on a host and waits for the lab's agent in it.
    pub fn boot(lab: &Lab, host: &Host, image: &GuestImage, hardware: &Hardware) -> Result<Self> {
        let nics = hardware
            .nics
            .iter()
            .map(|nic| Ok((nic.clone(), host.add_tap(nic.queues())?)))
            .collect::<Result<Vec<_>>>()?;
        let accelerator = accel::detect()?;
        let mut kernel_parameters = boot::kernel_parameters(accelerator);
        kernel_parameters.extend(image.kernel_parameters.iter().cloned());
        let mut spec = MachineSpec {
            kernel: image.kernel.clone(),
            initramfs: image.initramfs.clone(),
            kernel_parameters,
            memory_mib: hardware.memory_mib,
            cpus: hardware.cpus,
            accelerator,
            counts_instructions: hardware.counts_instructions,
            hot_plug: hardware.hot_plug,
            root_ports: ROOT_PORTS,
            nics,
            ports: ports(hardware.channel),
            drives: image.drives.clone(),
            extra_arguments: hardware.extra_arguments.clone(),
        };
        let started = Instant::now();
        let up = boot::bring_up(lab.inner(), host, &mut spec, image)?;
        let booted_in = started.elapsed();
        let vm = Self {
            qemu: up.qemu,
            agent: up.agent,
            spec,
            host: host.clone(),
            booted_in,
            from_saved_state: up.from_saved_state,
            lab: Arc::clone(lab.inner()),
        };
        for (path, text) in &image.texts {
            vm.write_file(path, text.as_bytes(), false)?;
        }
        Ok(vm)
    }

    /// The lab's agent in the guest. Clones of it live through migrations.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// QEMU's control connection; another one after a migration.
    pub fn qmp(&self) -> &Qmp {
        self.qemu.qmp()
    }

    /// The QEMU that runs the guest.
    pub fn qemu(&self) -> &Qemu {
        &self.qemu
    }

    /// The guest's console since it came to this host.
    pub fn console(&self) -> &Console {
        self.qemu.console()
    }

    /// Where it runs.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The time from QEMU's start to the agent's first answer.
    pub fn booted_in(&self) -> Duration {
        self.booted_in
    }

    /// Whether it did not boot, but goes on from where another guest like it had booted.
    pub fn is_from_saved_state(&self) -> bool {
        self.from_saved_state
    }

    /// The host's socket of Tandem's channel; another path after a migration.
    pub fn channel_socket(&self) -> PathBuf {
        self.qemu.folder().join("channel")
    }

    /// Connects to Tandem's channel. QEMU serves one client at a time.
    pub fn channel(&self) -> Result<UnixStream> {
        let path = self.channel_socket();
        UnixStream::connect(&path).with_context(|| format!("cannot connect to {}", path.display()))
    }

    /// Fails, with the console's end, if the guest is in trouble.
    pub fn check(&self) -> Result<()> {
        Ok(self.console().check()?)
    }

    /// The NICs the guest has, each with its tap on the host.
    pub fn nics(&self) -> &[(Nic, String)] {
        &self.spec.nics
    }

    /// The name of the tap behind a NIC.
    pub fn tap(&self, id: &str) -> Result<&str> {
        Ok(&self.spec.nics[self.position(id)?].1)
    }

    /// Plugs a VF into the first root port, under the id `vf`.
    pub fn plug_vf(&mut self, model: NicModel, mac: Mac) -> Result<()> {
        self.plug(vf("vf", model, mac, 0))
    }

    /// Takes the NIC `vf` away; gives the time until the guest gave it up.
    pub fn unplug_vf(&mut self) -> Result<Duration> {
        self.unplug("vf")
    }

    /// Plugs in a NIC.
    pub fn plug(&mut self, nic: Nic) -> Result<()> {
        if self.position(&nic.id).is_ok() {
            bail!("the guest has a NIC `{}` already", nic.id);
        }
        let tap = self.host.add_tap(nic.queues())?;
        self.qemu.plug_nic(&nic, &tap)?;
        self.spec.nics.push((nic, tap));
        Ok(())
    }

    /// Takes a NIC away; gives the time until the guest gave it up.
    pub fn unplug(&mut self, id: &str) -> Result<Duration> {
        let position = self.position(id)?;
        let took = self.qemu.unplug_nic(&self.spec.nics[position].0)?;
        let (_, tap) = self.spec.nics.remove(position);
        self.host.remove_tap(&tap)?;
        Ok(took)
    }

    /// Moves the running guest to another host. If that fails it goes on here.
    pub fn migrate_to(&mut self, host: &Host) -> Result<MigrationReport> {
        let mut spec = self.spec.clone();
        for (nic, tap) in &mut spec.nics {
            *tap = host.add_tap(nic.queues())?;
        }
        let (destination, report) = match self.try_migrate(host, &mut spec) {
            Ok(moved) => moved,
            Err(error) => {
                remove_taps(host, &spec.nics)?;
                return Err(error);
            }
        };
        let source = std::mem::replace(&mut self.qemu, destination);
        let spec = std::mem::replace(&mut self.spec, spec);
        let left = std::mem::replace(&mut self.host, host.clone());
        source
            .quit()
            .context("the source's QEMU after the migration")?;
        remove_taps(&left, &spec.nics)?;
        Ok(report)
    }

    /// Starts a QEMU on another host that waits for this guest on a unix socket, and has all its NICs but
    /// `without`. Whoever migrates the guest there says so by [`Self::arrived`]; until then its agent is not asked.
    pub fn wait_on(
        &self,
        host: &Host,
        without: &str,
        socket: &Path,
        extra_arguments: Vec<String>,
    ) -> Result<Waiting> {
        self.wait_able_to(&[], host, without, socket, extra_arguments)
    }

    /// The same, with capabilities of QEMU's migration that it takes on both sides.
    pub fn wait_able_to(
        &self,
        capabilities: &[&str],
        host: &Host,
        without: &str,
        socket: &Path,
        extra_arguments: Vec<String>,
    ) -> Result<Waiting> {
        let mut spec = self.spec.clone();
        spec.nics.retain(|(nic, _)| nic.id != without);
        for (nic, tap) in &mut spec.nics {
            *tap = host.add_tap(nic.queues())?;
        }
        spec.extra_arguments = extra_arguments;
        let (qemu, stream) = start(&self.lab, host, &mut spec, Start::Incoming)?;
        let on = |name: &&str| serde_json::json!({ "capability": name, "state": true });
        let on: Vec<_> = capabilities.iter().map(on).collect();
        qemu.qmp().execute(
            "migrate-set-capabilities",
            serde_json::json!({ "capabilities": on }),
        )?;
        let uri = serde_json::json!({ "uri": format!("unix:{}", socket.display()) });
        qemu.qmp().execute("migrate-incoming", uri)?;
        self.agent.pause();
        Ok(Waiting {
            qemu,
            stream,
            spec,
            host: host.clone(),
        })
    }

    /// The guest runs there now. The QEMU that it left comes back.
    pub fn arrived(&mut self, waiting: Waiting) -> Result<Qemu> {
        let console = waiting.qemu.console().clone();
        self.agent.resume(waiting.stream, Some(console))?;
        self.spec = waiting.spec;
        self.host = waiting.host;
        Ok(std::mem::replace(&mut self.qemu, waiting.qemu))
    }

    /// It did not go there, and is asked again here.
    pub fn stayed(&self, waiting: Waiting) -> Result<()> {
        let Waiting {
            qemu, spec, host, ..
        } = waiting;
        // It may have ended with its migration.
        drop(qemu);
        self.agent.unpause();
        remove_taps(&host, &spec.nics)
    }

    fn try_migrate(&self, host: &Host, spec: &mut MachineSpec) -> Result<(Qemu, MigrationReport)> {
        let (destination, stream) = start(&self.lab, host, spec, Start::Incoming)?;
        self.agent.pause();
        match self
            .qemu
            .migrate_to(&destination, &destination.folder().join("migrate"))
        {
            Ok(report) => {
                self.agent
                    .resume(stream, Some(destination.console().clone()))?;
                Ok((destination, report))
            }
            Err(error) => {
                self.agent.unpause();
                Err(error)
            }
        }
    }

    fn position(&self, id: &str) -> Result<usize> {
        let position = self.spec.nics.iter().position(|(nic, _)| nic.id == id);
        position.with_context(|| format!("the guest has no NIC `{id}`"))
    }
}

/// A QEMU that waits for a guest.
#[derive(Debug)]
pub struct Waiting {
    qemu: Qemu,
    stream: UnixStream,
    spec: MachineSpec,
    host: Host,
}

impl Waiting {
    /// The host's socket of Tandem's channel.
    pub fn channel_socket(&self) -> PathBuf {
        self.qemu.folder().join("channel")
    }

    /// Its process.
    ///
    /// # Errors
    /// It has none any more.
    pub fn process(&self) -> Result<Pid> {
        self.qemu.process()
    }

    /// The name of the tap behind a NIC.
    pub fn tap(&self, id: &str) -> Result<&str> {
        let mut nics = self.spec.nics.iter();
        let found = nics.find(|(nic, _)| nic.id == id);
        let (_, tap) = found.with_context(|| format!("the guest has no NIC `{id}`"))?;
        Ok(tap)
    }

    /// What it takes to plug a VF into the first root port there, under the id `vf`: `netdev` and `device`.
    pub fn vf(&self, model: NicModel, mac: Mac) -> Result<serde_json::Value> {
        let nic = vf("vf", model, mac, 0);
        let tap = self.host.add_tap(nic.queues())?;
        Ok(serde_json::json!({ "netdev": nic.netdev(&tap), "device": nic.device() }))
    }
}

impl Deref for Vm {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        &self.agent
    }
}

/// Starts a QEMU with sockets in a folder of its own; gives it and the agent's connection.
pub(crate) fn start(
    lab: &Inner,
    host: &Host,
    spec: &mut MachineSpec,
    start: Start,
) -> Result<(Qemu, UnixStream)> {
    let folder = lab.new_folder("vm")?;
    for port in &mut spec.ports {
        port.socket = socket_of(&folder, &port.name);
    }
    let (qemu, streams) = Qemu::start(spec, &folder, Some(host.namespace().name()), start)?;
    let stream = streams
        .into_iter()
        .next()
        .context("QEMU opened no port for the lab's agent")?;
    Ok((qemu, stream))
}

fn remove_taps(host: &Host, nics: &[(Nic, String)]) -> Result<()> {
    nics.iter().try_for_each(|(_, tap)| host.remove_tap(tap))
}

fn ports(channel: bool) -> Vec<VirtioPort> {
    let port = |name: &str, listener| VirtioPort {
        name: name.to_owned(),
        socket: PathBuf::new(),
        listener,
    };
    let mut ports = vec![port(PORT_NAME, Listener::Lab)];
    if channel {
        ports.push(port(CHANNEL_PORT_NAME, Listener::Qemu));
    }
    ports
}

fn socket_of(folder: &Path, port: &str) -> PathBuf {
    folder.join(if port == PORT_NAME { "lab" } else { "channel" })
}
