//! What goes wrong in a run, and when.

use tandem_host::evacuate::{AgentUse, Phase, Side};

use crate::rng::Rng;

/// So many ms after a process first enters that phase.
pub(crate) type When = (Phase, u64);

/// What the guest's hot-plug driver does with an unplug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unplug {
    /// Releases the VF after so many ms.
    After(u64),
    /// Does nothing.
    Ignored,
    /// Answers `DEVICE_UNPLUG_GUEST_ERROR` so many times, then obeys.
    Refused(u32),
}

/// How a migration goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// It works.
    Works,
    /// The destination refuses it at once: not enough memory.
    NoMemory,
    /// It fails at so many percent.
    FailsAt(u64),
    /// The operator cancels it with other means at so many percent.
    CancelledAt(u64),
    /// It never converges.
    Hangs,
    /// It fails after the source was paused; the hypervisor leaves it paused, or not.
    FailsInSwitchOver { stranded: bool },
    /// It switches to post-copy.
    PostCopy,
    /// So does this one, whose connection breaks so often before all of the memory has come.
    PostCopyBreaks(u32),
    /// Its handle ends with an error at so many percent, and it goes on and works.
    LosesHandle(u64),
}

/// What becomes of a carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carry {
    /// None is wanted.
    NotWanted,
    /// The halves can't be started.
    Refused,
    /// It ends so many ms after the domain has arrived.
    Ends(u64),
    /// Nothing is heard of it any more, and its stop left the domain paused where it arrived.
    LeavesPaused,
}

/// What answers in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agent {
    /// Tandem.
    Good,
    /// Nothing.
    Missing,
    /// Bytes that are no protocol.
    Hostile,
    /// It says that all is well, whatever is so, and does nothing.
    Liar,
    /// Its standby can't carry the traffic.
    NotReady,
    /// It says that releasing the VF would cut it off.
    SaysNo,
}

/// What becomes of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceScript {
    /// It is of no bond, and let go.
    pub(crate) let_go: bool,
    pub(crate) unplug: Unplug,
    pub(crate) gone_already: bool,
    /// How often plugging it in fails, by host.
    pub(crate) attach_failures: [u32; 2],
    /// The destination has one for it.
    pub(crate) named: bool,
}

/// Most devices of a run.
pub(crate) const MAX_DEVICES: usize = 4;

/// One run's faults.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// There is neither a first device nor any other.
    pub(crate) no_device: bool,
    /// Devices besides the first, whose course is told further down.
    pub(crate) more: Vec<DeviceScript>,
    pub(crate) vf_is_taken: bool,
    pub(crate) unplug: Unplug,
    pub(crate) vf_gone_already: bool,
    pub(crate) course: Course,
    pub(crate) carry: Carry,
    /// From start to end, in ms.
    pub(crate) migration_ms: u64,
    /// How often plugging in fails, by host.
    pub(crate) attach_failures: [u32; 2],
    pub(crate) agent: Agent,
    /// It does not announce itself over the bond of this device.
    pub(crate) refuses_announce: Option<usize>,
    pub(crate) agent_use: AgentUse,
    pub(crate) yes_degraded: bool,
    /// The destination is another machine, whose channels can't be opened here.
    pub(crate) destination_is_remote: bool,
    pub(crate) names_vf: bool,
    /// Host, when, and for how many ms its hypervisor can't be asked.
    pub(crate) outages: Vec<(Side, When, u64)>,
    pub(crate) aborts: Vec<When>,
    /// When the process is killed, and how many ms later a recovery starts.
    pub(crate) kills: Vec<(When, u64)>,
    /// The recovery knows that the one before is dead, and need not watch for signs of life.
    pub(crate) death_is_known: bool,
    pub(crate) reboot: Option<When>,
    pub(crate) shutdown: Option<When>,
    /// A second evacuation of the domain starts after so many ms.
    pub(crate) second_after_ms: Option<u64>,
    /// So many ms after a record without an owner is written first, the destination's `serve` recovers the domain, whoever lives.
    pub(crate) taken_up_after_ms: Option<u64>,
    /// The first record without an owner is written, and its writer hears nothing of that.
    pub(crate) keep_times_out: bool,
    /// The migration goes on when the process that began it is killed.
    pub(crate) migration_survives: bool,
    /// The domain's definition stays on the source.
    pub(crate) is_persistent: bool,
    /// The destination's XML lacks the record.
    pub(crate) record_stays_behind: bool,
    /// The hypervisor does not notice that a device is plugged in twice.
    pub(crate) attach_is_blind: bool,
    /// Of 1000 events, so many get lost, as many come twice, and as many come late.
    pub(crate) event_disorder: u64,
    /// Of 1000 requests to the guest, so many get lost.
    pub(crate) agent_loss: u64,
    /// Of 1000 that it acts on, so many replies get lost.
    pub(crate) reply_loss: u64,
    /// Of 1000 requests, so many find it stuck: it acts on them, and on what follows, late.
    pub(crate) agent_stuck: u64,
    /// Of 1000 ends of actions, so many are told once more.
    pub(crate) repeats: u64,
    /// Of 1000 calls to a host, so many time out, with or without effect.
    pub(crate) timeouts: u64,
    /// Of 1000 records, so many can't be kept on the writer's own machine: its disk is full.
    pub(crate) full_disk: u64,
    /// Calls that get lost end as a connection that broke, and not as one without an answer.
    pub(crate) breaks_off: bool,
    /// The hypervisor refuses a second unplug while the guest has not answered the first one.
    pub(crate) refuses_second_unplug: bool,
    /// The hypervisor is busy, and refuses so many unplugs at first.
    pub(crate) busy_unplugs: u32,
    /// Nothing is heard of what became of the first unplug, which the guest gets.
    pub(crate) first_unplug_unheard: bool,
    /// Nothing is heard of what became of the first plug, which takes effect.
    pub(crate) first_plug_unheard: bool,
    /// The first call to go on with a post-copy that broke off never arrives, and nothing is heard of that.
    pub(crate) first_resume_lost: bool,
    /// Calls to a host take up to so many ms.
    pub(crate) latency_ms: u64,
    /// Each look takes exactly so many ms.
    pub(crate) look_ms: Option<u64>,
}

impl Script {
    /// Each request reaches the guest and is answered at once.
    pub(crate) fn channel_is_calm(&self) -> bool {
        self.agent_loss + self.reply_loss + self.agent_stuck == 0
    }

    /// What becomes of each device.
    pub(crate) fn devices(&self) -> impl Iterator<Item = DeviceScript> + '_ {
        let first = DeviceScript {
            let_go: false,
            unplug: self.unplug,
            gone_already: self.vf_gone_already,
            attach_failures: self.attach_failures,
            named: self.names_vf,
        };
        let first = (!self.no_device).then_some(first);
        first.into_iter().chain(self.more.iter().cloned())
    }

    /// A world where all is well.
    pub(crate) fn calm() -> Self {
        Self {
            no_device: false,
            more: Vec::new(),
            vf_is_taken: false,
            unplug: Unplug::After(1_000),
            vf_gone_already: false,
            course: Course::Works,
            carry: Carry::NotWanted,
            migration_ms: 5_000,
            attach_failures: [0; 2],
            agent: Agent::Good,
            refuses_announce: None,
            agent_use: AgentUse::Required,
            destination_is_remote: false,
            yes_degraded: false,
            names_vf: true,
            outages: Vec::new(),
            aborts: Vec::new(),
            kills: Vec::new(),
            death_is_known: true,
            reboot: None,
            shutdown: None,
            second_after_ms: None,
            taken_up_after_ms: None,
            keep_times_out: false,
            migration_survives: true,
            is_persistent: false,
            record_stays_behind: false,
            attach_is_blind: true,
            event_disorder: 0,
            agent_loss: 0,
            reply_loss: 0,
            agent_stuck: 0,
            repeats: 0,
            timeouts: 0,
            full_disk: 0,
            breaks_off: false,
            refuses_second_unplug: false,
            busy_unplugs: 0,
            first_unplug_unheard: false,
            first_plug_unheard: false,
            first_resume_lost: false,
            latency_ms: 50,
            look_ms: None,
        }
    }

    /// Anything may go wrong, several things at once.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let mut script = Self::calm();
        script.unplug = unplug(rng);
        script.course = match rng.below(14) {
            0 => Course::NoMemory,
            1 => Course::FailsAt(rng.below(100)),
            2 => Course::CancelledAt(rng.below(100)),
            3 => Course::Hangs,
            4 => Course::FailsInSwitchOver {
                stranded: rng.chance(500),
            },
            5 => Course::PostCopy,
            6 => Course::PostCopyBreaks(1 + rng.below(2) as u32),
            _ => Course::Works,
        };
        script.migration_ms = rng.between(300, 20_000);
        script.attach_failures = attach_failures(rng);
        script.agent = match rng.below(16) {
            0 => Agent::Missing,
            1 => Agent::Hostile,
            2 => Agent::Liar,
            3 => Agent::SaysNo,
            4 => Agent::NotReady,
            _ => Agent::Good,
        };
        let uses = [
            AgentUse::Required,
            AgentUse::Required,
            AgentUse::IfThere,
            AgentUse::Never,
        ];
        script.agent_use = rng.pick(&uses);
        script.yes_degraded = script.agent_use == AgentUse::IfThere;
        script.names_vf = rng.chance(970);
        script.vf_is_taken = rng.chance(30);
        script.vf_gone_already = rng.chance(40);
        script.disturb(rng);
        script.is_persistent = rng.chance(500);
        script.migration_survives = rng.chance(500);
        script.record_stays_behind = rng.chance(200);
        script.attach_is_blind = rng.chance(500);
        if rng.chance(500) {
            script.event_disorder = rng.below(400);
            script.agent_loss = rng.below(300);
            script.reply_loss = rng.below(300);
            script.agent_stuck = rng.below(150);
            script.repeats = rng.below(100);
        }
        if rng.chance(350) {
            script.timeouts = rng.below(150);
        }
        if rng.chance(100) {
            script.full_disk = rng.pick(&[50, 300, 1_000]);
        }
        script.latency_ms = rng.pick(&[10, 50, 300, 1_500]);
        script.destination_is_remote = rng.chance(150);
        script.look_ms = match rng.below(20) {
            0 => Some(1_200),
            1 => Some(3_000),
            _ => None,
        };
        if script.course == Course::Works && rng.chance(100) {
            script.course = Course::LosesHandle(rng.below(100));
        }
        script.more_devices(rng);
        script.carry = match rng.below(10) {
            0 => Carry::Refused,
            1 | 2 => Carry::Ends(rng.below(200_000)),
            3 => Carry::LeavesPaused,
            _ => Carry::NotWanted,
        };
        script.taken_up_after_ms = rng.chance(300).then(|| rng.below(20_000));
        script.keep_times_out = rng.chance(100);
        script.breaks_off = rng.chance(500);
        script.refuses_second_unplug = rng.chance(300);
        script.first_unplug_unheard = rng.chance(50);
        script.first_plug_unheard = rng.chance(50);
        if rng.chance(50) {
            script.busy_unplugs = rng.few(1, 5);
        }
        script.first_resume_lost = rng.chance(300);
        script
    }

    /// How many devices there are: mostly one, often two.
    fn more_devices(&mut self, rng: &mut Rng) {
        let more = match rng.below(100) {
            0..3 => {
                self.no_device = true;
                return;
            }
            3..62 => 0,
            62..82 => 1,
            82..92 => 2,
            _ => MAX_DEVICES - 1,
        };
        for _ in 0..more {
            let let_go = rng.chance(300);
            self.more.push(DeviceScript {
                let_go,
                // Else hardly any run would get further.
                unplug: if rng.chance(600) {
                    Unplug::After(rng.below(3_000))
                } else {
                    unplug(rng)
                },
                gone_already: rng.chance(40),
                attach_failures: if rng.chance(600) {
                    [0; 2]
                } else {
                    attach_failures(rng)
                },
                named: if let_go {
                    rng.chance(700)
                } else {
                    rng.chance(980)
                },
            });
        }
    }

    /// What comes from outside, and when.
    fn disturb(&mut self, rng: &mut Rng) {
        while rng.chance(250) && self.outages.len() < 3 {
            let side = rng.pick(&Side::BOTH);
            let length_ms = rng.pick(&[500, 5_000, 20_000, 200_000]);
            let length_ms = rng.between(1, length_ms);
            self.outages.push((side, when(rng), length_ms));
        }
        while rng.chance(180) && self.aborts.len() < 2 {
            self.aborts.push(when(rng));
        }
        while rng.chance(300) && self.kills.len() < 3 {
            let pause_ms = rng.pick(&[0, 1_000, 20_000]);
            self.kills.push((when(rng), rng.below(pause_ms + 1)));
        }
        self.death_is_known = rng.chance(600);
        self.reboot = rng.chance(120).then(|| when(rng));
        self.shutdown = rng.chance(40).then(|| when(rng));
        let second_ms = rng.pick(&[1, 500, 5_000, 30_000]);
        self.second_after_ms = rng.chance(120).then(|| rng.below(second_ms));
    }
}

/// Phases in which something may be made to happen.
pub(crate) const PHASES: [Phase; 11] = [
    Phase::Takeover,
    Phase::Check,
    Phase::Claim,
    Phase::Prepare,
    Phase::Unplug,
    Phase::Migrate,
    Phase::Announce,
    Phase::Plug,
    Phase::Restore,
    Phase::Verify,
    Phase::Release,
];

fn unplug(rng: &mut Rng) -> Unplug {
    match rng.below(10) {
        0 => Unplug::Ignored,
        1 => Unplug::Refused(rng.few(0, 7)),
        2 => Unplug::After(rng.below(120_000)),
        _ => Unplug::After(rng.below(8_000)),
    }
}

fn attach_failures(rng: &mut Rng) -> [u32; 2] {
    let mut failures = || match rng.below(8) {
        0 => u32::MAX,
        1 | 2 => rng.few(1, 5),
        _ => 0,
    };
    [failures(), failures()]
}

fn when(rng: &mut Rng) -> When {
    let within_ms = rng.pick(&[10, 300, 3_000, 12_000]);
    (rng.pick(&PHASES), rng.below(within_ms))
}
