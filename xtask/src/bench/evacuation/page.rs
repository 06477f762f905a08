//! The results as a page that is committed.

use super::super::report;
use super::super::spread::Spread;
use super::samples::Samples;
use super::{Results, table, tandem};

/// Name of the picture beside the page.
pub(super) const PICTURE: &str = "evacuation.svg";

/// The page, in Markdown.
pub(super) fn render(results: &Results) -> String {
    let failures = failures(results);
    format!(
        "# Evacuations, side by side\n\n\
         Written by `cargo xtask bench --evacuation --write-results`, rounds and rates by its further options; not to be edited. A VF leaves the guest, the VM \
         moves to another host, a VF with another MAC comes. Meanwhile numbered frames go each way, as many a second as a \
         row says, and one TCP connection sends a record every 10 ms. All systems were measured in one run that took \
         {minutes} minutes, in turn; a booted guest was moved there and back several times before the next system's turn. \
         networkd and NetworkManager run in Debian 13 with 1 GiB, all others in a small guest with 384 MiB. *Sent/s* is what \
         the probe came to each way, over the whole evacuation. A cell is the median, then the least and the most.\n\n\
         ![Frames lost]({PICTURE})\n\n\
         {losses}\n\
         *Failover* is from the host's first word to half a second after the VF left, *failback* from the new VF's plug to \
         half a second after it carries the traffic. A gap is the longest time between the sendings of two frames that \
         arrived, with none between them that did; the probe's own pauses count in, {at_rest}. *Guest stopped* is QEMU's own count of the migration's stop; \
         for all systems alike QEMU was to keep that below {downtime_limit_ms} ms (`downtime-limit`: by its default of 300 ms \
         the stop, and with it the loss, is one of chance). What a migration loses are the frames that were sent to the guest \
         meanwhile, and until the network knows its new place. Only what Tandem adds to that could be held against it, so its \
         loss in all is compared with that of virtio alone, by the mean: one migration's varies by a fifth, and \
         the median of such small whole numbers by about the tenth that is allowed. *VF ready* is from the VF's registration in the guest until it can \
         carry traffic; Tandem waits until a new VF's carrier has held first. `net_failover` is in QEMU's hands: its phases end \
         where QEMU's events say so, and QEMU takes no igb for it, as that has several functions.\n\n\
         *Tandem's kernel part alone*: the service is stopped (SIGSTOP) before the host takes the VF and goes on once the \
         VF is gone, so that nothing but its programs in the kernel acts. What the guest sends moves to the standby at \
         once. What it receives moves when the network learns of that: with the first frame that leaves through the \
         standby, be it the guest's own or the announcement that the programs make of a frame that still arrives at the VF. \
         That is its limit: where the network takes longer to learn than the VF's driver to stop, or no frame passes in \
         between, what comes first is lost.\n\n\
         ## What Tandem says of itself\n\n\
         *Lead* is from the warning to the moment at which the VF began to be unregistered, upon which its driver stops. \
         *Reaction* is from the warning to the request for the switchover, where \
         the fast path made it; *took* is from the service's own decision until the new port was seen \
         active: where a removal is under way, what the service asks of the kernel waits for its end, the traffic does not. A gap is from the last unicast frame on the old port to the first on the new one, 0 if they overlapped, \
         as Tandem's programs on the ports count it. *Captured* is the same of the same frames, those of the probe and of its TCP connection, by other means than Tandem's: the \
         kernel's time stamps on a packet socket in the guest, which sees what arrives before any program does, and what \
         leaves after the last one and after the port's queue; a frame that arrives is stamped in its turn \
         (`netdev_tstamp_prequeue=0`: by default the kernel stamps all frames of a batch when it begins with them, and an \
         emulated processor takes some ms for one). So it says whether Tandem looks at the right frames of the right ports, not \
         how long they were on their way before. Reported and captured agree if they differ by at most 20 % \
         or 2 of the probe's frames; the claims say by how much they differ. *Probe's alone* is of the probe's numbered frames \
         in that capture: the TCP connection's pass between them, so it is no shorter.\n\n\
         {own}\n\
         {costs}\
         ## Claims\n\n{claims}{failures}\n\
         ## Measured on\n\n{machine}",
        downtime_limit_ms = tandem_lab::DOWNTIME_LIMIT_MS,
        minutes = results.took.as_secs().div_ceil(60),
        at_rest = at_rest(&results.samples),
        losses = table::losses(&results.samples).markdown(),
        own = tandem::summary(&results.samples).markdown(),
        costs = results.costs.markdown(),
        claims = report::markdown(&results.claims()),
        machine = results.machine.markdown(),
    )
}

/// The longest gap before anything happens, of all evacuations.
fn at_rest(samples: &[Samples]) -> String {
    let known = samples.iter().flat_map(|one| &one.evacuations);
    let known = known.filter_map(|one| one.gap_at_rest_ms);
    match Spread::of(known.map(|ms| ms as f64)) {
        Some(spread) => {
            format!("which are {spread} ms in the half second at rest before the first phase")
        }
        None => "which were not measured at rest".to_owned(),
    }
}

/// A chapter with the first line of each failure; none without failures.
fn failures(results: &Results) -> String {
    let mut lines = String::new();
    for samples in &results.samples {
        for why in &samples.failures {
            let first = why.lines().next().unwrap_or("");
            lines += &format!("* `{}`: {first}\n", samples.key());
        }
    }
    match lines.as_str() {
        "" => String::new(),
        _ => format!("\n## Evacuations that came to no end\n\n{lines}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tandem_lab::evacuation::System;

    use super::super::super::machine::Machine;
    use super::super::costs::Costs;
    use super::super::samples::tests::samples;
    use super::*;

    #[test]
    fn the_page_has_figures_claims_failures_and_the_machine() {
        let mut bond = samples(System::UnmanagedBond, &[[888, 40, 6]]);
        bond.failures.push("no VF came\nlong log".to_owned());
        let machine = serde_json::json!([["Processors", "2 × A CPU"]]);
        let results = Results {
            samples: vec![
                samples(System::Floor, &[]),
                samples(System::TandemPlanned, &[[0, 40, 0]]),
                bond,
            ],
            costs: Costs::default(),
            machine: Machine::of_json(&machine).unwrap(),
            took: Duration::from_secs(61),
        };
        let page = render(&results);
        for text in [
            "| bond by a script | e1000e, ACPI | 1000 | 1000, 990 | 1, 1 failed | 888 |",
            "* holds: Tandem, the host asks (e1000e, ACPI, 1000/s): nothing lost but by the migration in 1 of 1 rounds",
            "* `unmanaged-bond-e1000e-acpi-1000`: no VF came\n",
            "took 2 minutes",
            "| Processors | 2 × A CPU |",
        ] {
            assert!(page.contains(text), "`{text}` is not in:\n{page}");
        }
        assert!(!page.contains("long log"));
        let read = Results::of_json(&results.json(), Costs::default()).unwrap();
        assert_eq!(render(&read), page, "a page can be written anew");
    }
}
