//! `virsh migrate`, as a process that runs as long as the migration.

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::run::{self, Finished, OnDrop};
use super::{Virsh, refusal};
use crate::hypervisor::{Answer, HostError, MigrateOptions, Migration, OnTimeout, StorageCopy};

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
    /// virsh would tell so only when it is to migrate. One that does not say what it has is believed to have all.
    pub(super) async fn check_options(&self, options: &MigrateOptions) -> Result<(), HostError> {
        let basic = MigrateOptions {
            xml: options.xml.clone(),
            migrate_uri: options.migrate_uri.clone(),
            ..MigrateOptions::default()
        };
        if *options == basic {
            return Ok(());
        }
        let Ok(help) = self.ask(&["help", "migrate"]).await else {
            return Ok(());
        };
        let arguments = arguments(String::new(), "", options);
        let refused = |reason: String| {
            Err(HostError::Refused {
                host: self.connection.uri.clone(),
                what: "virsh migrate".to_owned(),
                reason,
            })
        };
        // All but the command, the domain and the destination.
        for argument in &arguments[3..] {
            let name = argument.split('=').next().unwrap_or_default();
            match (takes_value(&help, name), argument.contains('=')) {
                (None, _) => return refused(format!("it has no option {name}")),
                (Some(true), false) => return refused(format!("{name} needs a value")),
                (Some(false), true) => return refused(format!("{name} takes no value")),
                (Some(_), _) => {}
            }
        }
        Ok(())
    }

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

/// Whether an option has a value, by the help of this `virsh migrate`: `--xml <string>`. `None` if it has no such option.
fn takes_value(help: &str, option: &str) -> Option<bool> {
    let mut lines = help.lines().map(str::split_whitespace);
    let mut words = lines.find(|words| words.clone().next() == Some(option))?;
    let value = words.nth(1);
    Some(value.is_some_and(|word| matches!(word, "<string>" | "<number>")))
}

fn arguments(target: String, destination: &str, options: &MigrateOptions) -> Vec<String> {
    let mut arguments = vec![
        "migrate".to_owned(),
        target,
        format!("--desturi={destination}"),
        "--live".to_owned(),
    ];
    let action = options.timeout.map(|(_, action)| action);
    let resumes = options.resume_postcopy;
    let later = action == Some(OnTimeout::PostCopy);
    for (wanted, flag) in [
        (options.peer_to_peer, "--p2p"),
        (options.persistent, "--persistent"),
        (options.undefine_source, "--undefinesource"),
        (
            options.storage == Some(StorageCopy::All),
            "--copy-storage-all",
        ),
        (
            options.storage == Some(StorageCopy::Incremental),
            "--copy-storage-inc",
        ),
        (
            options.storage_synchronous,
            "--copy-storage-synchronous-writes",
        ),
        (options.parallel, "--parallel"),
        (options.compressed, "--compressed"),
        (options.postcopy || resumes, "--postcopy"),
        (resumes, "--postcopy-resume"),
        (
            options.postcopy && !later && !resumes,
            "--postcopy-after-precopy",
        ),
        (later && !resumes, "--timeout-postcopy"),
        (
            action == Some(OnTimeout::Suspend) && !resumes,
            "--timeout-suspend",
        ),
        (options.auto_converge, "--auto-converge"),
        (options.tls, "--tls"),
        (options.is_unsafe, "--unsafe"),
        // Read from the standard input, so that no file has to be made.
        (options.xml.is_some(), "--xml=/dev/stdin"),
    ] {
        arguments.extend(wanted.then(|| flag.to_owned()));
    }
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    for (name, value) in [
        ("persistent-xml", options.persistent_xml.clone()),
        ("migrate-disks", options.disks.clone()),
        (
            "parallel-connections",
            number(options.parallel_connections.map(u64::from)),
        ),
        ("comp-methods", options.compression_methods.clone()),
        (
            "postcopy-bandwidth",
            number(options.postcopy_bandwidth_mib_s),
        ),
        (
            "timeout",
            number(
                options
                    .timeout
                    .filter(|_| !resumes)
                    .map(|(seconds, _)| seconds),
            ),
        ),
        ("dname", options.dname.clone()),
        ("tls-destination", options.tls_destination.clone()),
        ("migrateuri", options.migrate_uri.clone()),
        ("bandwidth", number(options.bandwidth_mib_s)),
    ] {
        arguments.extend(value.map(|value| format!("--{name}={value}")));
    }
    arguments.extend(options.more.iter().cloned());
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
        let options: [(Change, &[&str]); 16] = [
            (|it| it.peer_to_peer = true, &["--p2p"]),
            (|it| it.persistent = true, &["--persistent"]),
            (|it| it.undefine_source = true, &["--undefinesource"]),
            (
                |it| it.storage = Some(StorageCopy::All),
                &["--copy-storage-all"],
            ),
            (
                |it| it.storage_synchronous = true,
                &["--copy-storage-synchronous-writes"],
            ),
            (|it| it.parallel = true, &["--parallel"]),
            (|it| it.compressed = true, &["--compressed"]),
            (
                |it| it.postcopy = true,
                &["--postcopy", "--postcopy-after-precopy"],
            ),
            (
                |it| it.timeout = Some((9, OnTimeout::Suspend)),
                &["--timeout-suspend"],
            ),
            (|it| it.auto_converge = true, &["--auto-converge"]),
            (|it| it.tls = true, &["--tls"]),
            (|it| it.is_unsafe = true, &["--unsafe"]),
            (
                |it| it.xml = Some("<domain/>".to_owned()),
                &["--xml=/dev/stdin"],
            ),
            (
                |it| it.migrate_uri = Some("tcp://192.0.2.1".to_owned()),
                &["--migrateuri=tcp://192.0.2.1"],
            ),
            (|it| it.bandwidth_mib_s = Some(7), &["--bandwidth=7"]),
            (
                |it| it.more = vec!["--zerocopy".to_owned()],
                &["--zerocopy"],
            ),
        ];
        assert_eq!(words(&MigrateOptions::default()), PLAIN);
        let mut all = MigrateOptions::default();
        for (change, flags) in &options {
            let mut one = MigrateOptions::default();
            change(&mut one);
            let mut told = words(&one);
            // A timeout has two words, of which one is told below.
            told.retain(|word| word != "--timeout=9");
            assert_eq!(told, [&PLAIN[..], flags].concat());
            change(&mut all);
        }
        let told = words(&all);
        for (_, flags) in &options {
            assert!(
                flags
                    .iter()
                    .all(|flag| told.iter().any(|word| word == flag)),
                "{flags:?}"
            );
        }
    }

    #[test]
    fn values_stand_in_the_word_of_their_option() {
        let options = MigrateOptions {
            storage: Some(StorageCopy::Incremental),
            persistent_xml: Some("/p x".to_owned()),
            disks: Some("vda,vdb".to_owned()),
            parallel_connections: Some(4),
            compression_methods: Some("zstd".to_owned()),
            postcopy: true,
            postcopy_bandwidth_mib_s: Some(5),
            timeout: Some((30, OnTimeout::PostCopy)),
            tls_destination: Some("b; c".to_owned()),
            dname: Some("g 2".to_owned()),
            ..MigrateOptions::default()
        };
        let told = words(&options);
        let wanted = [
            "--copy-storage-inc",
            "--postcopy",
            "--timeout-postcopy",
            "--persistent-xml=/p x",
            "--migrate-disks=vda,vdb",
            "--parallel-connections=4",
            "--comp-methods=zstd",
            "--postcopy-bandwidth=5",
            "--timeout=30",
            "--dname=g 2",
            "--tls-destination=b; c",
        ];
        assert_eq!(told[PLAIN.len()..], wanted);
        // One that goes on with a post-copy does not begin one.
        let resumes = MigrateOptions {
            postcopy: true,
            resume_postcopy: true,
            timeout: Some((30, OnTimeout::PostCopy)),
            migrate_uri: Some("tcp://b".to_owned()),
            ..MigrateOptions::default()
        };
        let wanted = ["--postcopy", "--postcopy-resume", "--migrateuri=tcp://b"];
        assert_eq!(words(&resumes)[PLAIN.len()..], wanted);
    }

    /// This machine's `virsh` has all that this program names.
    #[tokio::test]
    async fn an_option_that_virsh_does_not_have_is_refused_before_anything_else() {
        let virsh = Virsh::new("test:///default");
        let more = |words: &[&str]| MigrateOptions {
            is_unsafe: true,
            postcopy: true,
            parallel: true,
            timeout: Some((30, OnTimeout::PostCopy)),
            more: words.iter().map(|word| (*word).to_owned()).collect(),
            ..MigrateOptions::default()
        };
        virsh.check_options(&more(&[])).await.unwrap();
        let known = more(&["--listen-address=::1", "--abort-on-error"]);
        virsh.check_options(&known).await.unwrap();
        for (word, why) in [
            ("--of-tomorrow=1", "no option --of-tomorrow"),
            ("--abort-on-error=1", "--abort-on-error takes no value"),
            ("--listen-address", "--listen-address needs a value"),
        ] {
            let error = virsh.check_options(&more(&[word])).await.unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
