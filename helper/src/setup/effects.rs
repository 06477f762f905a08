//! What becomes of the present network configuration once a pair is a bond.

use tandem_core::link::Link;

use super::propose::Pair;
use crate::managers;
use crate::system_files::SystemFiles;

/// In sentences.
pub(super) fn of(files: &SystemFiles, links: &[Link], pair: &Pair) -> Vec<String> {
    let (bond, standby) = (&pair.bond, &pair.standby.name);
    if pair.is_anothers {
        return vec![format!(
            "{bond} is there and stays as it is: Tandem adds and watches its ports."
        )];
    }
    let nics: Vec<_> = std::iter::once(&pair.standby)
        .chain(&pair.vfs)
        .map(|nic| nic.name.to_string())
        .collect();
    let ports = format!("{} become ports of {bond}.", nics.join(" and "));
    let link = links.iter().find(|link| link.name == *standby);
    let prospect = link.map_or(Ok(None), |link| managers::prospect(files, bond, link));
    let configured = match prospect {
        Ok(Some(configured)) => configured,
        Ok(None) => format!(
            "The addresses and routes that {standby} has move to {bond}; see \"Addresses\" in the guide where another manager got them."
        ),
        Err(why) => format!("{why} See \"Addresses\" in the guide."),
    };
    vec![ports, configured]
}
