//! The results as a page that is committed.

use tandem_lab::evacuation::{Cost, System};

use super::table::Table;
use super::{Results, tandem};

/// Name of the picture beside the page.
pub(super) const PICTURE: &str = "evacuation.svg";

/// The page, in Markdown.
pub(super) fn render(results: &Results) -> String {
    let facts: String = results
        .machine
        .facts()
        .iter()
        .map(|(name, value)| format!("| {name} | {value} |\n"))
        .collect();
    let claims: String = results
        .claims()
        .iter()
        .map(|claim| {
            let mark = if claim.holds { "holds" } else { "**missed**" };
            format!("* {mark}: {}\n", claim.text)
        })
        .collect();
    let failures: String = results
        .samples
        .iter()
        .flat_map(|samples| {
            let key = samples.case.key();
            let failures = samples.failures.iter();
            failures.map(move |why| format!("* `{key}`: {}\n", why.lines().next().unwrap_or("")))
        })
        .collect();
    let failures = match failures.as_str() {
        "" => String::new(),
        _ => format!("\n## Evacuations that came to no end\n\n{failures}"),
    };
    format!(
        "# Evacuations, side by side\n\n\
         Written by `cargo xtask bench --evacuation --write-results`; not to be edited. A VF leaves the guest, the VM \
         moves to another host, a VF with another MAC comes. Meanwhile {rate} numbered frames a second go each way, \
         and one TCP connection sends a record every 10 ms. All systems were measured in one run that took {minutes} \
         minutes, in turn; a booted guest was moved there and back. A cell is the median, then the least and the most.\n\n\
         ![Frames lost]({PICTURE})\n\n\
         {losses}\n\
         *Failover* is from the host's first word to half a second after the VF left, *failback* from the new VF's plug to \
         half a second after it carries the traffic. A gap is the longest time between the sendings of two frames that \
         arrived, with none between them that did. *Guest stopped* is QEMU's own count of the migration's stop: what a \
         migration loses follows from it. *VF ready* is from the VF's registration in the guest until it can \
         carry traffic; Tandem has a new VF prove its carrier first. `net_failover` is in QEMU's hands: its phases end \
         where QEMU's events say so.\n\n\
         ## What Tandem says of itself\n\n\
         *Lead* is from the warning to the driver's stop, *reaction* from the warning to the request to switch; a gap is \
         from the last frame on the old port to the first on the new one, beside the nearest of the probe's pauses within \
         100 ms: the probe does not know which port a frame took.\n\n\
         {own}\n\
         ## What the services cost\n\n\
         In Debian 13 with the same bond. The links are {pairs} pairs of veth interfaces made and removed.\n\n\
         {costs}\n\
         ## Claims\n\n{claims}{failures}\n\
         ## Measured on\n\n| | |\n| --- | --- |\n{facts}",
        rate = results.rate_hz,
        minutes = results.took.as_secs().div_ceil(60),
        losses = super::table::losses(&results.samples).markdown(),
        own = tandem::summary(&results.samples, results.rate_hz).markdown(),
        pairs = results.costs.first().map_or(0, |(_, cost)| cost.pairs),
        costs = costs(&results.costs).markdown(),
    )
}

/// What the services cost.
pub(super) fn costs(costs: &[(System, Cost)]) -> Table {
    let mut table = Table::new(&[
        "service",
        "package, installed",
        "program MiB",
        "resident MiB",
        "wake-ups a minute",
        "CPU ms for a link",
    ]);
    for (system, cost) in costs {
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let name = match system {
            system if system.is_tandem() => "Tandem",
            System::Networkd => "systemd-networkd",
            System::NetworkManager => "NetworkManager",
            other => other.title(),
        };
        table.rows.push(vec![
            name.to_owned(),
            cost.installed_kib
                .map_or("–".to_owned(), |kib| format!("{} MiB", mib(kib << 10))),
            mib(cost.program_bytes),
            mib(cost.resident_kib << 10),
            format!("{:.1}", cost.wake_ups_per_minute),
            format!("{:.3}", cost.cpu_ms_per_link()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::machine::Machine;
    use super::super::samples::tests::samples;
    use super::*;

    #[test]
    fn the_page_has_figures_claims_failures_and_the_machine() {
        let mut bond = samples(System::UnmanagedBond, &[[888, 40, 6]]);
        bond.failures.push("no VF came\nlong log".to_owned());
        let results = Results {
            samples: vec![
                samples(System::Floor, &[]),
                samples(System::TandemPlanned, &[[0, 40, 0]]),
                bond,
            ],
            costs: vec![(
                System::Networkd,
                Cost {
                    resident_kib: 9 << 10,
                    wake_ups_per_minute: 1.5,
                    pairs: 2000,
                    links_cpu_ms: 4000.0,
                    program_bytes: 3 << 20,
                    installed_kib: Some(10 << 10),
                },
            )],
            machine: Machine {
                date: "2026-01-02".to_owned(),
                processors: "2 × A CPU".to_owned(),
                memory: "24 GiB".to_owned(),
                kernel: "Linux 6".to_owned(),
                guest_kernel: "Linux 6.12".to_owned(),
                qemu: "QEMU 10".to_owned(),
                accelerator: "KVM",
            },
            rate_hz: 1000,
            took: Duration::from_secs(61),
        };
        let page = render(&results);
        for text in [
            "| bond by a script | e1000e, ACPI | 1, 1 failed | 888 |",
            "* holds: Tandem, the host asks (e1000e, ACPI): nothing lost in failover and failback in 1 of 1 rounds",
            "* `unmanaged-bond-e1000e-acpi`: no VF came\n",
            "| systemd-networkd | 10.0 MiB | 3.0 | 9.0 | 1.5 | 1.000 |",
            "2000 pairs",
            "took 2 minutes",
            "| Processors | 2 × A CPU |",
        ] {
            assert!(page.contains(text), "`{text}` is not in:\n{page}");
        }
        assert!(!page.contains("long log"));
    }
}
