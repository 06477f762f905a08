//! How much of a system each unit could reach, on the scale of `systemd-analyze security`: 0 to 10.

use anyhow::{Context, Result, ensure};

use super::install;

/// A service.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Its unit.
    pub unit: &'static str,
    /// That unit's file in the workspace.
    pub file: &'static str,
    /// Its exposure at most.
    pub at_most: f64,
}

/// Each one.
pub const SERVICES: [Service; 4] = [
    Service {
        unit: "tandem.service",
        file: "helper/systemd/tandem.service",
        at_most: 2.1,
    },
    Service {
        unit: "tandem-nics.service",
        file: "helper/systemd/tandem-nics.service",
        at_most: 2.1,
    },
    Service {
        unit: "tandem-refresh.service",
        file: "helper/systemd/tandem-refresh.service",
        at_most: 2.1,
    },
    Service {
        unit: "tandem-host.service",
        file: "helper/systemd/tandem-host.service",
        at_most: 1.5,
    },
];
/// Has a table with each unit's exposure.
const DOCUMENT: &str = "docs/trust.md";

/// Reads what `systemd-analyze security` said of this service, prints it, and gives the exposure.
///
/// # Errors
/// It is exposed by more than it may, or this is no table of it.
pub fn check(service: &Service, table: &str) -> Result<f64> {
    eprintln!("{table}");
    let Service { unit, at_most, .. } = service;
    let head = format!("Overall exposure level for {unit}: ");
    let exposure = table
        .lines()
        .find_map(|line| line.split_once(&head)?.1.split_whitespace().next());
    let exposure: f64 = exposure
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("no exposure of {unit} in:\n{table}"))?;
    ensure!(
        exposure <= *at_most,
        "exposure {exposure} of {unit}, and not {at_most}:\n{table}"
    );
    Ok(exposure)
}

/// What docs/trust.md tells of this service's exposure.
///
/// # Errors
/// It tells nothing.
pub fn documented(service: &Service) -> Result<f64> {
    let path = install::source(DOCUMENT);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    told(service.unit, &text).with_context(|| format!("{DOCUMENT} has no row for {}", service.unit))
}

fn told(unit: &str, text: &str) -> Option<f64> {
    let head = format!("| `{unit}` | ");
    let row = text.lines().find_map(|line| line.strip_prefix(&head))?;
    row.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_and_held_against_its_bound() {
        let table = "  NAME  DESCRIPTION\n→ Overall exposure level for a.service: 2.2 OK\n";
        let of = |unit, at_most| Service {
            unit,
            file: "",
            at_most,
        };
        check(&of("a.service", 2.2), table).unwrap();
        let more = check(&of("a.service", 2.1), table).unwrap_err().to_string();
        assert!(more.contains("exposure 2.2 of a.service"), "{more}");
        assert!(check(&of("b.service", 9.0), table).is_err());
    }

    #[test]
    fn each_service_has_a_bound_and_those_that_last_a_watchdog() {
        for service in SERVICES {
            let text = std::fs::read_to_string(install::source(service.file)).unwrap();
            let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
            assert!(value("MemoryMax=").is_some(), "{}", service.unit);
            if value("Type=") == Some("notify") {
                assert!(value("WatchdogSec=").is_some(), "{}", service.unit);
            }
            if value("Type=") == Some("oneshot") {
                assert!(value("TimeoutStartSec=").is_some(), "{}", service.unit);
            }
        }
        let lasting = SERVICES.map(|service| {
            let text = std::fs::read_to_string(install::source(service.file)).unwrap();
            text.lines().any(|line| line == "Type=notify")
        });
        assert_eq!(lasting, [true, false, false, true]);
    }

    #[test]
    fn each_units_figure_is_documented_within_its_bound() {
        assert_eq!(
            told("a.service", "x\n| `a.service` | 1.8 | x |\n"),
            Some(1.8)
        );
        assert_eq!(told("b.service", "x\n| `a.service` | 1.8 | x |\n"), None);
        for service in SERVICES {
            assert!(documented(&service).unwrap() <= service.at_most);
        }
    }
}
