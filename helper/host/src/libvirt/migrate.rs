//! `virsh migrate`, as a process that runs as long as the migration.

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::run::{self, Finished, OnDrop};
use super::{Virsh, refusal};
use crate::hypervisor::{Answer, HostError, MigrateOptions, Migration};

/// A `virsh migrate` under way.
///
/// Where this handle is dropped, or this process ends or is killed, that virsh is left to finish on
/// purpose: it leads the migration through its phases on both hosts. Its death in the moment of the
/// switch-over would leave the domain paused, and in post-copy it could cost the guest. `recover` waits
/// for its end, and cancels the job if that takes too long.
#[derive(Debug)]
struct Running {
    process: JoinHandle<std::io::Result<Finished>>,
    /// Kills the process.
    kill: Option<oneshot::Sender<()>>,
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
        let mut child = self
            .connection
            .spawn(&arguments, input.is_some(), OnDrop::LivesOn)?;
        let (kill, killed) = oneshot::channel();
        let process = tokio::spawn(async move {
            let finished = tokio::select! {
                finished = run::talk(&mut child, input.as_deref()) => Some(finished),
                Ok(()) = killed => None,
            };
            match finished {
                Some(finished) => finished,
                None => {
                    child.kill().await?;
                    Err(std::io::Error::other("it was given up"))
                }
            }
        });
        Ok(Box::new(Running {
            process,
            kill: Some(kill),
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

    fn give_up(&mut self) -> Answer<'_, ()> {
        Box::pin(async {
            if let Some(kill) = self.kill.take() {
                // Refused by one that has ended.
                let _ = kill.send(());
            }
            self.finished().await
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

    fn words(options: &MigrateOptions) -> Vec<String> {
        arguments("--domain=-x".to_owned(), "-y", options)
    }

    const PLAIN: [&str; 4] = ["migrate", "--domain=-x", "--desturi=-y", "--live"];

    #[test]
    fn each_option_becomes_arguments_of_one_word_each() {
        type Change = fn(&mut MigrateOptions);
        let options: [(Change, &[&str]); 9] = [
            (|it| it.peer_to_peer = true, &["--p2p"]),
            (|it| it.persistent = true, &["--persistent"]),
            (|it| it.undefine_source = true, &["--undefinesource"]),
            (
                |it| it.postcopy = true,
                &["--postcopy", "--postcopy-after-precopy"],
            ),
            (|it| it.auto_converge = true, &["--auto-converge"]),
            (|it| it.tls = true, &["--tls"]),
            (
                |it| it.xml = Some("<domain/>".to_owned()),
                &["--xml=/dev/stdin"],
            ),
            (
                |it| it.migrate_uri = Some("tcp://192.0.2.1".to_owned()),
                &["--migrateuri=tcp://192.0.2.1"],
            ),
            (|it| it.bandwidth_mib_s = Some(7), &["--bandwidth=7"]),
        ];
        assert_eq!(words(&MigrateOptions::default()), PLAIN);
        let (mut all, mut wanted) = (MigrateOptions::default(), PLAIN.to_vec());
        for (change, flags) in options {
            let mut one = MigrateOptions::default();
            change(&mut one);
            assert_eq!(words(&one), [&PLAIN[..], flags].concat());
            change(&mut all);
            wanted.extend(flags);
        }
        assert_eq!(words(&all), wanted);
    }
}
