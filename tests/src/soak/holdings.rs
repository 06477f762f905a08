//! What the services hold, look by look, and whether it grows.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::agent::Agent;

/// Looks that a life needs before its thirds are compared.
const ENOUGH_LOOKS: usize = 9;
/// By how much resident memory may have grown between the first third's median and the last third's, in KiB.
const MOST_MEMORY_KIB: u64 = 1024;
/// The same of descriptors and of tasks: what a connection or a command under way takes at the moment of a look.
const MOST_DESCRIPTORS: u64 = 8;
const MOST_TASKS: u64 = 4;

/// What a process holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Holdings {
    /// Resident memory, in KiB.
    pub memory_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub tasks: u64,
}

impl Holdings {
    /// Of a process of this machine.
    pub fn here(pid: u32) -> Result<Self> {
        let folder = Path::new("/proc").join(pid.to_string());
        let status = std::fs::read_to_string(folder.join("status"))
            .with_context(|| format!("process {pid} has ended"))?;
        let descriptors = std::fs::read_dir(folder.join("fd"))?.count();
        Self::parse(&status, &descriptors.to_string())
    }

    /// Of a process in a guest.
    pub fn in_guest(guest: &Agent, pid: u32) -> Result<Self> {
        let script = format!("ls /proc/{pid}/fd | wc -l; cat /proc/{pid}/status");
        let said = guest.sh(&script)?;
        let (descriptors, status) = said.split_once('\n').context("no status")?;
        Self::parse(status, descriptors)
    }

    fn parse(status: &str, descriptors: &str) -> Result<Self> {
        let number = |key: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            let number = word.and_then(|word| word.parse().ok());
            number.with_context(|| format!("no {key} in {status}"))
        };
        Ok(Self {
            memory_kib: number("VmRSS:")?,
            descriptors: descriptors.trim().parse().context("no descriptors")?,
            tasks: number("Threads:")?,
        })
    }

    /// Key by key: what is held more than before, beyond what is allowed.
    fn exceeds(&self, before: &Self) -> bool {
        self.memory_kib > before.memory_kib + MOST_MEMORY_KIB
            || self.descriptors > before.descriptors + MOST_DESCRIPTORS
            || self.tasks > before.tasks + MOST_TASKS
    }
}

/// How the longest life of a service went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Growth {
    /// Which service.
    pub service: String,
    /// How often it was looked at in that life.
    pub looks: usize,
    /// Medians of the first third of the looks.
    pub first: Holdings,
    /// Medians of the last third.
    pub last: Holdings,
}

impl Growth {
    /// It was looked at often enough to say.
    pub fn is_judged(&self) -> bool {
        self.looks >= ENOUGH_LOOKS
    }

    /// It holds more at the end than at the beginning.
    pub fn is_too_much(&self) -> bool {
        self.is_judged() && self.last.exceeds(&self.first)
    }
}

/// All looks, by service and process.
#[derive(Debug, Default)]
pub(super) struct Looks(BTreeMap<String, Vec<(u32, Vec<Holdings>)>>);

impl Looks {
    /// Notes a look at the process that is this service now.
    pub(super) fn note(&mut self, service: &str, pid: u32, holdings: Holdings) {
        let lives = self.0.entry(service.to_owned()).or_default();
        match lives.last_mut().filter(|(last, _)| *last == pid) {
            Some((_, looks)) => looks.push(holdings),
            None => lives.push((pid, vec![holdings])),
        }
    }

    /// The growth of each service in its longest life: a new process begins from nothing.
    pub(super) fn growth(&self) -> Vec<Growth> {
        let longest = |lives: &[(u32, Vec<Holdings>)]| {
            let looks = lives.iter().map(|(_, looks)| looks.as_slice());
            looks.max_by_key(|looks| looks.len()).map(<[_]>::to_vec)
        };
        let services = self.0.iter();
        let services = services.filter_map(|(name, lives)| Some((name, longest(lives)?)));
        services
            .map(|(service, looks)| {
                let third = looks.len().div_ceil(3);
                Growth {
                    service: service.clone(),
                    looks: looks.len(),
                    first: median(&looks[..third]),
                    last: median(&looks[looks.len() - third..]),
                }
            })
            .collect()
    }
}

fn median(looks: &[Holdings]) -> Holdings {
    let of = |key: fn(&Holdings) -> u64| {
        let mut values: Vec<u64> = looks.iter().map(key).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    Holdings {
        memory_kib: of(|one| one.memory_kib),
        descriptors: of(|one| one.descriptors),
        tasks: of(|one| one.tasks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(memory_kib: u64) -> Holdings {
        Holdings {
            memory_kib,
            descriptors: 10,
            tasks: 2,
        }
    }

    #[test]
    fn the_longest_life_tells_and_one_look_does_not() {
        let mut looks = Looks::default();
        for memory_kib in [1, 2] {
            looks.note("serve", 7, held(memory_kib));
        }
        // A new process, which grows by 1 MiB a look, and once holds much for a moment.
        for look in 0..12 {
            let moment = if look == 1 { 1 << 20 } else { 0 };
            looks.note("serve", 8, held(1000 + 1024 * look + moment));
        }
        looks.note("serve", 9, held(1));
        let growth = looks.growth();
        assert_eq!(growth.len(), 1);
        let growth = &growth[0];
        assert_eq!((growth.looks, growth.is_judged()), (12, true));
        assert_eq!(growth.first.memory_kib, 1000 + 3 * 1024);
        assert_eq!(growth.last.memory_kib, 1000 + 10 * 1024);
        assert!(growth.is_too_much());
    }

    #[test]
    fn what_stays_as_it_is_does_not_grow_and_few_looks_are_not_judged() {
        let mut looks = Looks::default();
        for look in 0..8 {
            looks.note("service", 7, held(1000 + 4096 * look));
        }
        assert!(!looks.growth()[0].is_judged() && !looks.growth()[0].is_too_much());
        let mut looks = Looks::default();
        for look in 0..30 {
            looks.note("service", 7, held(1000 + 10 * look));
        }
        assert!(looks.growth()[0].is_judged() && !looks.growth()[0].is_too_much());
        let more = Holdings {
            descriptors: 19,
            ..held(0)
        };
        assert!(more.exceeds(&held(0)));
    }

    #[test]
    fn a_process_is_read_from_its_status() {
        let status = "Name:\ttandem\nVmRSS:\t    8192 kB\nThreads:\t5\n";
        let read = Holdings::parse(status, "17\n").unwrap();
        assert_eq!(
            (read.memory_kib, read.descriptors, read.tasks),
            (8192, 17, 5)
        );
        assert!(Holdings::parse("Name:\tx\n", "1").is_err());
        assert!(Holdings::here(std::process::id()).unwrap().descriptors > 0);
    }
}
