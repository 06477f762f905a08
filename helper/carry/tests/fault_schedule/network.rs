//! The network: who sends to the guest, and the switch that leads there.

use std::collections::{BTreeMap, BTreeSet};

use tandem_carry::{Frame, HEADER_BYTES, Mac};

use crate::plan::Plan;
use crate::rng::Rng;

/// The two hosts.
pub(crate) const SOURCE: usize = 0;
pub(crate) const DESTINATION: usize = 1;

pub(crate) const GUEST: Mac = [0x52, 0x54, 0, 0, 0, 1];
const PEER: Mac = [0x52, 0x54, 0, 0, 0, 2];

/// A frame on its way to a host.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) due_ms: u64,
    pub(crate) host: usize,
    pub(crate) frame: Frame,
    /// Its copy goes to the other host.
    pub(crate) flooded: bool,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) under_way: Vec<UnderWay>,
    /// Where frames for the guest go.
    pub(crate) at: usize,
    floods: bool,
    /// When the switch will have learnt.
    learns_ms: Option<u64>,
    next_id: u64,
    /// How often each frame was sent.
    pub(crate) sent: BTreeMap<u64, u32>,
    /// Those of them that went to a group.
    pub(crate) groups: BTreeSet<u64>,
}

/// What a frame is known by.
pub(crate) fn id_of(frame: &Frame) -> u64 {
    let bytes = frame.ethernet()[14..22].try_into().expect("eight bytes");
    u64::from_be_bytes(bytes)
}

fn frame(to: Mac, from: Mac, id: u64) -> Frame {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend(to);
    bytes.extend(from);
    bytes.extend([8, 0]);
    bytes.extend(id.to_be_bytes());
    Frame::new(&bytes).expect("long enough")
}

impl Network {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            under_way: Vec::new(),
            at: SOURCE,
            floods: plan.floods,
            learns_ms: None,
            next_id: 1,
            sent: BTreeMap::new(),
            groups: BTreeSet::new(),
        }
    }

    /// What is sent in one ms.
    pub(crate) fn send(&mut self, plan: &Plan, rng: &mut Rng, now_ms: u64) {
        let to_group = Mac::from([0xff; 6]);
        for (to, rate) in [(GUEST, plan.rate[0]), (to_group, plan.rate[1])] {
            let count = rate / 1000 + u64::from(rng.chance(rate % 1000));
            for _ in 0..count {
                let copies = 1 + u32::from(rng.chance(plan.twice));
                self.send_one(plan, now_ms, to, copies);
            }
        }
    }

    /// One frame for the guest alone.
    pub(crate) fn send_to_guest(&mut self, plan: &Plan, now_ms: u64) -> u64 {
        self.send_one(plan, now_ms, GUEST, 1)
    }

    fn send_one(&mut self, plan: &Plan, now_ms: u64, to: Mac, copies: u32) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.sent.insert(id, copies);
        let frame = frame(to, PEER, id);
        if frame.is_group() {
            self.groups.insert(id);
        }
        for _ in 0..copies {
            for host in [SOURCE, DESTINATION] {
                if self.floods || frame.is_group() || host == self.at {
                    self.under_way.push(UnderWay {
                        due_ms: now_ms + plan.way_ms[host],
                        host,
                        frame: frame.clone(),
                        flooded: self.floods && !frame.is_group(),
                    });
                }
            }
        }
        id
    }

    /// A frame for the guest that its former host gives to the network; false if that leads back there, where it is dropped.
    pub(crate) fn forward(&mut self, plan: &Plan, now_ms: u64, frame: Frame) -> bool {
        let leads_there = self.floods || self.at == DESTINATION;
        if leads_there {
            self.under_way.push(UnderWay {
                due_ms: now_ms + plan.way_ms[SOURCE] + plan.way_ms[DESTINATION],
                host: DESTINATION,
                frame,
                flooded: false,
            });
        }
        leads_there
    }

    /// The guest tells from a host where it is; all hear that.
    pub(crate) fn announced(&mut self, plan: &Plan, now_ms: u64, from: usize) {
        self.learns_ms = Some(now_ms + plan.learn_ms);
        let other = 1 - from;
        self.under_way.push(UnderWay {
            due_ms: now_ms + plan.way_ms[other],
            host: other,
            frame: frame([0xff; 6], GUEST, 0),
            flooded: false,
        });
    }

    /// Nobody has told it anything that it does not know yet.
    pub(crate) const fn has_learnt(&self) -> bool {
        self.learns_ms.is_none()
    }

    pub(crate) fn learn(&mut self, now_ms: u64) {
        if self.learns_ms.is_some_and(|ms| ms <= now_ms) {
            self.at = DESTINATION;
            self.floods = false;
            self.learns_ms = None;
        }
    }

    /// What arrives now, in the order it was sent.
    pub(crate) fn arrived(&mut self, now_ms: u64) -> Vec<UnderWay> {
        let (now, later) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|one| one.due_ms <= now_ms);
        self.under_way = later;
        now
    }
}
