//! Which domain's channel has which socket. One that two domains have is used for neither: whose guest
//! listens there depends on which of them came last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::hypervisor::ChannelSocket;

/// The sockets of all domains that run here.
#[derive(Debug, Default)]
pub(super) struct Claims {
    domains: BTreeMap<PathBuf, BTreeSet<String>>,
    paths: BTreeMap<String, PathBuf>,
}

impl Claims {
    /// This is the domain's socket from now on. Returns the other domains for which that changes something.
    pub(super) fn set(&mut self, domain: &str, path: Option<&Path>) -> BTreeSet<String> {
        let old = self.paths.get(domain);
        if old.map(PathBuf::as_path) == path {
            return BTreeSet::new();
        }
        let mut others = BTreeSet::new();
        if let Some(old) = self.paths.remove(domain)
            && let Some(left) = self.domains.get_mut(&old)
        {
            left.remove(domain);
            others.extend(left.iter().cloned());
            if left.is_empty() {
                self.domains.remove(&old);
            }
        }
        if let Some(path) = path {
            let having = self.domains.entry(path.to_owned()).or_default();
            others.extend(having.iter().cloned());
            having.insert(domain.to_owned());
            self.paths.insert(domain.to_owned(), path.to_owned());
        }
        others
    }

    /// The domain's socket, unless another domain has it too.
    pub(super) fn judged(
        &self,
        domain: &str,
        socket: Result<ChannelSocket, String>,
    ) -> Result<ChannelSocket, String> {
        let path = self.paths.get(domain);
        let having = path.and_then(|path| self.domains.get(path));
        let mut others = having.into_iter().flatten().filter(|name| *name != domain);
        match (socket, path, others.next()) {
            (Ok(_), Some(path), Some(other)) => Err(format!(
                "its channel's socket {} is that of domain {other} too, so neither is asked; give each its own",
                path.display()
            )),
            (socket, ..) => socket,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_two_domains_is_neither_s_until_one_lets_go() {
        let mut claims = Claims::default();
        let path = Path::new("/run/a");
        let judged = |claims: &Claims, name: &str| {
            let socket = claims.judged(name, Ok(ChannelSocket::named(path)));
            socket.map(|_| ())
        };
        assert!(claims.set("a", Some(path)).is_empty());
        judged(&claims, "a").unwrap();
        let others = claims.set("b", Some(path));
        assert_eq!(others, BTreeSet::from(["a".to_owned()]));
        assert!(claims.set("b", Some(path)).is_empty(), "nothing new");
        let error = judged(&claims, "a").unwrap_err();
        assert!(
            error.contains("/run/a") && error.contains("domain b"),
            "{error}"
        );
        assert!(judged(&claims, "b").unwrap_err().contains("domain a"));
        // What is wrong with it otherwise is told first.
        let own = Err("it is paused".to_owned());
        assert_eq!(claims.judged("a", own.clone()), own);
        let others = claims.set("b", None);
        assert_eq!(others, BTreeSet::from(["a".to_owned()]));
        judged(&claims, "a").unwrap();
        claims.set("a", None);
        assert!(claims.domains.is_empty() && claims.paths.is_empty());
    }
}
