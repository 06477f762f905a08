//! The figures as a page that is committed.

use super::super::machine::Machine;
use super::super::report::{self, Claim};
use super::super::table::Table;
use super::Row;

/// The page, in Markdown.
pub(super) fn render(rows: &[Row], rounds: usize, claims: &[Claim], machine: &Machine) -> String {
    format!(
        "# What the fast-path programs cost TCP\n\n\
         Written by `cargo xtask bench --tcp --tcp-rounds {rounds} --write-results`; not to be edited. One TCP connection over a veth between two \
         network namespaces of the machine itself, no virtual machine. The guest's end has every program that a frame of a \
         bond passes; sender and receiver share one processor, so that nothing hides what the programs take. The states \
         took turns, {rounds} rounds each. A cell is the median and the quartiles.\n\n\
         * *without*: nothing is attached, as on a bond that no VF serves, and on every port and bond of a guest while the \
         service is off (before Linux 6.6: unless it was killed);\n\
         * *armed*: as between switchovers, with the VF at work: the fast path waits on the bond, and the VF's frames are counted;\n\
         * *counting*: as during a switchover, for its few hundred ms: the port is watched as well.\n\n\
         {table}\n\
         *CPU ratio* is processor time for a byte, to that of the same turn's round without programs; throughput of a \
         processor that does nothing else is its inverse, and the claims are about that. *Single frames* are one segment \
         each, as without any offload: for comparison. A redirect itself is not in the table: it lasts until the bond has \
         followed, and what raises it are hooks of the kernel's PCI and ACPI code.\n\n\
         ## Claims\n\n{claims}\n## Measured on\n\n{machine}",
        table = table(rows).markdown(),
        claims = report::markdown(claims),
        machine = machine.markdown(),
    )
}

/// A row for each state of each way.
pub(super) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "way",
        "frames",
        "state",
        "MiB/s",
        "CPU µs/MiB",
        "throughput ratio",
        "CPU ratio",
        "programs' runs/MiB",
        "ns a run",
        "% of all CPU",
    ]);
    table.rows.extend(rows.iter().map(Row::cells));
    table
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let programs = &self.programs;
        vec![
            self.way.name().to_owned(),
            self.frames.name().to_owned(),
            self.state.name().to_owned(),
            self.mib_per_s.show(0),
            self.cpu_us_per_mib.show(0),
            self.throughput_ratio.show(3),
            self.cpu_ratio.show(3),
            format!("{:.0}", programs.runs_per_mib),
            format!("{:.0}", programs.ns_per_run),
            format!("{:.2}", programs.share_percent),
        ]
    }
}
