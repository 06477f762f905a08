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
