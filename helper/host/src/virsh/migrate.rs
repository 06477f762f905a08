//! `virsh migrate`, as a process that runs as long as the migration.

use tokio::task::JoinHandle;

use super::run::{self, Finished};
use super::{Virsh, refusal};
use crate::hypervisor::{Answer, HostError, MigrateOptions, Migration};

/// A `virsh migrate` under way. Dropped before its end, the process is killed: libvirt ends a
/// migration whose client has gone, but for a peer-to-peer one, which goes on.
#[derive(Debug)]
struct Running {
    process: JoinHandle<std::io::Result<Finished>>,
    /// How it ended, for whoever asks again.
    outcome: Option<Result<(), HostError>>,
    host: String,
    domain: String,
}

impl Virsh {
    pub(super) async fn start_migration(
        &self,
        name: &str,
        destination: &str,
        options: &MigrateOptions,
    ) -> Result<Box<dyn Migration>, HostError> {
        let arguments = arguments(self.target(name).await?, destination, options);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let input = options.xml.clone();
        let mut child = self.connection.spawn(&arguments, input.is_some())?;
        let process = tokio::spawn(async move { run::talk(&mut child, input.as_deref()).await });
        Ok(Box::new(Running {
            process,
            outcome: None,
            host: self.connection.uri.clone(),
            domain: name.to_owned(),
        }))
    }
}

impl Migration for Running {
    fn finished(&mut self) -> Answer<'_, ()> {
        Box::pin(async {
            if let Some(outcome) = &self.outcome {
                return outcome.clone();
            }
            let ended = (&mut self.process).await;
            let outcome = match ended {
                Ok(Ok(Finished { success: true, .. })) => Ok(()),
                Ok(Ok(Finished { stderr, .. })) => {
                    Err(refusal::of(&self.host, "migrate", &self.domain, &stderr))
                }
                Ok(Err(error)) => Err(self.failed(&error.to_string())),
                Err(error) => Err(self.failed(&error.to_string())),
            };
            self.outcome = Some(outcome.clone());
            outcome
        })
    }
}

impl Running {
    fn failed(&self, reason: &str) -> HostError {
        HostError::MigrationFailed {
            domain: self.domain.clone(),
            reason: format!("virsh migrate: {reason}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process.abort();
    }
}

fn arguments(target: String, destination: &str, options: &MigrateOptions) -> Vec<String> {
    let mut arguments = vec![
        "migrate".to_owned(),
        target,
        format!("--desturi={destination}"),
        "--live".to_owned(),
    ];
    for (wanted, flags) in [
        (options.peer_to_peer, &["--p2p"][..]),
        (options.persistent, &["--persistent"]),
        (options.undefine_source, &["--undefinesource"]),
        (
            options.postcopy,
            &["--postcopy", "--postcopy-after-precopy"],
        ),
        (options.auto_converge, &["--auto-converge"]),
        (options.tls, &["--tls"]),
        // Read from the standard input, so that no file has to be made.
        (options.xml.is_some(), &["--xml=/dev/stdin"]),
    ] {
        if wanted {
            arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        }
    }
    if let Some(uri) = &options.migrate_uri {
        arguments.push(format!("--migrateuri={uri}"));
    }
    if let Some(bandwidth) = options.bandwidth_mib_s {
        arguments.push(format!("--bandwidth={bandwidth}"));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_arguments_of_one_word_each() {
        let options = MigrateOptions {
            xml: Some("<domain/>".to_owned()),
            migrate_uri: Some("tcp://192.0.2.1".to_owned()),
            postcopy: true,
            bandwidth_mib_s: Some(7),
            ..MigrateOptions::default()
        };
        let arguments = arguments("--domain=-x".to_owned(), "-y", &options);
        assert_eq!(
            arguments,
            [
                "migrate",
                "--domain=-x",
                "--desturi=-y",
                "--live",
                "--postcopy",
                "--postcopy-after-precopy",
                "--xml=/dev/stdin",
                "--migrateuri=tcp://192.0.2.1",
                "--bandwidth=7",
            ]
        );
    }
}
