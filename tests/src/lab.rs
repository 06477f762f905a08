//! A lab: one run with its hosts, its network and its guests.

use std::cell::Cell;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::agent::Agent;
use crate::artifacts::host_tools::{self, HostTool};
use crate::command;
use crate::net::{Client, Host, Namespace, Switch};
use crate::probe::{FrameOptions, FrameProbe, StreamProbe};
use crate::run_folder::RunFolder;
use crate::small_guest::SmallGuest;
use crate::vm::Vm;

const RECORD_INTERVAL: Duration = Duration::from_millis(20);
const STREAM_LIMIT: Duration = Duration::from_secs(60);

/// Guests under emulation need most of the cores, so one lab runs at a time in a process; which processes run side by
/// side is up to who starts them.
static TURN: Mutex<()> = Mutex::new(());

thread_local! {
    static HAS_LAB: Cell<bool> = const { Cell::new(false) };
}

/// What a test builds its world in. Everything of it goes away when it and its guests are dropped.
#[derive(Debug)]
pub struct Lab {
    inner: Arc<Inner>,
    _turn: Turn,
}

/// What hosts and guests keep alive.
#[derive(Debug)]
pub(crate) struct Inner {
    name: String,
    next_number: AtomicU32,
    client: OnceLock<Client>,
    making: Mutex<()>,
    switch: Switch,
    run: RunFolder,
}

impl Lab {
    /// Begins a lab: waits until no other is active in this process, and installs missing host tools.
    /// A thread can have one lab at a time.
    pub fn new(name: &str) -> Result<Self> {
        let turn = Turn::take()?;
        if !rustix::process::geteuid().is_root() {
            bail!("the lab makes network namespaces, taps and guests: run it as root");
        }
        host_tools::ensure(&HostTool::SMALL_GUEST)?;
        let run = RunFolder::create()?;
        let switch = Switch::create(&run).context("cannot make the lab's network")?;
        let inner = Inner {
            name: name.to_owned(),
            next_number: AtomicU32::new(1),
            client: OnceLock::new(),
            making: Mutex::new(()),
            switch,
            run,
        };
        Ok(Self {
            inner: Arc::new(inner),
            _turn: turn,
        })
    }

    /// For a test: a lab, or nothing after saying why it is skipped. With `LAB_REQUIRE=all` a missing
    /// capability fails the test.
    ///
    /// # Panics
    /// If the lab cannot be made although this machine should be able to.
    pub fn for_test(name: &str) -> Option<Self> {
        let lack = (!rustix::process::geteuid().is_root()).then(|| "not root".to_owned());
        let lack = lack.or_else(|| {
            host_tools::ensure(&HostTool::SMALL_GUEST)
                .err()
                .map(|error| format!("{error:#}"))
        });
        if let Some(reason) = lack {
            let required = std::env::var("LAB_REQUIRE").is_ok_and(|value| value == "all");
            assert!(!required, "{name}: LAB_REQUIRE=all is set, but {reason}");
            command::progress(&format!("skip: {name}: {reason}"));
            return None;
        }
        match Self::new(name) {
            Ok(lab) => Some(lab),
            Err(error) => panic!("{name}: cannot make a lab: {error:?}"),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The folder of this run, for files that shall go away with it. Its path is short.
    pub fn folder(&self) -> &Path {
        self.inner.run.path()
    }

    /// Makes a host; each name once. A name is short: it becomes part of interface names.
    pub fn host(&self, name: &str) -> Result<Host> {
        Host::create(&self.inner.run, &self.inner.switch, name)
    }

    /// The client, made when first asked for.
    pub fn client(&self) -> Result<&Client> {
        let _making = self
            .inner
            .making
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = self.inner.client.get() {
            return Ok(client);
        }
        let client = Client::create(&self.inner.run, &self.inner.switch)?;
        Ok(self.inner.client.get_or_init(|| client))
    }

    /// The switch's namespace; its port to a host is `to-NAME`.
    pub fn switch(&self) -> &Namespace {
        self.inner.switch.namespace()
    }

    /// Describes a guest that boots from an initramfs.
    pub fn small_guest(&self) -> SmallGuest<'_> {
        SmallGuest::new(self)
    }

    /// Starts numbered frames both ways between the client and a guest at this address.
    pub fn probe_frames(
        &self,
        vm: &Vm,
        guest: IpAddr,
        options: FrameOptions,
    ) -> Result<FrameProbe> {
        self.probe_frames_of(vm.agent(), guest, options)
    }

    /// The same, for a guest that something else than the lab has started.
    pub(crate) fn probe_frames_of(
        &self,
        agent: &Agent,
        guest: IpAddr,
        options: FrameOptions,
    ) -> Result<FrameProbe> {
        let client = self.client()?;
        let own = if guest.is_ipv4() {
            client.v4()
        } else {
            client.v6()
        };
        FrameProbe::start(
            (client.agent(), own),
            (agent, guest),
            options,
            self.folder(),
        )
    }

    /// Starts a TCP connection from the client to a guest at this address, a record every 20 ms.
    pub fn probe_stream(&self, vm: &Vm, guest: IpAddr) -> Result<StreamProbe> {
        StreamProbe::start(
            self.client()?.agent(),
            (vm.agent(), guest),
            RECORD_INTERVAL,
            STREAM_LIMIT,
        )
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Inner {
    /// A new folder of this run, its name beginning with `prefix`.
    pub(crate) fn new_folder(&self, prefix: &str) -> Result<PathBuf> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let path = self.run.path().join(format!("{prefix}{number}"));
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }
}

/// The right to be the active lab of this process.
#[derive(Debug)]
struct Turn {
    _guard: MutexGuard<'static, ()>,
}

impl Turn {
    fn take() -> Result<Self> {
        if HAS_LAB.get() {
            bail!("this thread has a lab already: drop it first");
        }
        let guard = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        HAS_LAB.set(true);
        Ok(Self { _guard: guard })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        HAS_LAB.set(false);
    }
}
