//! The status and events for people. Plain functions of what they show, so that
//! tests can hold their output.

mod switchover;
mod words;

use std::collections::BTreeMap;

use tandem_core::status::{Answer, BondStatus, Event, Held, PortStatus, Problem, SourceStatus};
use tandem_core::types::{IfName, Time};
use tandem_wire::event::{EventMessage, Pushed, Timestamp};
use tandem_wire::reply::StatusReport;

use switchover::{gap_text, milliseconds, switchover_text};
use words::{
    age, code, health, host_may, joined, origin, port_state, source, state, traffic, warning,
};

/// Switchovers that are shown of those that are remembered.
const SHOWN_SWITCHOVERS: usize = 5;

/// How the text looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// Text only.
    #[default]
    Plain,
    /// With colours of a terminal (ECMA-48).
    Coloured,
}

impl Style {
    /// A word in a colour of ECMA-48 (31 red, 32 green, 33 yellow).
    fn paint(self, colour: u8, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{colour}m{text}\x1b[0m"),
        }
    }
}

/// Everything known, with a newline at its end. `managers` configure the bonds that Tandem gives no addresses.
pub fn status(report: &StatusReport, managers: &BTreeMap<IfName, String>, style: Style) -> String {
    let status = &report.status;
    let mut page = Page::default();
    let words = [origin(status.policy)].into_iter();
    let words = words.chain(host_may(status.host_may)).map(str::to_owned);
    page.line(format!(
        "tandem {}, {}",
        report.version,
        joined(words, ", ")
    ));
    for problem in &status.problems {
        problem_item(&mut page, problem, style);
    }
    let widths = PortWidths::of(&status.bonds);
    for bond in &status.bonds {
        page.blank();
        bond_section(
            &mut page,
            bond,
            managers.get(&bond.name),
            report.now,
            &widths,
            style,
        );
    }
    if !status.sources.is_empty() {
        page.blank();
        source_section(&mut page, &status.sources);
    }
    page.text
}

/// What a command brought about, with a newline at its end.
pub fn answer(answer: &Answer) -> String {
    let mut page = Page::default();
    let ready = if answer.ready { "done" } else { "not done yet" };
    page.line(format!(
        "{}: {ready}; {}",
        answer.bond,
        traffic(answer.traffic)
    ));
    for step in &answer.done {
        page.line(format!("  {step}"));
    }
    if let Some(mac) = answer.released {
        let pci = answer.released_pci.map(|pci| format!(" at {pci}"));
        page.line(format!("  released VF {mac}{}", pci.unwrap_or_default()));
    }
    page.text
}

/// One event as one line, with a newline at its end.
pub fn event(message: &EventMessage) -> String {
    let mut page = Page::default();
    page.line(format!(
        "{}  {}",
        time_of_day(message.timestamp),
        pushed_text(&message.event)
    ));
    page.text
}

fn bond_section(
    page: &mut Page,
    bond: &BondStatus,
    manager: Option<&String>,
    now: Time,
    widths: &PortWidths,
    style: Style,
) {
    let (colour, word) = state(bond.state);
    page.painted(
        format!("{}: ", bond.name),
        style.paint(colour, word),
        format!(", {}", traffic(bond.traffic)),
    );
    page.item("why", &bond.reason);
    let mac = bond.mac.map(|mac| mac.to_string());
    let addresses = bond
        .addresses
        .iter()
        .map(|address| format!("{}/{}", address.ip, address.prefix));
    let network = joined(mac.into_iter().chain(addresses), ", ");
    page.item(
        "network",
        if network.is_empty() {
            "no address"
        } else {
            &network
        },
    );
    if let Some(manager) = manager {
        page.item("manager", manager);
    }
    page.item("VF", &widths.row(bond.vf.as_ref()));
    for backup in &bond.backup_vfs {
        page.item("backup VF", &widths.row(Some(backup)));
    }
    page.item("standby", &widths.row(bond.standby.as_ref()));
    if bond.fast_path_armed {
        let mut backups = bond.backup_vfs.iter();
        let next = match backups.any(|vf| vf.held == Some(Held::Backup)) {
            true => "the backup VF",
            false => "the standby",
        };
        let text = format!(
            "armed: when the VF's removal begins, the kernel redirects its traffic to {next}"
        );
        page.item("fast path", &text);
    }
    if let Some(deadline) = bond.next_deadline.filter(|deadline| *deadline > now) {
        let seconds = deadline.since_ms(now).div_ceil(1000);
        page.item("next", &format!("look in {seconds} s"));
    }
    for problem in &bond.problems {
        problem_item(page, problem, style);
    }
    switchover_section(page, bond, now);
}

fn problem_item(page: &mut Page, problem: &Problem, style: Style) {
    page.painted(
        "  ".to_owned(),
        style.paint(31, &format!("{:<9}", "problem")),
        format!(" {}", problem_text(problem)),
    );
    page.item("remedy", &problem.remedy);
}

fn problem_text(problem: &Problem) -> String {
    let device = problem.device.as_ref().map(|device| format!("{device}: "));
    format!(
        "{}{} ({})",
        device.unwrap_or_default(),
        problem.message,
        code(problem.code)
    )
}

fn switchover_section(page: &mut Page, bond: &BondStatus, now: Time) {
    let shown = bond.switchovers.iter().rev().take(SHOWN_SWITCHOVERS);
    let rows: Vec<[String; 2]> = shown
        .map(|switchover| [age(switchover.at, now), switchover_text(switchover)])
        .collect();
    let Some(width) = rows.iter().map(|[age, _]| age.chars().count()).max() else {
        return;
    };
    let count = bond.switchover_count;
    let more = if u64::try_from(rows.len()) == Ok(count) {
        ""
    } else {
        ", the last"
    };
    page.item(
        "switchovers",
        &format!("{count} since the service started{more}:"),
    );
    for [age, text] in rows {
        page.line(format!("    {age:>width$}  {text}"));
    }
}

fn source_section(page: &mut Page, sources: &[SourceStatus]) {
    page.line("sources".to_owned());
    for status in sources {
        let lost = match status.lost {
            0 => String::new(),
            1 => ", re-read once after lost events".to_owned(),
            times => format!(", re-read {times} times after lost events"),
        };
        page.item(
            source(status.source),
            &format!("{}{lost}", health(&status.health)),
        );
        for part in status
            .parts
            .iter()
            .filter(|part| !part.ok || status.parts.len() == 1)
        {
            page.item("", &format!("{}: {}", part.name, part.detail));
        }
    }
}

fn pushed_text(event: &Pushed) -> String {
    match event {
        Pushed::Bond(event) => event_text(event),
        Pushed::EventsLost { count } => {
            format!("{count} events were lost: this output is read too slowly")
        }
    }
}

/// An event in one sentence, for the log too.
pub(crate) fn event_text(event: &Event) -> String {
    match event {
        Event::StateChanged {
            bond,
            state: to,
            traffic: by,
            reason,
        } => {
            format!("{bond}: {}, {}: {reason}", state(*to).1, traffic(*by))
        }
        Event::SwitchedOver { bond, switchover } => {
            format!("{bond}: {}", switchover_text(switchover))
        }
        Event::SwitchoverMeasured { bond, switchover } => {
            let gap = switchover.gap.unwrap_or_default();
            format!(
                "{bond}: switchover {}: {}",
                switchover.number,
                gap_text(&gap)
            )
        }
        Event::RemovalExpected {
            bond, vf, stage, ..
        } => {
            format!(
                "{bond}: {vf} is about to be unplugged, warned by {}",
                warning(*stage)
            )
        }
        Event::VfRemoved {
            bond,
            mac,
            lead_us,
            warned_by,
        } => {
            let mac = mac.map(|mac| format!(" {mac}")).unwrap_or_default();
            let lead = match (lead_us, warned_by) {
                (Some(us), Some(stage)) => format!(
                    ": its driver began to stop {} ms after the warning by {}",
                    milliseconds(*us),
                    warning(*stage)
                ),
                _ => String::new(),
            };
            format!("{bond}: VF{mac} is gone{lead}")
        }
        Event::ProblemRaised { bond, problem } => {
            format!(
                "{bond}: problem: {}; {}",
                problem_text(problem),
                problem.remedy
            )
        }
        Event::ProblemCleared {
            bond,
            code: cleared,
        } => {
            format!("{bond}: solved: {}", code(*cleared))
        }
        Event::GeneralProblemRaised { problem } => {
            format!("problem: {}; {}", problem_text(problem), problem.remedy)
        }
        Event::GeneralProblemCleared { code: cleared } => format!("solved: {}", code(*cleared)),
    }
}

/// Column widths over the ports of all bonds.
struct PortWidths([usize; 4]);

impl PortWidths {
    fn of(bonds: &[BondStatus]) -> Self {
        let mut widths = [0; 4];
        let ports = bonds.iter().flat_map(|bond| {
            let ports = bond.vf.iter().chain(&bond.standby);
            ports.chain(&bond.backup_vfs)
        });
        for port in ports {
            for (width, cell) in widths.iter_mut().zip(cells(port)) {
                *width = (*width).max(cell.chars().count());
            }
        }
        Self(widths)
    }

    fn row(&self, port: Option<&PortStatus>) -> String {
        let Some(port) = port else {
            return "absent".to_owned();
        };
        let mut row = String::new();
        for (width, cell) in self.0.iter().zip(cells(port)) {
            row.push_str(&format!("{cell:<width$}  "));
        }
        row + port_state(port)
    }
}

fn cells(port: &PortStatus) -> [String; 4] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        port.name.to_string(),
        or_dash(port.mac.map(|mac| mac.to_string())),
        or_dash(port.pci.map(|pci| pci.to_string())),
        or_dash(port.driver.clone()),
    ]
}

/// UTC, to the millisecond.
fn time_of_day(at: Timestamp) -> String {
    let second = at.seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let milli = at.microseconds / 1000;
    format!("{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Lines of text. What comes from elsewhere can't steer the terminal.
#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: String) {
        self.push(&line);
        self.end();
    }

    /// A line with a part that was painted here.
    fn painted(&mut self, before: String, painted: String, after: String) {
        self.push(&before);
        self.text.push_str(&painted);
        self.push(&after);
        self.end();
    }

    fn item(&mut self, name: &str, text: &str) {
        self.line(format!("  {name:<9} {text}"));
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }

    fn push(&mut self, text: &str) {
        let shown = text
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c });
        self.text.extend(shown);
    }

    fn end(&mut self) {
        self.text.truncate(self.text.trim_end_matches(' ').len());
        self.text.push('\n');
    }
}
