//! How much of a system each unit could reach, on the scale of `systemd-analyze security`: 0 to 10.

use anyhow::{Context, Result, ensure};

/// Each service, its unit's file in the workspace, and its exposure at most.
pub const SERVICES: [(&str, &str, f64); 4] = [
    ("tandem.service", "helper/systemd/tandem.service", 2.1),
    // Looks for the kernel's modules, and writes to sysfs and to the user tandem's folder.
    (
        "tandem-nics.service",
        "helper/systemd/tandem-nics.service",
        2.5,
    ),
    (
        "tandem-refresh.service",
        "helper/systemd/tandem-refresh.service",
        2.6,
    ),
    (
        "tandem-host.service",
        "helper/systemd/tandem-host.service",
        1.5,
    ),
];

/// Reads what `systemd-analyze security` said of this service, and prints it.
///
/// # Errors
/// It is exposed by more than it may, or this is no table of it.
pub fn check(unit: &str, at_most: f64, table: &str) -> Result<()> {
    eprintln!("{table}");
    let head = format!("Overall exposure level for {unit}: ");
    let exposure = table
        .lines()
        .find_map(|line| line.split_once(&head)?.1.split_whitespace().next());
    let exposure: f64 = exposure
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("no exposure of {unit} in:\n{table}"))?;
    ensure!(
        exposure <= at_most,
        "exposure {exposure} of {unit}, and not {at_most}:\n{table}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_and_held_against_its_bound() {
        let table = "  NAME  DESCRIPTION\n→ Overall exposure level for a.service: 2.2 OK\n";
        check("a.service", 2.2, table).unwrap();
        let more = check("a.service", 2.1, table).unwrap_err().to_string();
        assert!(more.contains("exposure 2.2 of a.service"), "{more}");
        assert!(check("b.service", 9.0, table).is_err());
    }
}
