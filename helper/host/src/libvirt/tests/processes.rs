//! A `virsh` that does not end, and what it leaves.

use super::*;

#[tokio::test]
async fn a_virsh_that_hangs_floods_or_is_missing_is_told() {
    let (mut virsh, _folder) = fake("exec sleep 60");
    virsh.connection.limit = Duration::from_millis(50);
    let error = virsh.active().await.unwrap_err();
    assert!(matches!(error, HostError::TimedOut { .. }), "{error}");
    let (virsh, _folder) = fake("exec head -c 9000000 /dev/zero");
    let error = virsh.active().await.unwrap_err();
    assert!(matches!(error, HostError::Unreachable { .. }), "{error}");
    let (virsh, _folder) = fake("exec head -c 9000000 /dev/zero >&2");
    assert_eq!(virsh.active().await.unwrap(), []);
    let virsh = Virsh::with_program("test:///fake", "/nonexistent/virsh".into());
    let error = virsh.active().await.unwrap_err();
    assert!(error.to_string().contains("install"), "{error}");
}

/// What virsh starts, an ssh, is in its group.
#[tokio::test]
async fn a_virsh_that_takes_too_long_is_killed_with_all_that_it_started() {
    for script in [
        "sleep 600 & echo $! > \"$HERE/pid.new\"; mv \"$HERE/pid.new\" \"$HERE/pid\"; wait",
        // Itself it has ended, and what it started has its output still.
        "sleep 600 & echo $! > \"$HERE/pid.new\"; mv \"$HERE/pid.new\" \"$HERE/pid\"",
    ] {
        let (mut virsh, folder) = fake(script);
        virsh.connection.limit = Duration::from_secs(3600);
        let pid_file = folder.path().join("pid");
        let asked = virsh.active();
        let begun = async {
            while !pid_file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ended = asked => panic!("{ended:?}"),
            () = begun => {}
        }
        // It was dropped, as at the end of its time.
        let pid = fs::read_to_string(&pid_file).unwrap();
        let runs = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        let ended = async {
            while runs() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        assert!(ended.is_ok(), "it lives on: {script}");
    }
}

#[tokio::test]
async fn a_source_of_events_that_closed_its_output_is_not_waited_for() {
    let (mut virsh, folder) = fake(
        "case \"$ALL\" in *' event '*) echo >> \"$HERE/starts\"; exec >&- 2>&-; exec sleep 600 ;;\n\
         *) exec sleep 600 ;; esac",
    );
    virsh.connection.limit = Duration::from_millis(50);
    let _events = virsh.events().await.unwrap();
    let starts = || fs::read_to_string(folder.path().join("starts")).unwrap_or_default();
    let again = async {
        while starts().lines().count() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(60), again).await;
    assert!(again.is_ok(), "it was not started again");
}

/// In post-copy the death of the `virsh` that leads the migration could cost the guest.
#[tokio::test]
async fn a_migration_outlives_its_handle_and_ends_only_when_it_is_given_up() {
    let script = r#"case "$ALL" in
*' migrate '*) echo $$ > "$HERE/pid.new"; mv "$HERE/pid.new" "$HERE/pid"; exec sleep 60 ;;
esac
"#;
    let (virsh, folder) = fake(script);
    let pid_file = folder.path().join("pid");
    let pid_of = |path| {
        let text = fs::read_to_string(path).unwrap();
        rustix::process::Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    };
    let options = MigrateOptions::default();
    let mut handle = virsh
        .migrate("g1", "test:///there", &options)
        .await
        .unwrap();
    while !pid_file.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pid = pid_of(&pid_file);
    assert!(handle.give_up().await.is_err());
    assert!(rustix::process::test_kill_process(pid).is_err());
    let runtime = std::thread::spawn({
        let (virsh, pid_file) = (virsh.clone(), pid_file.clone());
        move || {
            let one = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            one.block_on(async {
                fs::remove_file(&pid_file).unwrap();
                let options = MigrateOptions::default();
                drop(
                    virsh
                        .migrate("g1", "test:///there", &options)
                        .await
                        .unwrap(),
                );
                while !pid_file.exists() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            // As at the end of this program, nobody is left that waits for it.
        }
    });
    runtime.join().unwrap();
    let pid = pid_of(&pid_file);
    // A killed one that nobody has waited for would still be there, so its state counts.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(!stat.contains(") Z "), "{stat}");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// The holder of a function is looked for within one action, however many domains there are.
#[tokio::test]
async fn many_domains_on_a_slow_host_keep_no_function_from_a_guest() {
    let (mut virsh, folder) = fake(
        "case \"$ALL\" in\n\
         *' nodedev-dumpxml '*) echo '<device/>' ;;\n\
         *' list --uuid') for i in $(seq 100); do echo u$i; done ;;\n\
         *' dumpxml '*) echo >> \"$HERE/asked\"; sleep 0.5; echo '<domain><name>idle</name></domain>' ;;\n\
         *) exit 1 ;;\nesac",
    );
    virsh.connection.limit = Duration::from_secs(3);
    let hostdev = "<hostdev mode='subsystem' type='pci'><source>\
        <address domain='0x0000' bus='0x3b' slot='0x02' function='0x1'/></source></hostdev>";
    virsh.check_device(hostdev, 1).await.unwrap();
    let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
    let asked = asked.lines().count();
    assert!((1..20).contains(&asked), "{asked} domains were asked");
}
