//! What becomes of the present network configuration once a pair is a bond.

use std::net::IpAddr;

use tandem_core::link::Link;
use tandem_core::types::Ifindex;

use super::propose::Pair;
use crate::managers;
use crate::system_files::SystemFiles;

/// In sentences.
pub(super) fn of(
    files: &SystemFiles,
    links: &[Link],
    addresses: &[(Ifindex, IpAddr)],
    pair: &Pair,
) -> Vec<String> {
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
    let lost = pair.vfs.iter().filter_map(|vf| {
        let link = links.iter().find(|link| link.name == vf.name)?;
        let own = addresses.iter().filter(|(of, _)| *of == link.ifindex);
        let own: Vec<_> = own.map(|(_, ip)| ip.to_string()).collect();
        let own = (!own.is_empty()).then(|| own.join(" and "))?;
        Some(format!(
            "{} loses its own {own}: who is logged in by that loses the session; use an address of {standby}.",
            vf.name
        ))
    });
    [ports, configured].into_iter().chain(lost).collect()
}
