//! `cargo xtask bench --instructions`: how much time an unplug without a word leaves, and how much of it is used,
//! in a guest whose clock counts instructions. Emulation makes each instruction 20 to 50 times slower; such a clock
//! runs as slowly as they do, so that its times are those of a processor, whatever this machine is.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tandem_core::status::BondState;
use tandem_lab::net::GUEST_V4;
use tandem_lab::probe::FrameOptions;
use tandem_lab::tandem::switchover::{count, is_armed, is_measured_since, last};
use tandem_lab::tandem::{Guest, Setup};
use tandem_lab::{Lab, NicModel, command};

use super::machine::Machine;
use super::report::{Claim, Report};
use super::spread::Spread;
use super::table::Table;

/// What has to be known to read the table.
const ABOUT: &str = "QEMU counts instructions (`-icount shift=0`, one processor): the guest's clock advances by a \
    nanosecond with each, and by real time while the guest idles. The VF is unplugged without a word to the guest. \
    *Lead* is from the first warning to the moment the driver stops, *reaction* from the warning to the moment the \
    failover is asked for, *margin* what is left of the lead. A *busy* guest's only processor has an endless loop beside \
    all else. Frames go 250 times a second of this machine's time each way; the guest's own clock is slower.";
const RATE_HZ: u32 = 250;

/// What `cargo xtask bench --instructions` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct InstructionsOptions {
    /// Unplugs of each kind
    #[arg(long, default_value_t = 4, requires = "instructions", value_parser = clap::value_parser!(u32).range(1..))]
    unplugs: u32,
}

/// What one NIC and one load came to.
struct Row {
    model: NicModel,
    busy: bool,
    unplugs: Vec<Unplug>,
}

/// One unplug, in µs of the guest's time.
struct Unplug {
    lead_us: u64,
    reaction_us: u64,
    lost: u64,
}

/// Measures, prints, writes JSON, and fails if an unplug left no margin or lost a frame.
pub(super) fn run(options: &InstructionsOptions, page: bool) -> Result<()> {
    let mut rows = Vec::new();
    for model in [NicModel::Igb, NicModel::E1000e] {
        rows.extend(measure(model, options.unplugs)?);
    }
    let report = Report {
        name: "instructions",
        title: "An unplug without a word, on a processor of 10^9 instructions a second",
        about: ABOUT.to_owned(),
        machine: Machine::look()?,
        figures: rows.iter().map(Row::json).collect(),
        table: table(&rows),
        claims: rows.iter().map(Row::claim).collect(),
        picture: None,
    };
    report.publish(page)
}

fn measure(model: NicModel, unplugs: u32) -> Result<[Row; 2]> {
    let lab = Lab::new("bench-instructions")?;
    let host = lab.host("a")?;
    let setup = Setup {
        model,
        counts_instructions: true,
        ..Setup::new()?
    };
    let mut guest = setup.boot(&lab, &host)?;
    let row = |guest: &mut Guest, busy| {
        let all = (0..unplugs).map(|_| unplug(&lab, guest, &setup));
        Ok::<_, anyhow::Error>(Row {
            model,
            busy,
            unplugs: all.collect::<Result<_>>()?,
        })
    };
    let idle = row(&mut guest, false)?;
    let argv = ["sh", "-c", "while :; do :; done"];
    let load = guest.vm.spawn(&argv, &[], "/dev/null")?;
    let busy = row(&mut guest, true)?;
    guest.vm.signal(load, 9)?;
    Ok([idle, busy])
}

fn unplug(lab: &Lab, guest: &mut Guest, setup: &Setup) -> Result<Unplug> {
    let device = setup.model.device();
    let armed = guest.await_here("armed", |status| {
        status.bonds[0].state == BondState::Accelerated && is_armed(status)
    })?;
    let options = FrameOptions {
        rate_hz: RATE_HZ,
        ..FrameOptions::default()
    };
    let mut frames = lab.probe_frames(&guest.vm, GUEST_V4.into(), options)?;
    frames.mark("unplug");
    guest.vm.unplug_vf()?;
    let before = count(&armed);
    let after = guest.await_here("measured", |status| {
        is_measured_since(status, before) && last(status).is_some_and(|last| last.lead_us.is_some())
    })?;
    let frames = frames.finish()?;
    let lost = frames.to_guest.total.lost + frames.to_client.total.lost;
    let last = last(&after).context("the switchover is not listed")?;
    let unplug = Unplug {
        lead_us: last.lead_us.context("no lead is known")?,
        reaction_us: last.reaction_us.context("the fast path did not react")?,
        lost,
    };
    command::progress(&format!(
        "{device}: lead {} µs, reaction {} µs, {lost} frames lost",
        unplug.lead_us, unplug.reaction_us
    ));
    guest.vm.plug_vf(setup.model, setup.vf)?;
    Ok(unplug)
}

impl Row {
    fn load(&self) -> &'static str {
        if self.busy { "busy" } else { "idle" }
    }

    fn ms(&self, value: impl Fn(&Unplug) -> f64) -> String {
        let values = self.unplugs.iter().map(|unplug| value(unplug) / 1000.0);
        Spread::of(values).map_or_else(String::new, |spread| spread.show(2))
    }

    fn lost(&self) -> u64 {
        self.unplugs.iter().map(|unplug| unplug.lost).sum()
    }

    fn claim(&self) -> Claim {
        let in_time = |unplug: &&Unplug| unplug.margin_us() > 0.0 && unplug.lost == 0;
        let count = self.unplugs.iter().filter(in_time).count();
        let (device, load, all) = (self.model.device(), self.load(), self.unplugs.len());
        Claim {
            text: format!("{device}, {load}: in time and nothing lost in {count} of {all}"),
            holds: count == all,
        }
    }

    fn json(&self) -> Value {
        let unplugs = self.unplugs.iter().map(|unplug| {
            json!({ "lead-us": unplug.lead_us, "reaction-us": unplug.reaction_us, "lost": unplug.lost })
        });
        json!({ "nic": self.model.device(), "load": self.load(), "unplugs": unplugs.collect::<Vec<_>>() })
    }
}

impl Unplug {
    /// Below zero if the failover was asked for too late.
    fn margin_us(&self) -> f64 {
        self.lead_us as f64 - self.reaction_us as f64
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "NIC",
        "guest",
        "unplugs",
        "lead, ms",
        "reaction, ms",
        "margin, ms",
        "lost",
    ]);
    for row in rows {
        table.rows.push(vec![
            row.model.device().to_owned(),
            row.load().to_owned(),
            row.unplugs.len().to_string(),
            row.ms(|unplug| unplug.lead_us as f64),
            row.ms(|unplug| unplug.reaction_us as f64),
            row.ms(Unplug::margin_us),
            row.lost().to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_that_comes_too_late_is_a_claim_missed() {
        let row = |reaction_us, lost| Row {
            model: NicModel::Igb,
            busy: true,
            unplugs: vec![Unplug {
                lead_us: 1000,
                reaction_us,
                lost,
            }],
        };
        assert!(row(999, 0).claim().holds);
        assert!(!row(1001, 0).claim().holds);
        assert!(!row(999, 1).claim().holds);
        let cells = &table(&[row(1250, 0)]).rows[0];
        assert_eq!(cells[3..6], ["1.00", "1.25", "-0.25"]);
    }
}
