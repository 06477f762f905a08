//! The figures as a page that is committed.

use std::time::Duration;

use super::super::machine::Machine;
use super::super::report::{self, Claim};
use super::{Point, table};

/// Name of the picture beside the page.
pub(super) const PICTURE: &str = "growth.svg";

/// The page, in Markdown.
pub(super) fn render(
    points: &[Point],
    claims: &[Claim],
    machine: &Machine,
    took: Duration,
) -> String {
    format!(
        "# How the guest service's costs grow\n\n\
         Written by `cargo xtask bench --growth --write-results`; not to be edited. One guest grows along one axis after the \
         other, in {minutes} minutes: addresses on its bond, routes through it, links that are none of a bond's, bonds. \
         Processor time is that of the service's control group. A cell with three numbers is the median, then the least \
         and the most of several samples; the others were taken once.\n\n\
         ![Costs by size]({PICTURE})\n\n\
         {table}\n\
         *Step* is from the size of the row before (or from none) to this one, *per item* the same for each thing that the \
         step added. *Re-read* is a full reading of the kernel's state, as after a pause of the guest. *Failover* and \
         *failback* are from the decision to the moment the new port was seen active; *switchover CPU* is for both, with \
         announcements and drain. *Start* is from exec until every bond has its state, its CPU until the service is at \
         rest; loading the kernel programs is most of it. A switchover reads all links of the guest several times: hence \
         its growth with them. Bonds after the first have a standby only, as during a migration.\n\n\
         ## Claims\n\n{claims}\n## Measured on\n\n{machine}",
        minutes = took.as_secs().div_ceil(60),
        table = table(points).markdown(),
        claims = report::markdown(claims),
        machine = machine.markdown(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Axis;
    use super::super::tests::point;
    use super::*;

    #[test]
    fn the_page_has_figures_and_claims() {
        let points = [point(Axis::Links, 10, 1000)];
        let claims = [Claim {
            text: "it is constant".to_owned(),
            holds: true,
        }];
        let page = render(
            &points,
            &claims,
            &Machine::default(),
            Duration::from_secs(61),
        );
        for text in [
            "| links | 10 | 1000.0 |",
            "* holds: it is constant\n",
            "in 2 minutes",
        ] {
            assert!(page.contains(text), "`{text}` is not in:\n{page}");
        }
    }
}
